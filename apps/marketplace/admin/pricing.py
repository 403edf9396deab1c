"""Prices of the market with their chart, strategies, regions and rules."""

from django.contrib import admin
from django.utils.html import format_html
from orjson import dumps, loads

from aitbc.core import show
from aitbc.core.columns import column
from aitbc.core.pages import ConsoleAdmin, ReadOnlyAdmin, never
from apps.marketplace.models import Price, Region, Rule, Strategy
from apps.trading.admin.amounts import amount
from apps.trading.services.escrow import call


def _chart(row: Price) -> str:
    """A canvas of class `chart` is drawn by the console's own copy of Chart.js."""
    points = loads(call("market_history", row.model, row.region, 7))["points"]
    sides = [(point[row.source] or {}) for point in points]
    lines = {name: [float(side[name]["amount"]) if side else None for side in sides] for name in ("p10", "p50", "p90")}
    datasets = [{"label": name.upper(), "data": line} for name, line in lines.items()]
    data = dumps({"labels": [point["at"][5:16] for point in points], "datasets": datasets}).decode()
    return format_html('<canvas class="chart" data-type="line" data-value="{}" height="300"></canvas>', data)


@admin.register(Price)
class PriceAdmin(ReadOnlyAdmin):
    icon = "show_chart"
    list_display = ("hour", "span", "source", "model", "region", "low", "median", "high", "count")
    search_fields = ("model",)
    ordering = ("-hour", "-id")
    fields = (("model", "region", "source"), ("low", "median", "high"), "chart")
    low, median, high = amount("P10", "p10"), amount("P50", "p50"), amount("P90", "p90")
    chart = column("Its last week, AIT per device second", _chart)


@admin.register(Strategy)
class StrategyAdmin(ReadOnlyAdmin):
    icon = "tune"
    list_display = ("offer_shown", "preset", "base_shown", "least", "most", "frozen_until", "due_at")
    list_select_related = ("offer",)
    search_fields = ("offer",)
    fields = (*list_display, "told")
    offer_shown = column("Offer", "offer", show.to)
    base_shown, least, most = amount("Base", "base"), amount("Least", "floor"), amount("Most", "ceiling")
    told = column("What comes next, and what was", lambda row: loads(call("strategy_told", row.pk)), show.document)


@admin.register(Region)
class RegionAdmin(ConsoleAdmin):
    icon = "public"
    list_display = ("code", "name", "status", "health", "load", "miners", "online", "fee_bps", "price_bps")
    readonly_fields = ("health", "load", "miners", "online")
    has_delete_permission = never


@admin.register(Rule)
class RuleAdmin(ConsoleAdmin):
    list_display = ("name", "category", "effect", "field", "operator", "value", "active")
