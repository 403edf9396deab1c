"""Search takes whole values of indexed columns, and anything may be typed into it."""

from uuid import UUID

import pytest
from django.contrib import admin
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from aitbc.accounts.models import User
from aitbc.core.pages import ExactSearch
from apps.gpu.models import Job, Miner, Receipt
from apps.trading.models import Payment, SettlementBatch, Transfer

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def found(console, model, term):
    path = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    response = console.get(path, {"q": term})
    assert response.status_code == 200, (model._meta.label, term)
    return [row.pk for row in response.context["cl"].result_list]


def test_a_job_is_found_by_its_id_alone(console, scene):
    job = scene.completed[0]

    assert found(console, Job, str(job)) == [job]
    assert found(console, Job, f"  {str(job).upper()} ") == [job]
    assert found(console, Receipt, str(job)) == [job]
    assert found(console, Job, str(job)[:-1]) == []


def test_rows_are_found_by_who_they_belong_to(console, scene):
    mail = scene.alice.user.email

    assert len(found(console, Job, mail)) == Job.objects.filter(client=scene.alice.user).count() == 6
    assert found(console, User, mail.upper()) == [scene.alice.id]
    assert found(console, Miner, scene.mike.user.email) == [scene.mike.miner_id]


def test_money_is_found_by_the_job_that_it_paid_for(console, scene):
    job = scene.completed[0]
    payment = Payment.objects.get(job=job)

    assert found(console, Payment, str(job)) == [payment.pk]
    assert {t.kind for t in Transfer.objects.filter(pk__in=found(console, Transfer, str(job)))} == {
        "job.hold", "job.earning", "job.fee",
    }  # fmt: skip


def test_a_batch_is_found_by_its_root_or_transaction(console, scene):
    batch = SettlementBatch.objects.first()

    assert found(console, SettlementBatch, str(batch.root)) == [batch.pk]
    assert found(console, SettlementBatch, str(batch.tx_hash)) == [batch.pk]


TYPED = ("x", "0x12", "9" * 26, "' OR 1=1 --", "%", "ä", "1.5", "a@b", "-1", "1", "0" * 64, str(UUID(int=0)))


def test_anything_may_be_typed_into_any_search_and_none_reads_texts(scene):
    """A search for a part of a text, or without regard to case, would read the whole table."""
    for model, page in admin.site._registry.items():
        if not isinstance(page, ExactSearch):
            continue
        for term in TYPED:
            rows, _ = page.get_search_results(None, model._default_manager.all(), term)
            with CaptureQueriesContext(connections[rows.db]) as asked:
                list(rows[:5])
            assert not [q for q in asked if "LIKE" in q["sql"] or "UPPER(" in q["sql"]], model._meta.label


def test_a_search_that_finds_nothing_says_so(console, scene):
    for term in TYPED:
        assert found(console, Job, term) == [], term


# One row per batch, contract, machine or kind of request: few enough to read.
SMALL = {
    "trading.SettlementBatch",
    "trading.PayoutBatch",
    "trading.PayoutTarget",
    "chain.Intent",
    "chain.Deployment",
    "gpu.Miner",
    "gpu.JobClass",
    "auth.Group",
}


def test_every_search_follows_indexes(scene):
    """Each column on a search's path leads an index, or follows `network`, which has few values to skip."""
    missing = [
        f"{model._meta.label}: {name}"
        for model, page in admin.site._registry.items()
        if isinstance(page, ExactSearch) and model._meta.label not in SMALL
        for name in page.search_fields
        if not all(indexed(on, column) for on, column in steps(model, name))
    ]

    assert missing == []


def steps(model, path):
    for step in path.split("__"):
        field = model._meta.get_field(step)
        yield model, field.column
        model = field.related_model or model


def indexed(model, column):
    using = "chain" if getattr(model, "database", None) == "chain" else "default"
    with connections[using].cursor() as cursor:
        found = connections[using].introspection.get_constraints(cursor, model._meta.db_table)
    wide = [c["columns"] for c in found.values() if (c["index"] or c["unique"] or c["primary_key"]) and c["columns"]]
    return any(columns[0] == column or columns[:2] == ["network", column] for columns in wide)


def test_an_id_typed_into_the_command_palette_leads_to_its_row(console, scene):
    job = scene.completed[0]
    page = console.get("/admin/search/", {"s": str(job), "extended": "1"}).content.decode()

    assert reverse("admin:gpu_job_change", args=[job]) in page
    assert reverse("admin:trading_payment_change", args=[Payment.objects.get(job=job).pk]) not in page
