"""Rivals for the last device and for the end of an order: one wins, and the books agree."""

import random
import time
from collections import Counter
from uuid import UUID

import pytest
from orjson import loads

from aitbc.core import db as database
from aitbc.core.errors import Conflict
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.marketplace.models import Offer, Order, Quote
from apps.marketplace.services import orders
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.market import MILLI, age, bid, money, quote, run, running, seen, terms
from apps.trading.services.escrow import call


@pytest.fixture(autouse=True)
def _sound(committed_db):
    market.learn_to_age()
    yield
    market.assert_sound()


def people(*names):
    found = [cast.person(name) for name in names]
    for one in found:
        cast.fund(one.id, AIT)
    return found


def listed():
    mike = cast.seller("mike", device=card())
    return mike, read(mike.post(OFFERS, {"price": price("0.001")}), 201)


def outcome(function, *args, **names):
    try:
        return function(*args, **names)
    except Conflict as error:
        return error.code


def test_of_eight_clients_one_gets_the_last_device(in_threads):
    _, offer = listed()
    clients = people(*"abcdefgh")
    ask = {"seconds": 10, "type": "on_demand", "failover": False, "wants": {}, "offer": offer["id"]}

    found = in_threads(lambda n: outcome(orders.quote, client=clients[n].id, ask=ask), 8)
    assert sorted(answer == "quote.no_match" for answer in found) == [False] + [True] * 7
    assert Quote.objects.count() == 1


def test_of_two_accepts_one_wins(in_threads):
    _, offer = listed()
    (alice,) = people("alice")
    asked = quote(alice, offer_id=offer["id"])

    found = in_threads(lambda n: outcome(orders.accept, client=alice.id, quote=asked["id"]), 4)
    assert sorted(answer == "quote.accepted" for answer in found) == [False, True, True, True]
    assert (Order.objects.count(), money(alice.id)) == (1, (AIT, 100 * MILLI))


def test_of_two_evictors_one_wins(in_threads):
    mike, offer = listed()
    terms(offer, spot_price=MILLI // 2)
    alice, *rivals = people("alice", "bob", "carol")
    victim = running(alice, mike, offer_id=offer["id"], seconds=1000, **bid("0.0006"))
    asked = [quote(rival, offer_id=offer["id"]) for rival in rivals]

    found = in_threads(lambda n: outcome(orders.accept, client=rivals[n].id, quote=asked[n]["id"]), 2)
    assert sorted(answer == "quote.taken" for answer in found) == [False, True]
    winner = Order.objects.get(state="accepted")
    assert str(Order.objects.get(pk=victim["id"]).evicted_by) == str(winner.pk)


@pytest.mark.parametrize("ahead", [-2, 0, 2])
def test_a_quote_is_accepted_or_expires_never_both(in_threads, ahead):
    _, offer = listed()
    (alice,) = people("alice")
    asked = quote(alice, offer_id=offer["id"])
    database.rows("UPDATE marketplace_quote SET expires_at = clock_timestamp() + interval '100 ms'")

    def rival(n):
        time.sleep(0.1 + (ahead / 1000 if n else 0))
        return outcome(orders.accept, client=alice.id, quote=asked["id"]) if n else orders.run_due()

    in_threads(rival, 2)
    run()
    quoted, ordered = Quote.objects.get().state, Order.objects.count()
    assert (quoted, ordered) in {("accepted", 1), ("expired", 0)}
    assert money(alice.id) == (AIT, 100 * MILLI * ordered)


@pytest.mark.parametrize("ahead", [-2, 0, 2])
def test_an_order_is_canceled_or_completed_never_both(in_threads, ahead):
    mike, offer = listed()
    (alice,) = people("alice")
    placed = running(alice, mike, offer_id=offer["id"])
    age(100 - 0.3)
    left = float(database.value("SELECT extract(epoch FROM ends_at - clock_timestamp()) FROM marketplace_order"))

    def rival(n):
        time.sleep(max(0, left + (ahead / 1000 if n else 0)))
        return outcome(orders.cancel, user=alice.id, order=placed["id"]) if n else orders.run_due()

    in_threads(rival, 2)
    time.sleep(0.01)
    run()
    ended = Order.objects.get()
    assert ended.state in ("canceled", "completed")
    assert ended.paid + ended.fee + ended.refunded == ended.total
    assert money(alice.id)[0] + money(mike.id)[0] + ended.fee == AIT
    assert seen(alice, placed)["state"] == ended.state


def test_timers_share_the_work_and_none_is_done_twice(in_threads):
    mike, offer = listed()
    clients = people("alice", "bob", "carol", "dave")
    asked = []
    for client in clients:
        asked.append(quote(client, offer_id=offer["id"]))
        age(61, asked[-1]["id"])
        database.rows("DELETE FROM gpu_occupancy")

    found = in_threads(lambda n: orders.run_due(), 4)
    assert sum(done.get("quote_expired", 0) for done in found) == 4
    assert [money(client.id) for client in clients] == [(AIT, 0)] * 4
    assert mike.id


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everybody_at_once_neither_deadlocks_nor_loses_a_unit(in_threads):
    """Six clients and a timer at four cards for twenty seconds; seeded, though threads are not."""
    sellers = [cast.seller(name, device=card()) for name in ("mike", "nora", "olga", "paul")]
    clients = people(*"abcdef")
    for seller in sellers:
        cast.fund(seller.id, AIT)
        read(seller.post(OFFERS, {"price": price("0.001"), "sla": {"availability": 0.99}}), 201)
        market.bond(seller, AIT // 2)
    Offer.objects.update(spot_price=MILLI // 2)
    market.set_parameters(spot_notice_seconds=1, spot_window_seconds=1, quote_seconds=1)
    keys = {seller.miner_id: seller.principal.key_id for seller in sellers}
    until = time.monotonic() + 20

    def client(n):
        die, me, done = random.Random(n), clients[n], 0
        while time.monotonic() < until:
            bidding = {"type": "spot", "bid": str(die.randint(5, 12) * MILLI // 10)}
            ask = {"seconds": die.randint(1, 5), "wants": {}, "failover": die.random() < 0.5}
            ask |= bidding if die.random() < 0.7 else {"type": "on_demand"}
            asked = outcome(orders.quote, client=me.id, ask=ask)
            if asked.startswith("{") and (placed := outcome(orders.accept, client=me.id, quote=loads(asked)["id"])):
                if placed.startswith("{") and die.random() < 0.9:
                    found = loads(placed)
                    outcome(call, "order_start", keys[UUID(found["miner_id"])], found["id"])
                    if die.random() < 0.3:
                        outcome(orders.cancel, user=me.id, order=found["id"])
                    done += 1
        return done

    def timer():
        done = Counter()
        while time.monotonic() < until:
            done += Counter(orders.run_due(50))
        return done

    found = in_threads(lambda n: client(n) if n < 6 else timer(), 8)
    assert sum(found[:6]) > 10
    assert found[6]["stuck"] + found[7]["stuck"] == 0
    for _ in range(8):
        age(1000)
        run()
    assert not Order.objects.filter(state__in=Order.LIVE).exists()
    fees = database.value("SELECT sum(posted) FROM trading_account WHERE kind = 'fees'")
    everyone = sum(money(one.id, kind)[0] for one in sellers + clients for kind in ("available", "bond"))
    assert everyone + fees == 10 * AIT
    print({**found[6] + found[7]}, sum(found[:6]), dict(Counter(Order.objects.values_list("state", flat=True))))  # noqa: T201
