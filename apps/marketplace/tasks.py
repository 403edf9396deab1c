"""Celery shells of the market's periodic work."""

from collections import Counter

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.marketplace.services import offers, timing
from apps.trading.services.escrow import call


@shared_task(name="marketplace.roll_prices", **RETRY_UNAVAILABLE)
def roll_prices(limit: int = 200) -> int:
    return next((done for done in range(limit) if call("market_roll") is None), limit)


@shared_task(name="marketplace.apply_strategies", **RETRY_UNAVAILABLE)
def apply_strategies(limit: int = 1000) -> dict[str, int]:
    done: Counter[str] = Counter()
    while done.total() < limit and (what := call("strategy_next")) is not None:
        done[what] += 1
    if done["stuck"]:
        raise RuntimeError(f"{done['stuck']} strategies failed; each waits a minute")
    return {**done}


@shared_task(name="marketplace.watch", **RETRY_UNAVAILABLE)
def watch(limit: int = 1000) -> int:
    """Health of regions, offers that an active ban forbids, and alerts; how many alerts changed."""
    call("regions_refresh")
    for offer, rule in db.rows("SELECT * FROM offers_banned(%s)", (limit,)):
        offers.suspend_offer(offer_id=offer, by=None, note=f"rule {rule}")
    return int(call("market_watch", timing.p95("search")))
