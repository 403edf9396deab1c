"""Celery shells of the marketplace services."""

from collections import Counter

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.gpu.services import reexecution
from apps.marketplace.services import offers, orders, searches, timing
from apps.trading.services.escrow import call


@shared_task(name="marketplace.run_orders", **RETRY_UNAVAILABLE)
def run_orders() -> dict[str, int]:
    """Quotes expire, orders end, credits and bonds are paid."""
    return orders.run_due()


@shared_task(name="marketplace.collect", **RETRY_UNAVAILABLE)
def collect(limit: int = 1000) -> dict[str, int]:
    """What work that was done again decides, and what ended deals and disputes mean for scores."""
    return {**reexecution.judge(), "noted": int(call("reputation_collect", limit))}


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


@shared_task(name="marketplace.sweep", **RETRY_UNAVAILABLE)
def sweep(limit: int = 1000) -> dict[str, int]:
    """Withdraw offers whose time is over (no search shows them any more), and tell of offers that newly match."""
    return {"expired": db.value("SELECT marketplace_expire(%s)", (limit,)), "told": searches.match_changed(limit)}
