"""One intent, at most one mined transaction: whatever crashes, is lost or lies."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from django.db import IntegrityError, transaction

from aitbc.chain import keystore
from aitbc.chain import worker as worker_module
from aitbc.chain.client import Client
from aitbc.chain.intents import request_intent
from aitbc.chain.models import Deployment, FinalEvent, Intent, NetworkStatus, SignedTransaction
from aitbc.chain.testing import AIT, TEST_CHAIN_ID, Actor, mine
from aitbc.chain.testing.net import DEPTH
from aitbc.chain.transactions import fees, sign_and_store
from aitbc.chain.worker import NOBODY, Superseded, Worker
from aitbc.core.errors import Conflict, Unavailable
from aitbc.stack.anvil import Anvil

BOB = "0x" + "00" * 18 + "b0b0"
State = Intent.State


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, only the databases remain."""


def kill_at(monkeypatch, target, name: str, when: str) -> None:
    """The first call of `target.name` never begins, or never returns."""
    original = getattr(target, name)

    def dying(*args, **kwargs):
        monkeypatch.setattr(target, name, original)
        if when == "after":
            original(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(target, name, dying)


def withdrawals_of(intent: Intent) -> int:
    return FinalEvent.objects.filter(name="Withdrawn", args__intentId=intent.args[0]).count()


def operator_nonce(net) -> int:
    return net.client.nonce(keystore.load("operator").address, net.client.head())


def assert_paid_once(net, intent: Intent) -> None:
    intent.refresh_from_db()
    assert intent.state == State.FINAL, intent.error
    assert withdrawals_of(intent) == 1
    assert net.balance(BOB) == AIT
    assert operator_nonce(net) == 1


@pytest.fixture
def funded(net):
    net.mint(net.settlement.address, 50 * AIT)
    return net


def effect_of(subscribe, kind: str) -> None:
    """A subscriber whose effect is a row, so that a rolled back effect does not count."""
    subscribe(
        f"chain.intent:{kind}",
        lambda intent: Deployment.objects.create(
            network="effects",
            name=f"{intent.state}-{Deployment.objects.count()}",
            address=BOB,
            tx_hash=intent.tx_hash or "0x" + "00" * 32,
        ),
    )


def effects() -> list[str]:
    return [name.split("-")[0] for name in Deployment.objects.filter(network="effects").values_list("name", flat=True)]


# -- the way of one intent -----------------------------------------------------------------------
def test_an_intent_becomes_final_with_its_facts(net, chain, subscribe):
    effect_of(subscribe, "test.anchor")
    intent = net.anchor()
    net.settle()

    intent.refresh_from_db()
    receipt = chain.receipt(intent.tx_hash)
    assert intent.state == State.FINAL
    assert (intent.block_number, intent.gas_used) == (receipt.block_number, receipt.gas_used)
    assert intent.sender == keystore.load("operator").address
    assert effects() == ["final"]
    assert net.settlement.read("anchored", intent.args[0]).hex() == intent.args[1][2:]


def test_a_request_is_idempotent_and_its_payload_fixed(net):
    first = net.anchor(business_key="one", args=["0x" + "01" * 32, "0x" + "02" * 32, "1", "0x" + "00" * 32])
    again = net.anchor(business_key="one", args=first.args)
    assert again.pk == first.pk
    with pytest.raises(Conflict, match=r"chain\.intent_differs"):
        net.anchor(business_key="one", args=["0x" + "01" * 32, "0x" + "03" * 32, "1", "0x" + "00" * 32])
    assert Intent.objects.get().args == first.args


@pytest.mark.usefixtures("committed_db")
def test_a_request_needs_the_transaction_of_its_business_rows():
    with pytest.raises(transaction.TransactionManagementError):
        request_intent("k", "b", "pause", [])


def test_many_intents_take_one_nonce_each(net):
    intents = [net.anchor() for _ in range(20)]
    net.settle()
    nonces = sorted(Intent.objects.values_list("nonce", flat=True))
    assert nonces == list(range(20))
    assert {i.state for i in Intent.objects.all()} == {State.FINAL}
    assert len({i.tx_hash for i in Intent.objects.all()}) == len(intents)


CRASHES = [
    (worker_module, "estimate", "before"),
    (worker_module, "sign_and_store", "before"),
    (worker_module, "sign_and_store", "after"),
    (Client, "send_raw", "before"),
    (Client, "send_raw", "after"),
    (Worker, "_broadcast", "after"),
    (Worker, "_follow_receipt", "before"),
    (Worker, "_follow_receipt", "after"),
    (Worker, "_finish", "before"),
    (Worker, "_finish", "after"),
    (worker_module.indexer, "project", "before"),
    (worker_module.indexer, "project", "after"),
    (worker_module.indexer, "dispatch", "after"),
]


@pytest.mark.parametrize("lose_chain_db", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize(("target", "name", "when"), CRASHES, ids=lambda v: getattr(v, "__name__", v))
def test_killed_at_any_step_it_pays_once(funded, monkeypatch, subscribe, target, name, when, lose_chain_db):
    effect_of(subscribe, "test.withdraw")
    intent = funded.withdrawal(BOB)
    kill_at(monkeypatch, target, name, when)
    with pytest.raises(Killed):
        funded.settle()
    if lose_chain_db:
        funded.lose_chain_database()

    funded.settle(funded.worker())

    assert_paid_once(funded, intent)
    assert effects() == ["final"]


def test_killed_inside_the_final_transaction_the_subscriber_runs_again_once(funded, subscribe):
    runs = []

    def handler(intent):
        Deployment.objects.create(network="effects", name="final-0", address=BOB, tx_hash=intent.tx_hash)
        runs.append(intent.pk)
        if len(runs) == 1:
            raise Killed

    subscribe("chain.intent:test.withdraw", handler)
    intent = funded.withdrawal(BOB)
    with pytest.raises(Killed):
        funded.settle()
    intent.refresh_from_db()
    assert intent.state == State.MINED
    assert effects() == []

    funded.settle(funded.worker())
    assert_paid_once(funded, intent)
    assert effects() == ["final"]


def test_a_subscriber_that_fails_keeps_its_intent_and_stops_no_other(net, subscribe):
    def handler(intent):
        Deployment.objects.create(
            network="effects", name=f"final-{intent.pk.hex[-12:]}", address=BOB, tx_hash=intent.tx_hash
        )
        if intent.pk == broken.pk and not repaired:
            raise ValueError("no such batch")

    repaired = []
    subscribe("chain.intent:test.anchor", handler)
    broken, good = net.anchor(), net.anchor()
    worker = tick_until(net, good, State.FINAL)
    worker.tick()
    broken.refresh_from_db()
    assert (broken.state, good.state) == (State.MINED, State.FINAL)
    assert "no such batch" in broken.error
    assert effects() == ["final"]

    repaired.append(True)
    net.settle(worker)
    broken.refresh_from_db()
    assert (broken.state, broken.error) == (State.FINAL, "")
    assert effects() == ["final", "final"]


# -- lost things ---------------------------------------------------------------------------------
def tick_until(net, intent: Intent, state: str) -> Worker:
    worker = net.worker()
    for _ in range(50):
        worker.tick()
        intent.refresh_from_db()
        if intent.state == state:
            return worker
    raise AssertionError(f"never {state}")


@pytest.fixture
def slow_blocks(funded, monkeypatch, settings):
    """Transactions wait in the pool until `funded.mine()`."""
    funded.settle()
    settings.CHAIN_EMBEDDED = False
    funded.client.call("evm_setAutomine", False)
    return funded


def drain(net, worker: Worker) -> None:
    for _ in range(30):
        net.mine()
        if not worker.tick():
            return
    raise AssertionError("something never became final")


def test_the_chain_database_lost_after_a_broadcast_the_pool_still_has_it(slow_blocks):
    intent = slow_blocks.withdrawal(BOB)
    tick_until(slow_blocks, intent, State.BROADCAST)
    first = intent.tx_hash

    slow_blocks.lose_chain_database()
    drain(slow_blocks, slow_blocks.worker())

    assert_paid_once(slow_blocks, intent)
    assert intent.tx_hash == first


def test_the_chain_database_and_the_pool_lost_it_is_signed_again_with_its_nonce(slow_blocks):
    intent = slow_blocks.withdrawal(BOB)
    tick_until(slow_blocks, intent, State.BROADCAST)
    nonce = intent.nonce

    slow_blocks.client.call("anvil_dropTransaction", intent.tx_hash)
    slow_blocks.lose_chain_database()
    drain(slow_blocks, slow_blocks.worker())

    assert_paid_once(slow_blocks, intent)
    assert intent.nonce == nonce


def test_a_dropped_transaction_is_sent_again_from_its_stored_bytes(slow_blocks):
    intent = slow_blocks.withdrawal(BOB)
    worker = tick_until(slow_blocks, intent, State.BROADCAST)
    slow_blocks.client.call("anvil_dropTransaction", intent.tx_hash)

    drain(slow_blocks, worker)

    assert_paid_once(slow_blocks, intent)
    assert SignedTransaction.objects.filter(intent_id=intent.pk).count() == 1


def test_a_stuck_transaction_is_replaced_at_a_higher_fee(slow_blocks, monkeypatch):
    intent = slow_blocks.withdrawal(BOB)
    worker = tick_until(slow_blocks, intent, State.BROADCAST)
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.0)
    worker.tick()
    worker.tick()
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 60.0)
    attempts = list(SignedTransaction.objects.filter(intent_id=intent.pk).order_by("attempt"))
    assert len(attempts) >= 2
    assert all(b.max_fee > 1.1 * a.max_fee for a, b in pairwise(attempts))
    assert {a.nonce for a in attempts} == {intent.nonce}

    drain(slow_blocks, worker)

    assert_paid_once(slow_blocks, intent)
    assert intent.tx_hash == attempts[-1].tx_hash


def stuck(net, worker: Worker, monkeypatch, rounds: int) -> None:
    """Rounds in which every transaction has waited too long, and is in the pool again after each."""
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 0.0)
    for _ in range(rounds):
        worker.tick()
    monkeypatch.setattr(worker_module, "STUCK_SECONDS", 60.0)


def attempts(intent: Intent) -> list[SignedTransaction]:
    return list(SignedTransaction.objects.filter(intent_id=intent.pk).order_by("attempt"))


def test_only_the_lowest_open_nonce_is_replaced_when_all_wait(slow_blocks, monkeypatch):
    intents = [slow_blocks.withdrawal(BOB) for _ in range(4)]
    worker = tick_until(slow_blocks, intents[-1], State.BROADCAST)
    stuck(slow_blocks, worker, monkeypatch, 6)
    assert [len(attempts(intent)) for intent in intents] == [4, 1, 1, 1]
    drain(slow_blocks, worker)
    assert [withdrawals_of(intent) for intent in intents] == [1] * 4
    assert operator_nonce(slow_blocks) == 4


def test_a_replacement_bids_a_little_more_and_never_beyond_the_limit(slow_blocks, monkeypatch, settings):
    intent = slow_blocks.withdrawal(BOB)
    worker = tick_until(slow_blocks, intent, State.BROADCAST)
    settings.CHAIN_MAX_FEE = 3 * attempts(intent)[0].max_fee
    stuck(slow_blocks, worker, monkeypatch, 20)
    fees = [attempt.max_fee for attempt in attempts(intent)]
    assert len(fees) == 5  # 1.25 ** 5 > 3
    assert all(1.1 * a < b < 1.3 * a for a, b in pairwise(fees))
    intent.refresh_from_db()
    assert "CHAIN_MAX_FEE" in intent.error
    pool = slow_blocks.client.call("eth_getTransactionByHash", intent.tx_hash)
    assert int(pool["maxPriorityFeePerGas"], 16) < 3 * 10**9

    settings.CHAIN_MAX_FEE = 10**12
    drain(slow_blocks, worker)
    assert_paid_once(slow_blocks, intent)


def test_a_fee_above_the_limit_waits_without_taking_a_nonce(funded, settings):
    funded.settle()
    settings.CHAIN_MAX_FEE = 1
    intent = funded.withdrawal(BOB)
    worker = funded.worker()
    worker.tick()
    intent.refresh_from_db()
    assert (intent.state, intent.nonce) == (State.REQUESTED, None)
    assert "CHAIN_MAX_FEE" in intent.error
    settings.CHAIN_MAX_FEE = 10**12
    funded.settle(worker)
    assert_paid_once(funded, intent)


def test_a_node_that_hides_its_head_sets_no_fee(net, chain):
    class Headless(Client):
        def headers(self, numbers):
            return [None for _ in numbers]

    with pytest.raises(Unavailable, match=r"chain\.unknown_block"):
        fees(Headless(chain.url, chain.chain_id), previous=None)


def test_a_queue_whose_transactions_were_all_dropped_and_reorganised_is_mined_once(slow_blocks):
    """Dropped from the pool in any order, then mined, then reorganised away: the nonces keep their owners."""
    intents = [slow_blocks.withdrawal(BOB) for _ in range(5)]
    worker = tick_until(slow_blocks, intents[-1], State.BROADCAST)
    for intent in (intents[3], intents[0], intents[2]):
        intent.refresh_from_db()
        slow_blocks.client.call("anvil_dropTransaction", intent.tx_hash)
    snapshot = slow_blocks.client.call("evm_snapshot")
    for _ in range(2):
        worker.tick()
        slow_blocks.mine()
    worker.tick()
    assert Intent.objects.filter(state=State.MINED).count() == 5
    slow_blocks.client.call("evm_revert", snapshot)
    slow_blocks.mine()
    drain(slow_blocks, worker)

    assert [withdrawals_of(intent) for intent in intents] == [1] * 5
    assert sorted(Intent.objects.values_list("nonce", flat=True)) == list(range(5))
    assert operator_nonce(slow_blocks) == 5
    assert slow_blocks.balance(BOB) == 5 * AIT


def test_another_chain_behind_the_same_address_halts_nothing(net, chain):
    worker = net.settle()

    class Elsewhere(Client):
        other = False

        def headers(self, numbers):
            found = super().headers(numbers)
            return [replace(header, hash="0x" + "ab" * 32) for header in found] if self.other else found

        def _transport(self, send, *args):
            answer = super()._transport(send, *args)
            return answer | {"result": "0x1"} if self.other and args[0] == "eth_chainId" else answer

    lost = Elsewhere(chain.url, chain.chain_id)
    lost.head()
    lost.other = True
    worker.client = lost
    with pytest.raises(Unavailable, match=r"chain\.wrong_chain"):
        worker.tick()
    assert net.status().halted == ""
    lost.other = False
    assert worker.tick() is False


def test_a_replaced_transaction_whose_bytes_are_lost_is_recognised_by_its_effect(slow_blocks):
    """The chain mined bytes that neither database remembers; the contract's used id tells."""
    intent = slow_blocks.withdrawal(BOB)
    tick_until(slow_blocks, intent, State.BROADCAST)
    Intent.objects.filter(pk=intent.pk).update(tx_hash="0x" + "77" * 32)
    slow_blocks.lose_chain_database()

    for _ in range(6):  # mined and final before a worker looks again
        slow_blocks.mine()
    drain(slow_blocks, slow_blocks.worker())

    assert_paid_once(slow_blocks, intent)
    assert slow_blocks.client.receipt(intent.tx_hash).succeeded


def test_a_foreign_transaction_on_the_nonce_fails_the_intent_only_when_final(slow_blocks, subscribe):
    effect_of(subscribe, "test.withdraw")
    intent = slow_blocks.withdrawal(BOB)
    worker = tick_until(slow_blocks, intent, State.BROADCAST)
    slow_blocks.client.call("anvil_dropTransaction", intent.tx_hash)
    thief = Actor(slow_blocks.client)
    thief.signer = keystore.load("operator")
    fields = {
        "type": 2,
        "chainId": 31337,
        "nonce": intent.nonce,
        "gas": 21_000,
        "maxFeePerGas": 10**12,
        "maxPriorityFeePerGas": 10**11,
        "value": 0,
        "to": BOB,
        "data": "0x",
    }
    slow_blocks.client.send_raw(thief.signer.sign_transaction(fields)[0])
    slow_blocks.mine()
    worker.tick()
    intent.refresh_from_db()
    assert intent.state == State.BROADCAST
    assert effects() == []

    drain(slow_blocks, worker)

    intent.refresh_from_db()
    assert intent.state == State.FAILED
    assert slow_blocks.settlement.read("used", intent.args[0]) is False
    assert slow_blocks.balance(BOB) == 0
    assert effects() == ["failed"]


def test_a_reorganised_transaction_is_mined_again(funded, chain):
    intent = funded.withdrawal(BOB)
    snapshot = chain.call("evm_snapshot")
    worker = tick_until(funded, intent, State.MINED)
    chain.call("evm_revert", snapshot)
    funded.mine()
    funded.settle(worker)
    assert_paid_once(funded, intent)


# -- refusals ------------------------------------------------------------------------------------
def test_what_may_be_cured_waits_and_what_may_not_fails_without_a_nonce(net, subscribe):
    net.settle()
    effect_of(subscribe, "test.withdraw")
    unfunded = net.withdrawal(BOB)
    nothing = net.withdrawal(BOB, 0)
    worker = net.worker()
    worker.tick()

    unfunded.refresh_from_db()
    nothing.refresh_from_db()
    assert (unfunded.state, nothing.state) == (State.REQUESTED, State.FAILED)
    assert "ReserveTooLow" in unfunded.error
    assert nothing.nonce is None
    assert effects() == ["failed"]

    net.mint(net.settlement.address, AIT)
    net.settle(worker)
    assert_paid_once(net, unfunded)


def test_a_transaction_reverted_on_the_chain_fails_when_final(funded, subscribe, monkeypatch):
    monkeypatch.setattr(worker_module, "estimate", lambda *args, **kwargs: 200_000)
    effect_of(subscribe, "test.withdraw")
    intents = [funded.withdrawal(BOB, 30 * AIT) for _ in range(2)]  # each fits, both do not
    funded.client.call("evm_setAutomine", False)
    worker = funded.worker()
    worker.tick()
    funded.client.call("evm_setAutomine", True)
    funded.settle(worker)

    states = sorted(Intent.objects.filter(pk__in=[i.pk for i in intents]).values_list("state", flat=True))
    assert states == [State.FAILED, State.FINAL]
    assert sorted(effects()) == ["failed", "final"]
    assert funded.balance(BOB) == 30 * AIT


def test_those_that_wait_hold_up_nobody_however_many_they_are(net, monkeypatch):
    monkeypatch.setattr(worker_module, "IMPORT_LIMIT", 2)
    waiting = [net.withdrawal(BOB) for _ in range(3)]
    worker = net.worker()
    worker.tick()
    anchor = net.anchor()
    net.settle(worker)
    anchor.refresh_from_db()
    assert anchor.state == State.FINAL
    net.mint(net.settlement.address, 3 * AIT)
    net.settle(worker)
    assert [withdrawals_of(intent) for intent in waiting] == [1, 1, 1]


def test_a_paused_contract_delays_and_loses_nothing(funded):
    funded.settlement.send(funded.minter, "pause")
    intent = funded.withdrawal(BOB)
    worker = funded.worker()
    for _ in range(3):
        worker.tick()
    intent.refresh_from_db()
    assert intent.state == State.REQUESTED
    assert "EnforcedPause" in intent.error
    funded.settlement.send(funded.minter, "unpause")
    funded.settle(worker)
    assert_paid_once(funded, intent)


def test_an_intent_whose_effect_is_there_already_is_final(funded, chain):
    """PostgreSQL restored from a backup asks again for what was paid."""
    intent = funded.withdrawal(BOB)
    funded.settle()
    intent.refresh_from_db()
    paid_by = intent.tx_hash
    Intent.objects.filter(pk=intent.pk).update(
        state=State.REQUESTED, tx_hash=None, nonce=None, sender=None, block_number=None
    )
    SignedTransaction.objects.filter(intent_id=intent.pk).delete()

    funded.settle(funded.worker())

    assert_paid_once(funded, intent)
    assert intent.tx_hash == paid_by


# -- two workers ---------------------------------------------------------------------------------
def test_a_superseded_worker_writes_and_sends_nothing_more(funded):
    old = funded.worker()
    new = funded.worker()
    intent = funded.withdrawal(BOB)
    with pytest.raises(Superseded):
        old.tick()
    assert SignedTransaction.objects.filter(intent_id=intent.pk).count() == 0
    funded.settle(new)
    assert_paid_once(funded, intent)


def test_a_worker_paused_past_its_fence_cannot_take_a_second_nonce(funded, chain):
    intent = funded.withdrawal(BOB)
    paused_after_check = {
        "to": funded.settlement.address,
        "data": "0x",
        "gas": 10**5,
        "epoch": 1,
        "intent_id": intent.pk,
    }
    funded.settle()
    before = SignedTransaction.objects.count()
    with pytest.raises(IntegrityError), transaction.atomic(using="chain"):
        sign_and_store(chain, keystore.load("operator"), **paused_after_check)
    assert SignedTransaction.objects.count() == before
    assert_paid_once(funded, intent)


def test_a_network_never_changes_its_chain(net):
    net.worker()
    NetworkStatus.objects.update(chain_id=1)
    with pytest.raises(Unavailable, match=r"chain\.wrong_chain"):
        net.worker()


# -- faults --------------------------------------------------------------------------------------
class Faulty(Client):
    """Loses a fifth of all requests or replies, and forgets receipts and transactions at times."""

    rng = random.Random(7)
    calls = 0

    def _transport(self, send, *args):
        Faulty.calls += 1
        dice = self.rng.random()
        if dice < 0.1:
            raise Unavailable("chain.unavailable", "the request was lost")
        answer = super()._transport(send, *args)
        if dice < 0.2:
            raise Unavailable("chain.unavailable", "the reply was lost")
        return answer

    def head(self):
        return super().head() - (self.rng.random() < 0.1)

    def receipts(self, tx_hashes):
        return [r if self.rng.random() > 0.1 else None for r in super().receipts(tx_hashes)]

    def knows(self, tx_hash):
        return super().knows(tx_hash) and self.rng.random() > 0.1


def test_a_faulty_node_delays_everything_and_doubles_nothing(funded):
    intents = [funded.withdrawal(BOB, AIT) for _ in range(30)]
    worker = funded.worker(Faulty(funded.client.url, funded.client.chain_id))
    for _ in range(3000):
        try:
            if not worker.tick():
                break
        except Unavailable:
            continue
    funded.settle(funded.worker())

    assert Faulty.calls > 500
    assert set(Intent.objects.values_list("state", flat=True)) == {State.FINAL}
    assert [withdrawals_of(intent) for intent in intents] == [1] * 30
    assert funded.balance(BOB) == 30 * AIT


def test_after_a_restart_of_the_embedded_node_blocks_are_mined_until_the_final_state_can_be_read(
    db_of_chain, settings, tmp_path
):
    """It keeps its blocks, but of all states only the last one."""
    node = Anvil(TEST_CHAIN_ID, tmp_path / "anvil")
    node.start()
    try:
        settings.CHAIN_NETWORK, settings.CHAIN_EMBEDDED = "ait-devnet", True
        settings.CHAIN_FINALITY_DEPTH = DEPTH
        mine(Client(node.url, TEST_CHAIN_ID), 2 * DEPTH)
        node.stop()
        node.start()
        client = Client(node.url, TEST_CHAIN_ID)
        worker = Worker(client, block_seconds=0)
        with pytest.raises(Unavailable):
            client.balance(NOBODY, DEPTH)

        rounds = 0
        while worker.tick():
            rounds += 1

        assert rounds == DEPTH
        assert client.head() == 3 * DEPTH
        assert client.balance(NOBODY, client.head() - DEPTH) == 0
    finally:
        node.stop()
