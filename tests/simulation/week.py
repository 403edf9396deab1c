"""A simulated week of the market against its real services, minute by minute, on a clock that only it moves.

`python -m tests.simulation.world FOLDER tests.simulation.week SEED MINERS CLIENTS HOURS`.
"""

import math
from collections import Counter
from random import Random
from typing import Any
from uuid import UUID

import orjson
import structlog

from aitbc.core import outbox, ticks
from aitbc.core.errors import Conflict
from aitbc.core.testing import cast
from apps.gpu.services import leases, submission, sweeps
from apps.gpu.services.submission import Order as JobOrder
from apps.marketplace.models import Order, Quote
from apps.marketplace.selectors import offers as search
from apps.marketplace.services import orders
from apps.trading.models import Payment
from apps.trading.services import escrow, streams
from apps.trading.services.escrow import call
from apps.trading.tasks import mature
from tests.simulation import actors, recount
from tests.simulation.clock import Clock

TICK = 10  # seconds; the platform takes 15 without one for an outage
ORDERS_PER_CLIENT = 2
QUERIES = ('model = "NVIDIA H200"', "region = eu-west and price < 0.5", "not kind = cpu or spot > 0", "verified")


def run(clock: Clock, arguments: list[str]) -> dict[str, Any]:
    seed, miners, clients, hours = map(int, arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    week = Week(clock, Random(seed), miners, clients)
    week.live(hours * 60)
    week.counts["credits above nothing"] = Order.objects.filter(credit__gt=0).count()
    week.counts["compensations above nothing"] = Order.objects.filter(compensation__gt=0).count()
    return {"seed": seed, "counts": {**week.counts}, "problems": recount.problems()}


class Week:
    def __init__(self, clock: Clock, rng: Random, miners: int, clients: int) -> None:
        self.clock, self.rng = clock, rng
        self.counts: Counter[str] = Counter()
        ticks.tick()
        self.sellers = {seller.id: seller for seller in (actors.open_shop(rng, n) for n in range(miners))}
        self.clients = actors.crowd(clients)
        self.operator = cast.person("operator", "operator")

    def live(self, minutes: int) -> None:
        """The market for so long, and then until everything has ended."""
        arrivals = ORDERS_PER_CLIENT * len(self.clients) / minutes
        for _ in range(minutes):
            self.minute()
            for _ in range(self._poisson(arrivals)):
                self.shop()
            if self.rng.random() < arrivals / 10:
                self.quarrel()
        for _ in range(24 * 60):
            if not self._unfinished():
                return
            self.minute()

    def _poisson(self, mean: float) -> int:
        limit, product, n = math.exp(-mean), self.rng.random(), 0
        while product > limit:
            product *= self.rng.random()
            n += 1
        return n

    def _unfinished(self) -> bool:
        return Order.objects.filter(due_at__isnull=False).exists() or Quote.objects.filter(state="open").exists()

    # -- a minute -----------------------------------------------------------------------------------
    def minute(self) -> None:
        for _ in range(60 // TICK):
            self.clock.forward(TICK)
            ticks.tick()
        busy = self._start_and_list()
        self._be_heard(busy)
        sweeps.sweep()
        self.counts.update(orders.run_due())
        self.counts.update({f"stream_{what}": n for what, n in streams.run_due().items()})
        mature()
        while outbox.relay_once():
            pass

    def _start_and_list(self) -> set[UUID]:
        """Miners that are there start what waits for them, lazy ones not always -> who lets something now."""
        busy = set()
        now = self.clock.ahead
        for order in Order.objects.filter(state__in=("accepted", "active", "notice")):
            seller = self.sellers[order.miner_id]
            present = seller.away_until <= now
            if order.state == "accepted" and present and not (seller.lazy and self.rng.random() < 0.5):
                self._try("started", call, "order_start", seller.who.principal.key_id, order.pk)
            elif order.state != "accepted":
                busy.add(order.miner_id)
                self._live_with(order, seller, now)
        return busy

    def _live_with(self, order: Order, seller: actors.Seller, now: float) -> None:
        luck = self.rng.random()
        if luck < 0.002 and seller.away_until <= now:
            seller.away_until = now + self.rng.choice((45, 600, 7200))
            self.counts["absences"] += 1
        elif luck < 0.004:
            self._try("cancels by clients", orders.cancel, user=order.client_id, order=order.pk)
        elif luck < 0.0045:
            self._try("cancels by providers", orders.cancel, user=order.provider_id, order=order.pk)
        elif luck < 0.006:
            self._try("extensions", call, "order_extend", order.client_id, order.pk, 600)

    def _be_heard(self, busy: set[UUID]) -> None:
        now = self.clock.ahead
        present = {seller.id for seller in self.sellers.values() if seller.away_until <= now}
        for miner in sorted(busy & present):
            if not (self.sellers[miner].lazy and self.rng.random() < 0.03):  # a lazy one drops a minute now and then
                self.sellers[miner].beat()
        back = [s for s in self.sellers.values() if s.id in present - busy and s.away_until]
        for seller in back:  # whoever was away speaks before it is counted among those who idle
            seller.beat()
            seller.away_until = 0.0
        actors.keep_alive(sorted(present - busy))

    # -- clients ------------------------------------------------------------------------------------
    def shop(self) -> None:
        client = self.rng.choice(self.clients)
        self._search()
        try:
            quote = orders.quote(client=client, ask=actors.ask(self.rng))
        except Conflict as error:
            self.counts[error.code] += 1
            return
        self.counts["quotes"] += 1
        if self.rng.random() < 0.85:
            self._try("orders", orders.accept, client=client, quote=UUID(_member(quote, "id")))

    def _search(self) -> None:
        search.search(q=self.rng.choice(QUERIES), sort="price", cursor=None, limit=20, count=False)
        self.counts["searches"] += 1

    def quarrel(self) -> None:
        """A job on the open market, done, paid, and now and then disputed and resolved."""
        client = self.rng.choice(self.clients)
        order = JobOrder(kind="bench.matmul", max_price="5", input=cast.MATMUL)
        submission.submit(client=client, order=order, key=None, digest=None)
        now = self.clock.ahead
        ready = [s for s in self.sellers.values() if s.away_until <= now]
        for seller in self.rng.sample(ready, min(20, len(ready))):
            for lease in leases_of(seller):
                answer = seller.who.deliver(lease, cast.MATMUL_OUTPUT)
                assert answer.status_code == 200, answer.content
                self.counts["jobs"] += 1
                if self.rng.random() < 0.5:
                    self._dispute(UUID(lease["id"]))
                return

    def _dispute(self, job: UUID) -> None:
        paid = Payment.objects.get(job=job)
        escrow.act("dispute", user=paid.client_id, payment=paid.pk, job=job, reason="not what I asked for")
        escrow.resolve(operator=self.operator.id, payment=paid.pk, refund=self.rng.choice((0, 1)), note="seen")
        self.counts["disputes"] += 1

    def _try(self, what: str, action: Any, *said: Any, **named: Any) -> None:
        """A refusal is counted by its code: rivals, ends and empty purses are part of a market."""
        try:
            action(*said, **named)
            self.counts[what] += 1
        except Conflict as error:
            self.counts[error.code] += 1


def leases_of(seller: actors.Seller) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(leases.claim(key=seller.who.principal.key_id, most=1, kinds=None))
    return found


def _member(document: str, name: str) -> str:
    return str(orjson.loads(document)[name])
