"""Rule 1: one earning, one place. Withdrawn + claimed never exceeds earned; anchoring moves no value."""

import random

import pytest

from aitbc.accounts.models import User
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.ids import uuid7
from apps.trading.models import PayoutLeaf
from apps.trading.selectors.chain import payouts_of
from apps.trading.services import ledger
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import finish_payouts, seal_payouts, set_target


def move(kind: str, debit: int, credit: int, amount: int) -> str:
    item = ledger.Item(id=uuid7(), action="transfer", kind=kind, debit=debit, credit=credit, amount=amount)
    return ledger.apply([item])[0]


@pytest.mark.parametrize("seed", range(4))
def test_what_a_provider_takes_out_never_exceeds_what_he_earned(net, seed):
    rng = random.Random(seed)
    provider = User.objects.create_user("mike@example.com").pk
    client = User.objects.create_user("alice@example.com").pk
    wallet = Actor(net.client)
    net.mint(deposit_address(user=client), 100 * AIT)
    net.settle()
    set_target(user=provider, address=wallet.address)
    accounts = {who: ledger.account_id(owner=who, kind="available") for who in (provider, client)}
    earned = spent = 0

    for _ in range(25):
        step = rng.choice(["earn", "earn", "spend", "seal", "settle", "fail", "claim"])
        amount = rng.randrange(1, 5 * AIT)
        if step == "earn" and move("job.earning", accounts[client], accounts[provider], amount) == "ok":
            earned += amount
        elif step == "spend" and move("job.earning", accounts[provider], accounts[client], amount) == "ok":
            spent += amount
        elif step == "seal":
            seal_payouts(minimum=1, most=rng.randrange(1, 50 * AIT), wait_seconds=0, alone=10**30)
        elif step == "fail":
            _fail_a_payout()
        elif step == "settle":
            net.settle()
        elif step == "claim":
            _claim_one(net, provider, wallet)
        assert net.balance(wallet.address) <= earned - spent
    net.settle()
    while _claim_one(net, provider, wallet):
        net.settle()

    claimed = net.balance(wallet.address)
    left = db.value("SELECT sum(posted) FROM trading_account WHERE owner_id = %s", (provider,))
    assert claimed + int(left) == earned - spent
    assert db.value("SELECT sum(posted) FROM trading_account") == 0
    assert {c for (c,) in db.rows("SELECT count(*) FROM trading_payoutleaf GROUP BY batch_id, user_id")} <= {1}


def _fail_a_payout() -> None:
    """As if the chain had refused it for good before it was sent."""
    intent = Intent.objects.filter(kind="settlement.payout", state="requested").first()
    if intent is not None:
        Intent.objects.filter(pk=intent.pk).update(state="failed")
        intent.state = Intent.State.FAILED
        finish_payouts(intent)


def _claim_one(net, provider, wallet) -> bool:
    claims = [item["claim"] for item in payouts_of(user=provider, cursor=None, limit=50)["items"] if item["claim"]]
    open_claims = [c for c in claims if not net.settlement.read("claimed", c["batch_id"], c["index"])]
    for claim in open_claims[:1]:
        args = [claim[name] for name in ("batch_id", "index", "account", "units", "proof")]
        net.settlement.send(wallet, "claim", *args)
    return bool(open_claims)


def test_a_provider_who_keeps_his_money_here_has_no_leaf(net):
    provider = User.objects.create_user("nora@example.com").pk
    net.mint(deposit_address(user=provider), AIT)
    net.settle()
    assert seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=10**30) is None
    assert PayoutLeaf.objects.count() == 0
