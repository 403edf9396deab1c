"""What providers earned leaves once, by their own claim, and never more than they had."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from aitbc.accounts.models import User
from aitbc.chain import keystore
from aitbc.chain.models import FinalEvent, Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid
from aitbc.core.ids import uuid7
from apps.trading.models import Account, PayoutBatch, PayoutLeaf, PayoutTarget
from apps.trading.selectors.chain import payouts_of
from apps.trading.services import ledger, schedule
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import finish_payouts, receive_claim, seal_payouts, set_target, sweep_claims

NOW = {"minimum": 1, "most": 10**30, "wait_seconds": 0, "alone": 10**30}


class Provider:
    def __init__(self, net, name: str, earned: int) -> None:
        self.user: UUID = User.objects.create_user(f"{name}@example.com", role="miner").pk
        self.wallet = Actor(net.client)
        net.mint(deposit_address(user=self.user), earned)  # the simplest way to a real balance

    def target(self, address: str | None = None) -> None:
        set_target(user=self.user, address=address or self.wallet.address)

    def account(self, kind: str) -> Account:
        chain = "ait-devnet" if kind == "claimable" else ""
        return Account.objects.get(pk=ledger.account_id(owner=self.user, kind=kind, chain=chain))

    def money(self) -> tuple[int, int, int]:
        """(available, held, claimable)"""
        available, claimable = self.account("available"), self.account("claimable")
        return int(available.posted), int(available.held), int(claimable.posted)

    def claim(self, net) -> None:
        item = payouts_of(user=self.user, cursor=None, limit=1)["items"][0]["claim"]
        args = [item["batch_id"], item["index"], item["account"], item["units"], item["proof"]]
        net.settlement.send(self.wallet, "claim", *args)


@pytest.fixture
def mike(net) -> Provider:
    return Provider(net, "mike", 10 * AIT)


@pytest.fixture
def nora(net) -> Provider:
    return Provider(net, "nora", 20 * AIT)


def external() -> int:
    account = ledger.account_id(owner=None, kind="external", chain="ait-devnet")
    return int(Account.objects.get(pk=account).posted)


def test_held_then_claimable_then_claimed(net, mike, nora):
    net.settle()
    mike.target()
    nora.target()

    batch = seal_payouts(**NOW)
    assert (batch.count, batch.total) == (2, 30 * AIT)
    assert mike.money() == (10 * AIT, 10 * AIT, 0)

    net.settle()
    batch.refresh_from_db()
    assert batch.state == "final"
    assert net.settlement.read("promised") == 30 * AIT
    assert mike.money() == (0, 0, 10 * AIT)
    assert nora.money() == (0, 0, 20 * AIT)
    assert external() == -30 * AIT

    nora.claim(net)
    net.settle()
    assert nora.money() == (0, 0, 0)
    assert net.balance(nora.wallet.address) == 20 * AIT
    assert external() == -10 * AIT
    assert mike.money() == (0, 0, 10 * AIT)

    mike.claim(net)
    net.settle()
    assert net.balance(mike.wallet.address) == 10 * AIT
    assert external() == 0
    assert db.value("SELECT sum(posted) FROM trading_account") == 0
    leaf = PayoutLeaf.objects.get(user_id=mike.user)
    assert leaf.claimed_at is not None
    assert net.client.receipt(leaf.claim_tx).succeeded


def test_who_keeps_his_earnings_in_the_ledger_has_no_leaf(net, mike, nora):
    net.settle()
    nora.target()
    batch = seal_payouts(**NOW)
    assert [leaf.user_id for leaf in batch.leaves.all()] == [nora.user]
    assert mike.money() == (10 * AIT, 0, 0)
    set_target(user=nora.user, address=None)
    assert not PayoutTarget.objects.exists()


def test_nothing_is_paid_twice_by_sealing_twice(net, mike):
    net.settle()
    mike.target()
    assert seal_payouts(**NOW).total == 10 * AIT
    assert seal_payouts(**NOW) is None
    net.settle()
    assert seal_payouts(**NOW) is None
    assert PayoutBatch.objects.count() == 1


def test_money_in_escrow_is_not_paid_out(net, mike):
    net.settle()
    mike.target()
    hold = ledger.Item(id=uuid7(), action="hold", kind="job.hold", debit=mike.account("available").pk, amount=4 * AIT)
    ledger.apply_all([hold])
    batch = seal_payouts(**NOW)
    assert batch.total == 6 * AIT
    assert mike.money() == (10 * AIT, 10 * AIT, 0)


def test_a_new_address_waits_and_a_changed_one_again(net, mike):
    net.settle()
    mike.target()
    waiting = NOW | {"wait_seconds": 3600}
    assert seal_payouts(**waiting) is None

    PayoutTarget.objects.update(set_at=timezone.now() - timedelta(hours=2))
    mike.target(mike.wallet.address.lower())  # the same address in other letters
    mike_waited = PayoutTarget.objects.get().set_at
    assert mike_waited < timezone.now() - timedelta(hours=1)
    mike.target("0x" + "12" * 20)
    assert seal_payouts(**waiting) is None
    assert mike.money() == (10 * AIT, 0, 0)


def test_a_batch_never_promises_more_than_one_key_may(net, mike, nora):
    net.settle()
    mike.target()
    nora.target()
    first = seal_payouts(minimum=1, most=15 * AIT, wait_seconds=0, alone=10**30)
    assert first.total == 15 * AIT
    second = seal_payouts(minimum=1, most=15 * AIT, wait_seconds=0, alone=10**30)
    assert second.total == 15 * AIT
    assert seal_payouts(**NOW) is None
    net.settle()
    assert PayoutBatch.objects.filter(state="final").count() == 2
    assert mike.money()[2] + nora.money()[2] == 30 * AIT


def test_less_than_the_minimum_waits(net, mike):
    net.settle()
    mike.target()
    assert seal_payouts(minimum=10 * AIT + 1, most=10**30, wait_seconds=0, alone=10**30) is None
    assert mike.money() == (10 * AIT, 0, 0)


def test_a_payout_that_fails_for_good_releases_everything(net, mike):
    net.settle()
    mike.target()
    batch = seal_payouts(**NOW)
    intent = Intent.objects.get(kind="settlement.payout")
    intent.state = Intent.State.FAILED
    finish_payouts(intent)

    batch.refresh_from_db()
    assert batch.state == "failed"
    assert mike.money() == (10 * AIT, 0, 0)
    assert seal_payouts(**NOW).total == 10 * AIT


def test_a_claim_of_another_amount_is_refused_and_changes_nothing(net, mike):
    net.settle()
    mike.target()
    seal_payouts(**NOW)
    net.settle()
    mike.claim(net)
    net.settle()
    event = FinalEvent.objects.get(name="Claimed")
    event.args["amount"] = str(11 * AIT)
    with pytest.raises(Conflict, match=r"payout\.claim_differs"):
        receive_claim(event)
    assert external() == 0


def test_a_repeated_claim_event_posts_once(net, mike):
    net.settle()
    mike.target()
    seal_payouts(**NOW)
    net.settle()
    mike.claim(net)
    net.settle()
    receive_claim(FinalEvent.objects.get(name="Claimed"))
    assert external() == 0
    assert mike.money() == (0, 0, 0)


def test_a_malformed_address_is_refused(net, mike):
    with pytest.raises(Invalid, match=r"signing\.address"):
        mike.target("0x1234")
    assert not PayoutTarget.objects.exists()


def test_the_platform_may_pay_the_gas_of_many_claims(net, mike, nora):
    from aitbc.accounts import parameters

    net.settle()
    mike.target()
    nora.target()
    batch = seal_payouts(**NOW)
    net.settle()
    assert sweep_claims() == 0  # off, as it is delivered
    parameters.change(name="claim_sweep_seconds", value=3600, by=None)
    assert sweep_claims() == 0  # too early
    PayoutBatch.objects.update(finalized_at=timezone.now() - timedelta(hours=1))

    assert (sweep_claims(), sweep_claims()) == (2, 0)
    nora.claim(net)  # before the operator's transaction: it must not stop mike's
    net.settle()

    intent = Intent.objects.get(function="claimMany")
    assert (intent.state, intent.sender) == ("final", keystore.address("operator"))
    assert [mike.money(), nora.money()] == [(0, 0, 0), (0, 0, 0)]
    assert net.balance(mike.wallet.address) == 10 * AIT
    assert net.balance(nora.wallet.address) == 20 * AIT
    paid = {leaf.user_id: leaf.claim_tx for leaf in batch.leaves.all()}
    assert paid[mike.user] == intent.tx_hash != paid[nora.user]
    assert external() == 0
    assert sweep_claims() == 0


def test_nobody_is_paid_where_nobody_could_move_it(net, mike):
    with pytest.raises(Invalid, match=r"withdrawal\.address"):
        mike.target("0x" + "00" * 20)
    assert not PayoutTarget.objects.exists()


def test_the_schedule_follows_the_parameters(net, mike):
    from aitbc.accounts import parameters

    for name, value in (("address_wait_seconds", 0), ("payout_seconds", 3600), ("payout_minimum_milli", 1)):
        parameters.change(name=name, value=value, by=None)
    net.settle()
    mike.target()
    assert schedule.seal_due_payouts() == 1
    net.mint(deposit_address(user=mike.user), AIT)
    net.settle()
    assert schedule.seal_due_payouts() == 0
    parameters.change(name="payout_seconds", value=0, by=None)
    assert schedule.seal_due_payouts() == 1
