"""Every page of the console opens, says what it holds, and asks the database few questions."""

import re

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection, connections
from django.db.models import CompositePrimaryKey
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from aitbc.core import db

pytestmark = pytest.mark.django_db(databases=["default", "chain"])
OURS = ("core", "accounts", "chain", "webhooks", "trading", "gpu", "marketplace")
SEEDED = ("trading.Asset",)  # the application's role may not add one, and there is one so far
# Work lists of the database's own functions: a hold's end is on its transfer, a checkpoint's balances in no list, a
# day's root in the audit log, outages and occupied devices under what they concern.
PAGELESS = ("core.PlatformOutage", "trading.HoldTimer", "trading.Checkpoint", "gpu.Occupancy", "gpu.HeartbeatRoot")
SEALED = "trading.JournalBlock"  # made of what is committed only: see test_journal_page.py
QUERIES_OF_A_LIST = 9
QUERIES_OF_A_PAGE = 20


def url(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def test_every_model_of_ours_has_a_page():
    """But those with a composite key, which Django's admin cannot show."""
    without = [
        model._meta.label
        for label in OURS
        for model in apps.get_app_config(label).get_models()
        if not isinstance(model._meta.pk, CompositePrimaryKey) and model not in admin.site._registry
    ]

    assert without == list(PAGELESS)


@pytest.fixture
def direct(monkeypatch):
    """The statements that bypass Django's cursor, which Django's own capture does not see."""
    statements = []
    rows = db.rows
    monkeypatch.setattr(db, "rows", lambda sql, *args, **options: statements.append(sql) or rows(sql, *args, **options))
    return statements


def test_every_list_opens_with_rows_and_the_same_queries_however_many_it_shows(console, scene, direct, monkeypatch):
    """What grows with the rows is an N+1. A new page is covered as soon as it is registered."""
    for model, page in admin.site._registry.items():
        if model._meta.label == SEALED:
            continue
        enough = 1 if model._meta.label in SEEDED else 2
        assert model._default_manager.count() >= enough, f"{model._meta.label}: give it two rows in scene.py"
        console.get(url(model, "changelist"))  # fills the caches of what never changes
        counts = []
        for rows in (1, 100):
            monkeypatch.setattr(page, "list_per_page", rows)
            direct.clear()
            with CaptureQueriesContext(connection) as default, CaptureQueriesContext(connections["chain"]) as chain:
                response = console.get(url(model, "changelist"))
            assert response.status_code == 200, model._meta.label
            assert len(response.context["cl"].result_list) == min(rows, model._default_manager.count())
            counts.append(len(default) + len(chain) + len(direct))
        assert counts[0] == counts[1], f"{model._meta.label} asks {counts} for one row and for all"
        assert counts[1] <= QUERIES_OF_A_LIST, f"{model._meta.label} asks {counts[1]} questions"


def test_every_page_of_a_row_opens_with_a_bounded_number_of_queries(console, scene, direct):
    for model in admin.site._registry:
        if model._meta.label == SEALED:
            continue
        row = model._default_manager.first()
        direct.clear()
        with CaptureQueriesContext(connection) as asked:
            response = console.get(url(model, "change", row.pk))

        assert response.status_code == 200, f"{model._meta.label}: {response.get('Location')}"
        questions = len(asked) + len(direct)
        assert questions <= QUERIES_OF_A_PAGE, f"{model._meta.label} asks {questions} questions"


def test_no_list_counts_a_large_table(console, scene, monkeypatch):
    """Beyond the limit the paginator takes the planner's estimate, and never reads the table to its end."""
    from apps.gpu.models import Job

    monkeypatch.setattr("aitbc.core.pages.COUNT_AT_MOST", 3)
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass('gpu_job')")
        estimate = int(cursor.fetchone()[0])
    with CaptureQueriesContext(connection) as asked:
        response = console.get(url(Job, "changelist"))

    counting = [q["sql"] for q in asked if "COUNT(*)" in q["sql"]]
    assert [sql for sql in counting if "LIMIT 4" not in sql] == []
    assert response.context["cl"].result_count == max(4, estimate)


def test_lists_show_the_figures_of_their_rows(console, scene):
    from apps.trading.models import Payment

    text = re.sub(r"<[^>]+>", "", console.get(url(Payment, "changelist")).content.decode())

    assert "0.01 AIT" in text
    assert scene.alice.user.email in text


@pytest.mark.parametrize("path", ["/admin/", "/admin/gpu/job/", "/admin/trading/payment/", "/admin/search/?s=job"])
def test_nobody_enters_without_a_login(client, db, path):
    response = client.get(path)

    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/?next=")


def test_who_is_not_staff_is_refused(visitor):
    assert visitor.get("/admin/").status_code == 302
    assert visitor.get("/admin/gpu/job/").status_code == 302


def test_the_chain_workers_tables_are_shown_only_where_their_file_is(console, scene, tmp_path, monkeypatch):
    from aitbc.chain.models import Block

    monkeypatch.setitem(connections["chain"].settings_dict, "NAME", str(tmp_path / "absent.db"))

    assert console.get(url(Block, "changelist")).status_code == 403
    assert "/admin/chain/block/" not in console.get("/admin/").content.decode()


def test_secrets_are_on_no_page(console, scene):
    """Hashes of API keys, salts of commitments, lease tokens, signed bytes of transactions."""
    from aitbc.accounts.models import ApiKey
    from aitbc.chain.models import SignedTransaction
    from apps.gpu.models import Job

    key, job, signed = (
        ApiKey.objects.first(),
        Job.objects.get(pk=scene.completed[0]),
        SignedTransaction.objects.first(),
    )
    secrets = {
        url(ApiKey, "change", key.pk): bytes(key.secret_hash).hex(),
        url(Job, "change", job.pk): bytes(job.salt).hex(),
        url(SignedTransaction, "change", signed.pk): bytes(signed.raw).hex(),
    }
    for page, secret in secrets.items():
        assert secret not in console.get(page).content.decode()
    assert str(job.lease_token) not in console.get(url(Job, "change", job.pk)).content.decode()


def test_no_page_loads_anything_from_elsewhere(console, scene, client):
    from apps.gpu.models import Job

    pages = ["/admin/", url(Job, "changelist"), url(Job, "change", scene.completed[0])]
    for reader, page in [*((console, page) for page in pages), (client, "/admin/login/")]:
        html = reader.get(page).content.decode()
        loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']([^"']+)""", html)
        assert loaded
        assert [address for address in loaded if not address.startswith(("/static/", "/admin/"))] == []


def test_a_list_ends_at_the_page_that_would_read_too_much(console, scene, monkeypatch):
    """A page far out costs the reading of every row before it; search is the way there."""
    from apps.gpu.models import Job

    monkeypatch.setattr("aitbc.core.pages.COUNT_AT_MOST", 4)
    monkeypatch.setattr(admin.site._registry[Job], "list_per_page", 2)

    assert console.get(url(Job, "changelist"), {"p": 2}).status_code == 200
    assert console.get(url(Job, "changelist"), {"p": 3}).status_code == 302
    assert Job.objects.count() > 4
