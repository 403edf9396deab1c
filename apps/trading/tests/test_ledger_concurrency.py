"""Sixteen callers at once, each on its own connection and with real commits: exact counts, nothing else."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from django.db import connections, transaction

from aitbc.core import db
from aitbc.core.ids import uuid7
from apps.trading.models import Transfer
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import account, balance, hold, opened, outside, post, transfer, user, void

WORKERS = 16
pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
def sound(committed_db):
    yield
    assert audit() == []


def test_a_hot_account_loses_no_update(in_threads):
    hot = account()
    sources = [account(30) for _ in range(WORKERS)]

    def pay(index):
        return Counter(code for _ in range(30) for code in ledger.apply([transfer(sources[index], hot, 1)]))

    assert sum(in_threads(pay, WORKERS), Counter()) == {"ok": 30 * WORKERS}
    assert balance(hot) == (30 * WORKERS, 0)
    assert {balance(source) for source in sources} == {(0, 0)}


def test_opposite_directions_do_not_block_each_other_for_ever(in_threads):
    left, right = account(1000), account(1000)

    def pay(index):
        pair = (left, right) if index % 2 else (right, left)
        return Counter(code for _ in range(25) for code in ledger.apply([transfer(*pair, 1)]))

    assert sum(in_threads(pay, WORKERS), Counter()) == {"ok": 25 * WORKERS}
    assert (balance(left), balance(right)) == ((1000, 0), (1000, 0))


def test_batches_over_the_same_accounts_and_holds_in_any_order_all_go_through(in_threads):
    accounts = [account(10_000) for _ in range(6)]
    holds = [opened(accounts[i % 6], 10) for i in range(WORKERS * 4)]

    def shuffle(index):
        random = Random(index)
        batch = [transfer(*random.sample(accounts, 2), 1) for _ in range(20)]
        batch += [void(held) for held in holds[index * 4 : index * 4 + 4]]
        random.shuffle(batch)
        return Counter(ledger.apply(batch))

    assert sum(in_threads(shuffle, WORKERS), Counter()) == {"ok": 24 * WORKERS}
    assert sum(balance(one)[0] for one in accounts) == 60_000
    assert {balance(one)[1] for one in accounts} == {0}


@pytest.mark.parametrize("action", ["transfer", "hold"])
def test_exactly_one_gets_the_last_unit(in_threads, action):
    poor, bob = account(1), account()
    items = [transfer(poor, bob, 1) if action == "transfer" else hold(poor, 1) for _ in range(WORKERS)]

    codes = Counter(in_threads(lambda i: ledger.apply([items[i]])[0], WORKERS))

    assert codes == {"ok": 1, "insufficient_funds": WORKERS - 1}
    assert balance(poor) == ((0, 0) if action == "transfer" else (1, 1))


def test_a_hold_is_resolved_by_exactly_one(in_threads):
    alice, bob = account(10), account()
    held = opened(alice, 10)
    items = [post(held, bob, 10) if i % 2 else void(held) for i in range(WORKERS)]

    codes = in_threads(lambda i: ledger.apply([items[i]])[0], WORKERS)

    (winner,) = [item for item, code in zip(items, codes, strict=True) if code == "ok"]
    word = "posted" if winner.action == "post" else "voided"
    assert Counter(codes) == {"ok": 1, f"hold_already_{word}": WORKERS - 1}
    assert balance(bob) == ((10, 0) if word == "posted" else (0, 0))
    assert balance(alice) == ((0, 0) if word == "posted" else (10, 0))


def test_each_request_sent_one_to_five_times_at_once_counts_once(in_threads):
    random = Random(1)
    alice, bob = account(1000), account()
    holds = [opened(alice, 2) for _ in range(10)]
    requests = [transfer(alice, bob, 1) for _ in range(30)] + [hold(alice, 1) for _ in range(10)]
    requests += [post(held, bob, 2) for held in holds[:5]] + [void(held) for held in holds[5:]]
    sent = [item for item in requests for _ in range(random.randint(1, 5))]
    random.shuffle(sent)

    codes = Counter()
    for found in in_threads(
        lambda i: Counter(code for item in sent[i::WORKERS] for code in ledger.apply([item])), WORKERS
    ):
        codes += found

    assert codes == {"ok": len(requests), "exists": len(sent) - len(requests)}
    assert (balance(alice), balance(bob)) == ((960, 10), (40, 0))
    assert Transfer.objects.filter(id__in=[item.id for item in requests]).count() == len(requests)


@pytest.fixture
def slow_inserts(committed_db):
    """Each new transfer takes a moment, so that two batches surely meet half way."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            """CREATE FUNCTION test_dawdle() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END';
               CREATE TRIGGER test_dawdle BEFORE INSERT ON trading_transfer
                 FOR EACH ROW EXECUTE FUNCTION test_dawdle()"""
        )
        yield
        cursor.execute("DROP TRIGGER test_dawdle ON trading_transfer; DROP FUNCTION test_dawdle()")


def test_two_batches_of_the_same_new_ids_do_not_wait_for_each_other(in_threads, request):
    pairs = [(account(5), account()) for _ in range(2)]
    ids = [uuid7() for _ in range(3)]
    request.getfixturevalue("slow_inserts")

    def send(index):
        order = ids if index else reversed(ids)
        return Counter(ledger.apply([replace(transfer(*pairs[index], 1), id=one) for one in order]))

    codes = sum(in_threads(send, 2), Counter())
    assert codes == {"ok": 3, "exists_with_different_debit": 3}
    assert sum(balance(target)[0] for _, target in pairs) == 3


def test_one_new_id_with_different_accounts_is_told_apart(in_threads):
    """Nothing they lock is shared: the unique key decides, and the loser is told as if he came later."""
    pairs = [(account(5), account()) for _ in range(WORKERS)]
    for _ in range(5):
        rival = uuid7()
        codes = Counter(
            in_threads(lambda i, id=rival: ledger.apply([replace(transfer(*pairs[i], 1), id=id)])[0], WORKERS)
        )
        assert codes == {"ok": 1, "exists_with_different_debit": WORKERS - 1}
    assert sum(balance(target)[0] for _, target in pairs) == 5


def test_losing_an_id_leaves_the_callers_transaction_usable(in_threads):
    pairs = [(account(5), account()) for _ in range(WORKERS)]
    rival = uuid7()

    def send(index):
        with transaction.atomic():
            (code,) = ledger.apply([replace(transfer(*pairs[index], 1), id=rival)])
            return code, ledger.apply([transfer(*pairs[index], 1)])[0]

    codes = Counter(in_threads(send, WORKERS))
    assert codes == {("ok", "ok"): 1, ("exists_with_different_debit", "ok"): WORKERS - 1}


def test_an_account_asked_for_by_all_is_made_once(in_threads):
    owner = user("alice").pk
    found = in_threads(lambda _: ledger.account_id(owner=owner, kind="available"), WORKERS)
    assert len(set(found)) == 1
    assert db.value("SELECT count(*) FROM trading_account WHERE owner_id = %s", (owner,)) == 1


def test_a_rolled_back_caller_leaves_nothing(in_threads):
    alice, bob = account(WORKERS), account()

    def pay(index):
        with transaction.atomic():
            codes = ledger.apply([transfer(alice, bob, 1)])
            if index % 2:
                transaction.set_rollback(True)
        return codes

    assert in_threads(pay, WORKERS) == [["ok"]] * WORKERS
    assert (balance(alice), balance(bob)) == ((WORKERS // 2, 0), (WORKERS // 2, 0))


def test_readers_never_see_a_transfer_by_half(in_threads):
    """Eight move money to and fro, eight add it all up: the sum is the same in every snapshot."""
    left, right = account(100), account(100)
    sums = """SELECT sum(posted), (SELECT sum(amount) FROM trading_entry WHERE account_id IN (%s, %s))
                FROM trading_account WHERE id IN (%s, %s)"""

    def work(index):
        if index % 2:
            return {db.row(sums, (left, right, left, right)) for _ in range(40)}
        return {ledger.apply([transfer(left, right, 1), transfer(right, left, 1)])[0] for _ in range(20)}

    seen = in_threads(work, WORKERS)
    assert set().union(*seen[1::2]) == {(200, 200)}
    assert set().union(*seen[::2]) == {"ok"}
    assert balance(outside())[0] == -200


@pytest.mark.parametrize("each", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_sixteen_workers_on_one_hot_and_a_hundred_other_accounts(in_threads, each):
    """Both ways over the hot one, singles and small batches: every transfer succeeds, none waits for ever."""
    hot, *others = (account(1_000_000) for _ in range(101))
    delta: Counter[int] = Counter()
    plans = []
    for index in range(WORKERS):
        random = Random(index)
        plan = []
        while len(plan) < each:
            pair = random.sample(others, 2)
            if random.random() < 0.5:
                pair[random.randrange(2)] = hot
            plan.append(transfer(*pair, random.randint(1, 5)))
            delta[pair[0]] -= plan[-1].amount
            delta[pair[1]] += plan[-1].amount
        plans.append(plan)

    def pay(index):
        random, plan, codes = Random(index), list(plans[index]), Counter()
        while plan:
            size = random.choice((1, 1, 1, 7))
            codes.update(ledger.apply(plan[:size]))
            del plan[:size]
        return codes

    assert sum(in_threads(pay, WORKERS), Counter()) == {"ok": each * WORKERS}
    assert {one: balance(one) for one in (hot, *others)} == {one: (1_000_000 + delta[one], 0) for one in (hot, *others)}


def test_fifty_tasks_spend_the_same_last_unit_once(in_threads):
    poor, bob = account(1), account()
    codes = Counter(in_threads(lambda _: ledger.apply([transfer(poor, bob, 1)])[0], 50))
    assert (codes, balance(bob)) == ({"ok": 1, "insufficient_funds": 49}, (1, 0))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_requests_each_sent_one_to_five_times_at_once_count_once(in_threads):
    random = Random(3)
    alice, bob = account(100_000), account()
    requests = [
        transfer(alice, bob, 1) if random.random() < 0.7 else hold(alice, 1, timeout=3600) for _ in range(10_000)
    ]
    sent = [(n, copy) for n in range(len(requests)) for copy in range(random.randint(1, 5))]
    lanes: list[list[int]] = [[] for _ in range(WORKERS)]
    for n, copy in sent:  # the copies of a request go out side by side
        lanes[(n + copy * 3) % WORKERS].append(n)

    def send(index):
        return Counter(code for n in lanes[index] for code in ledger.apply([requests[n]]))

    codes = sum(in_threads(send, WORKERS), Counter())
    paid = sum(item.action == "transfer" for item in requests)
    assert codes == {"ok": 10_000, "exists": len(sent) - 10_000}
    assert (balance(bob), balance(alice)) == ((paid, 0), (100_000 - paid, 10_000 - paid))
