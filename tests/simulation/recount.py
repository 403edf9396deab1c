"""The end of the week, checked from the rows by other means than the services: plain Python over the logs."""

from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db import connection

from apps.gpu.models import Heartbeat, Job, Occupancy
from apps.marketplace.models import Order, Quote
from apps.trading.services import audit

MINUTE, LATE = timedelta(minutes=1), timedelta(seconds=90)
STEPS = ((9900, 1000), (9500, 2500), (0, 5000))  # availability of at least so much -> share of the total, both in bps
FINAL_JOBS = ("completed", "failed", "canceled", "expired")


def problems() -> dict[str, list[str]]:
    """Each rule of the acceptance with the examples that break it."""
    return {
        "let twice at one time": overlaps(),
        "orders not final": [str(o.pk) for o in Order.objects.filter(ended_at=None)[:5]],
        "quotes not resolved": [str(q.pk) for q in Quote.objects.filter(state="open")[:5]],
        "jobs not final": [str(j.pk) for j in Job.objects.exclude(state__in=FINAL_JOBS)[:5]],
        "ledger": [f"{finding.rule}: {finding.example}" for finding in audit.audit()],
        "sla credits": wrong_credits(),
        "compensations": wrong_compensations(),
        "money of orders": [
            str(o.pk) for o in Order.objects.exclude(ended_at=None) if o.paid + o.fee + o.refunded != o.total
        ][:5],
    }


def overlaps() -> list[str]:
    spans = defaultdict(list)
    for device, during in Occupancy.objects.values_list("device_id", "during"):
        spans[device].append((during.lower, during.upper))
    found = []
    for device, taken in spans.items():
        taken.sort()
        found += [str(device) for one, other in pairwise(taken) if other[0] < one[1]]
    return found[:5]


def wrong_credits() -> list[str]:
    """Orders whose credit is not what their miner's signed log gives."""
    outages = _outages()
    beats = _beats()
    found = []
    for order in Order.objects.exclude(bond_hold=None).exclude(ended_at=None):
        owed = min(int(order.max_credit), int(order.total) * _share(order, beats[order.miner_id], outages) // 10_000)
        if order.credit is None or int(order.credit) != owed:
            found.append(f"{order.pk} {order.state}: {order.credit} instead of {owed}")
    return found[:5]


def _share(order: Order, beats: list[tuple[datetime, datetime]], outages: list[tuple[datetime, datetime]]) -> int:
    availability = _availability(order, beats, outages) if order.started_at else None
    share = 0
    if availability is not None and availability < (order.sla_bps or 0):
        share = next(credit for least, credit in STEPS if availability >= least)
    return max(share, 1000 if order.ended_by == "provider" else 0)


def _availability(order: Order, beats: list[tuple[datetime, datetime]], outages: list[Any]) -> int | None:
    """Of the whole minutes from its start to its end, those in which a covered heartbeat arrived, in basis points."""
    assert order.started_at is not None
    assert order.ended_at is not None
    broken = order.ended_by == "provider"
    until = order.started_at + timedelta(seconds=order.seconds) if broken else order.ended_at
    good = counted = 0
    for k in range(int((until - order.started_at) / MINUTE)):
        since = order.started_at + k * MINUTE
        upto = since + MINUTE
        if any(began < upto and since < ended for began, ended in outages):
            continue
        counted += 1
        heard = any(since <= at < upto and covered < upto + LATE for at, covered in beats)
        good += heard and upto <= order.ended_at
    return good * 10_000 // counted if counted else None


def _beats() -> dict[Any, list[tuple[datetime, datetime]]]:
    """Of each miner: when each beat arrived, and when the first signature that covers it did."""
    found: dict[Any, list[tuple[datetime, datetime]]] = defaultdict(list)
    covered: dict[Any, datetime] = {}
    rows = Heartbeat.objects.order_by("miner_id", "-sequence").values_list("miner_id", "received_at", "signature")
    for miner, at, signature in rows.iterator():
        if signature:
            covered[miner] = at
        if miner in covered:
            found[miner].append((at, covered[miner]))
    return found


def _outages() -> list[tuple[datetime, datetime]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT began_at, ended_at FROM core_platform_outage WHERE process = 'relay'")
        return list(cursor.fetchall())


def wrong_compensations() -> list[str]:
    """No evictor's victims got more than the fee on his own lease."""
    paid: dict[Any, int] = defaultdict(int)
    for evictor, amount in Order.objects.exclude(evicted_by=None).values_list("evicted_by", "compensation"):
        if amount is None:
            return [f"a victim of {evictor} has no decision"]
        paid[evictor] += int(amount)
    fees = {order.pk: int(order.fee) for order in Order.objects.filter(pk__in=paid)}
    return [str(evictor) for evictor, amount in paid.items() if amount > fees[evictor]][:5]
