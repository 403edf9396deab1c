"""The operator's pages of the market: the chart of prices, regions and rules that he writes."""

import html
import re

import orjson
import pytest
from django.urls import reverse

from apps.marketplace.models import Offer, Price, Region, Rule

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def page(model, pk):
    return reverse(f"admin:marketplace_{model._meta.model_name}_change", args=[pk])


def test_the_chart_holds_the_percentiles_of_the_week(console, scene):
    row = Price.objects.filter(source="listed", region="").exclude(model="").first()

    text = console.get(page(Price, row.pk)).content.decode()

    (data,) = re.findall(r'<canvas class="chart" data-type="line" data-value="([^"]+)"', text)
    chart = orjson.loads(html.unescape(data))
    assert [(line["label"], line["data"]) for line in chart["datasets"]] == [
        (p, [0.002]) for p in ("P10", "P50", "P90")
    ]
    assert chart["labels"] == [f"{row.hour:%m-%dT%H:%M}"]


def test_a_rule_that_fits_is_written_and_one_that_does_not_is_refused_in_its_form(console, scene):
    form = {"name": "No gouging", "message": "too dear", "category": "pricing", "effect": "ban", "field": "price"}
    form |= {"operator": "gt", "value": '"one"', "active": "on"}
    add = reverse("admin:marketplace_rule_add")
    before = Rule.objects.count()

    refused = console.post(add, form)
    assert refused.status_code == 200
    assert "No such field or operator" in refused.content.decode()
    assert Rule.objects.count() == before
    assert console.post(add, form | {"value": "0.001"}).status_code == 302
    assert Rule.objects.get(name="No gouging").value == 0.001
    assert Offer.objects.filter(state="listed").count() == 2  # taken off by the next watch, not by the form


def test_a_regions_terms_are_written_and_its_health_is_not(console, scene):
    before = Region.objects.get(pk="eu")
    form = {"code": "eu", "name": "Europe", "status": "maintenance", "fee_bps": "100", "price_bps": "11500"}

    answer = console.post(
        page(Region, "eu"), form | {"health": "0.1", "latitude": "50.1", "longitude": "8.6", "probe_url": ""}
    )

    assert answer.status_code == 302, answer.content
    after = Region.objects.get(pk="eu")
    assert (after.name, after.status, after.fee_bps, after.price_bps) == ("Europe", "maintenance", 100, 11_500)
    assert after.health == before.health
