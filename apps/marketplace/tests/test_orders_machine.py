"""Random walks through the market: whatever happens, money is conserved and nothing is let twice."""

import random
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise

import orjson
import pytest

from aitbc.core import db as database
from aitbc.core.errors import Conflict, Invalid, NotFound
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Heartbeat, Miner, Occupancy
from apps.marketplace.models import Offer, Order
from apps.marketplace.services import orders
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.market import MILLI, age, beats, dies, money, run
from apps.trading.services.escrow import call


class Walk:
    """Two sellers of one card each, three clients, and a die."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sellers = [cast.seller(name, device=card()) for name in ("mike", "nora")]
        self.clients = [cast.person(name) for name in ("alice", "bob", "carol")]
        for person in self.sellers + self.clients:
            cast.fund(person.id, AIT)
        for seller in self.sellers:
            read(seller.post(OFFERS, {"price": price("0.001"), "sla": {"availability": 0.99}}), 201)
        Offer.objects.update(spot_price=MILLI // 2, reserved_discount_bps=1000)
        self.quotes = []

    def step(self):
        action = self.random.choice(
            [self.quote] * 3 + [self.accept] * 4 + [self.start] * 4 + [self.wait] * 3
            + [self.cancel, self.extend, self.move, self.bond, self.die, self.come_back]
        )  # fmt: skip
        with suppress(Conflict, Invalid, NotFound):  # what is refused is left as it was
            action()

    def order(self, *states):
        found = [*Order.objects.filter(state__in=states or Order.State.values).order_by("pk")]
        return self.random.choice(found) if found else None

    def quote(self):
        kind = self.random.choice(("on_demand", "spot", "spot", "reserved"))
        ask = {
            "seconds": self.random.randint(1, 900),
            "type": kind,
            "wants": {},
            "failover": self.random.random() < 0.5,
        }
        ask |= {"bid": str(self.random.randint(4, 12) * MILLI // 10), "offer": None}
        client = self.random.choice(self.clients)
        self.quotes.append((client, orjson.loads(orders.quote(client=client.id, ask=ask))["id"]))

    def accept(self):
        if self.quotes:
            client, asked = self.random.choice(self.quotes[-3:])
            orders.accept(client=client.id, quote=asked)

    def start(self):
        if placed := self.order("accepted"):
            seller = next(one for one in self.sellers if one.miner_id == placed.miner_id)
            call("order_start", seller.principal.key_id, placed.pk)
            minutes = [minute for minute in range(placed.seconds // 60) if self.random.random() < 0.9]
            if not Heartbeat.objects.filter(miner_id=placed.miner_id).exists():
                beats(seller, {"id": placed.pk}, minutes)

    def wait(self):
        age(self.random.choice((1, 30, 130, 400)))
        run()

    def cancel(self):
        if placed := self.order(*Order.LIVE):
            user = self.random.choice((placed.client_id, placed.provider_id, None))
            orders.cancel(user=user, order=placed.pk)

    def extend(self):
        if placed := self.order("active"):
            call("order_extend", placed.client_id, placed.pk, self.random.randint(1, 300))

    def move(self):
        if placed := self.order():
            call("order_move", placed.client_id, placed.pk)

    def bond(self):
        action = self.random.choice(("bond_deposit", "bond_deposit", "bond_withdraw"))
        call(action, self.random.choice(self.sellers).id, self.random.randint(1, 300) * MILLI)

    def die(self):
        dies(self.random.choice(self.sellers), ago=self.random.choice((0, 60)))

    def come_back(self):
        Miner.objects.update(state="online")


def credit(order):
    """The same credit, by another way: from the rows in Python, not in SQL."""
    good = counted = 0
    if order.started_at:
        broken = order.ended_by == "provider"
        ends = order.started_at + timedelta(seconds=order.seconds) if broken else order.ended_at
        log = [*Heartbeat.objects.filter(miner_id=order.miner_id).order_by("received_at")]
        while (since := order.started_at + timedelta(minutes=counted)) + timedelta(minutes=1) <= ends:
            counted, upto = counted + 1, since + timedelta(minutes=1)
            good += upto <= order.ended_at and any(since <= beat.received_at < upto for beat in log)
    share = 1000 if order.ended_by == "provider" else 0
    if counted and (measured := good * 10_000 // counted) < order.sla_bps:
        share = max(share, 1000 if measured >= 9900 else 2500 if measured >= 9500 else 5000)
    return min(order.max_credit, order.total * share // 10_000)


def overlaps():
    spans = [*Occupancy.objects.order_by("device_id", "during").values_list("device_id", "during")]
    return [one for one, two in pairwise(spans) if one[0] == two[0] and one[1].upper > two[1].lower]


def walk(seed, steps):
    market.learn_to_age()
    walked = Walk(seed)
    for number in range(steps):
        walked.step()
        if number % 20 == 0:
            market.assert_sound()
    for _ in range(12):
        age(2000)
        Miner.objects.update(state="online")
        run()
    market.assert_sound()
    assert overlaps() == []
    assert not Order.objects.filter(state__in=Order.LIVE).exists()
    for order in Order.objects.filter(bond_hold__isnull=False):
        assert order.credit == credit(order), order.pk
        assert order.credit == database.value("SELECT order_sla(%s)", (order.pk,))
    people = walked.sellers + walked.clients
    everything = sum(money(one.id, kind)[0] for kind in ("available", "bond") for one in people)
    fees = database.value("SELECT coalesce(sum(posted), 0) FROM trading_account WHERE kind = 'fees'")
    assert everything + fees == 5 * AIT
    assert [money(one.id)[1] for one in people] == [0] * 5


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_walk_conserves_money_and_lets_nothing_twice(db, seed):
    walk(seed, 100)
    assert Order.objects.count() > 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 110))
def test_long_random_walks(db, seed):
    walk(seed, 400)
    assert len({*Order.objects.values_list("state", flat=True)}) >= 4
