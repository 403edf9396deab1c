"""Composition root of the console: its navigation, its dashboard, and jumping to an id.

Every figure is read when the page is: from PostgreSQL, and the lengths of Celery's queues from Redis.
"""

from dataclasses import asdict
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from django.utils.text import capfirst
from unfold.dataclasses import SearchResult

from aitbc.celery import QUEUES
from aitbc.chain.models import Intent, NetworkStatus
from aitbc.core import clock, db, money, show
from aitbc.core import overview as core
from apps.gpu.admin.miners import STATES
from apps.gpu.models import Job, Miner
from apps.gpu.selectors import overview as work
from apps.marketplace.models import Offer, Order
from apps.trading.admin import amounts
from apps.trading.models import Payment, SettlementBatch, Transfer
from apps.trading.selectors import overview as trading
from apps.trading.selectors.assets import decimals

TICK_IS_LATE = 15
# Which pages stand first in their group; the others follow by name.
_GROUPS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Work", ("gpu",), ("job", "miner", "device", "receipt", "challenge", "queuedjob", "artifact")),
    ("Market", ("marketplace",), ("offer", "order", "quote")),
    ("Money", ("trading",), ("payment", "account", "transfer", "entry", "settlementbatch", "deposit", "reservecheck")),
    ("Chain", ("chain",), ("networkstatus", "intent", "finalevent", "deployment")),
    ("People", ("accounts", "auth", "webhooks"), ("user", "apikey", "parameter", "group")),
    ("Platform", ("core", "django_celery_beat"), ("outboxevent", "deadtask", "platformtick", "periodictask")),
)
_IDS = (Job, Payment, Transfer, Miner, Offer, Order, SettlementBatch)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Every page that this user may see, grouped by context; a new page needs no entry here."""
    visible: list[Any] = [p for p in admin.site._registry.values() if p.has_view_permission(request)]
    visible.sort(key=lambda page: str(page.opts.verbose_name_plural))
    named = {label for _, labels, _ in _GROUPS for label in labels}
    others = tuple({page.opts.app_label for page in visible} - named)
    home = {"title": "Dashboard", "icon": "dashboard", "link": reverse("admin:index")}
    fleet = {"title": "Fleet", "icon": "public", "link": reverse("fleet")}
    groups: list[dict[str, Any]] = [{"title": None, "items": [home, fleet]}]
    for title, labels, first in (*_GROUPS, ("Other", others, ())):
        pages = [page for page in visible if page.opts.app_label in labels]
        pages.sort(key=lambda page: _place(page.opts.model_name, first))
        if pages:
            items = [_item(page) for page in pages]
            groups.append({"title": title, "collapsible": True, "separator": True, "items": items})
    return groups


def _place(name: str, first: tuple[str, ...]) -> int:
    return first.index(name) if name in first else len(first)


def _item(page: Any) -> dict[str, Any]:
    return {
        "title": capfirst(page.opts.verbose_name_plural),
        "icon": getattr(page, "icon", "table_rows"),
        "link": reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_changelist"),
    }


def find(request: HttpRequest, term: str) -> list[SearchResult]:
    """The rows whose id is `term`, whatever they are."""
    try:
        wanted = UUID(term.strip())
    except ValueError:
        return []
    found = []
    for model in _IDS:
        page: Any = admin.site._registry[model]
        if page.has_view_permission(request) and model._default_manager.filter(pk=wanted).exists():
            url = reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_change", args=[wanted])
            found.append(SearchResult(str(page.opts.verbose_name).capitalize(), str(wanted), url, page.icon))
    return found


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What `admin/index.html` shows; values are formatted, so that the template has no rules."""
    now = clock.database_now()
    waiting, oldest = work.queue()
    return context | {
        "title": "Dashboard",
        "now": now,
        "jobs": work.jobs_by_state(),
        "queue": waiting,
        "queue_total": sum(count for _, count in waiting),
        "queue_oldest": show.age(oldest, now) if oldest else None,
        "miners": work.miners_by_state(),
        "devices": work.devices(),
        "chart": [(f"{hour:%H}:00", count) for hour, count in work.completed_per_hour()],
        "money": _money(),
        "settlement": trading.last_settlement(),
        "unbatched": trading.unbatched_receipts(),
        "reserves": _reserves(),
        "network": NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).first(),
        "intents": Intent.objects.open().filter(network=settings.CHAIN_NETWORK).count(),
        "outbox": _outbox(now),
        "dead_tasks": core.dead_tasks(),
        "tick": _tick(now),
        "celery": core.queue_lengths(QUEUES),
    }


def fleet_map(request: HttpRequest) -> HttpResponse:
    """Regions with their devices, miners and offers, as the fleet stands now."""
    if not request.user.has_perm("gpu.view_miner"):
        raise PermissionDenied
    offers = dict(Offer.objects.filter(state="listed").values_list("miner__region").annotate(Count("pk")))
    regions = orjson.loads(db.value("SELECT gpu_fleet()"))
    for region in regions:
        region["offers"] = offers.get(region["region"], 0)
        for cell in region["cells"]:
            cell["tone"] = STATES[cell["state"]]
    shown = {"title": "Fleet", "now": clock.database_now(), "regions": regions}
    return TemplateResponse(request, "console/fleet.html", admin.site.each_context(request) | shown)


def _money() -> dict[str, str]:
    """Decimal strings of one asset, which is named in the labels beside them."""
    places = decimals(amounts.AIT)
    figures = asdict(trading.money(amounts.AIT)).items()
    return {name: money.show(units, places) for name, units in figures} | {"asset": amounts.AIT}


def _reserves() -> dict[str, Any] | None:
    check = trading.last_reserve_check(settings.CHAIN_NETWORK, amounts.AIT)
    if check is None:
        return None
    return {
        "agree": check.difference == 0,
        "on_chain": amounts.shown((check.contract or 0) + (check.unswept or 0)),
        "owed": amounts.shown(check.liabilities or 0),
        "difference": amounts.shown(check.difference or 0),
        "block": check.block_number,
        "at": check.checked_at,
    }


def _outbox(now: Any) -> dict[str, Any]:
    figures = core.outbox()
    return figures | {"age": show.age(figures["oldest"], now) if figures["oldest"] else None}


def _tick(now: Any) -> dict[str, Any] | None:
    moment = core.last_tick()
    if moment is None:
        return None
    return {"age": show.age(moment, now), "late": (now - moment).total_seconds() > TICK_IS_LATE}


def stylesheet(request: HttpRequest) -> str:
    return static("console/console.css")


def favicon(request: HttpRequest) -> str:
    return static("console/favicon.svg")
