"""Actions call the services of the API; what these refuse is shown, and changes nothing."""

from uuid import uuid4

import pytest
from celery import current_app
from django.contrib.auth.models import Permission
from django.urls import reverse

from aitbc.accounts.models import ApiKey, User
from aitbc.core import money
from aitbc.core.models import DeadTask
from apps.gpu.models import Job, Miner
from apps.marketplace.models import Offer, OfferTransition
from apps.trading.models import Payment
from apps.trading.services import escrow

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def url(model, page, *args):
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def run(console, model, action, *rows):
    """The action of a list on some of its rows -> what the next page says."""
    chosen = {"action": action, "_selected_action": [str(row) for row in rows]}
    response = console.post(url(model, "changelist"), chosen, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def run_on_page(console, model, action, row, **fields):
    """The action of a row's page: first its dialog, then the confirmation."""
    path = url(model, action, row)
    assert console.get(path).status_code == 200
    return console.post(path, {"_form_submitted": "True"} | fields)


@pytest.fixture
def sent(monkeypatch):
    sent = []
    monkeypatch.setattr(current_app, "send_task", lambda *args, **kwargs: sent.append((args, kwargs)))
    return sent


def test_an_operator_cancels_a_waiting_job(console, scene):
    assert run(console, Job, "cancel", scene.queued[0]) == ["Jobs canceled: 1"]

    assert Job.objects.get(pk=scene.queued[0]).state == "canceled"
    payment = Payment.objects.get(job=scene.queued[0])
    assert (payment.state, payment.refunded) == ("refunded", payment.held)


def test_a_job_that_is_over_cannot_be_canceled(console, scene):
    done = scene.completed[0]
    messages = run(console, Job, "cancel", done, scene.queued[0])

    assert messages == [f"bench.matmul {done}: the job is over already (job.final)", "Jobs canceled: 1"]
    assert Job.objects.get(pk=done).state == "completed"


def test_a_job_is_canceled_from_its_own_page(console, scene):
    response = run_on_page(console, Job, "cancel_this", scene.queued[1])

    assert (response.status_code, response["HX-Redirect"]) == (204, url(Job, "change", scene.queued[1]))
    assert Job.objects.get(pk=scene.queued[1]).state == "canceled"


def test_a_page_offers_only_what_its_row_allows(console, scene):
    def offered(model, row, action):
        return url(model, action, row) in console.get(url(model, "change", row)).content.decode()

    assert offered(Job, scene.queued[0], "cancel_this")
    assert not offered(Job, scene.completed[0], "cancel_this")
    assert offered(Miner, scene.mike.miner_id, "drain_this")
    assert not offered(Miner, scene.mike.miner_id, "resume_this")


def test_an_action_never_runs_on_a_mere_visit(console, scene):
    for _ in range(2):
        console.get(url(Job, "cancel_this", scene.queued[0]))

    assert Job.objects.get(pk=scene.queued[0]).state == "queued"


def test_an_action_on_a_row_that_is_not_there_is_404(console, scene):
    assert console.post(url(Job, "cancel_this", uuid4()), {"_form_submitted": "True"}).status_code == 404
    assert console.post(url(Job, "cancel_this", "nonsense"), {"_form_submitted": "True"}).status_code == 404


def test_a_miner_is_drained_suspended_and_resumed(console, scene):
    miner = Miner.objects.get(pk=scene.mike.miner_id)
    states = []
    for action in ("drain", "suspend", "resume"):
        run(console, Miner, action, miner.pk)
        miner.refresh_from_db()
        states.append(miner.state)

    assert states == ["draining", "suspended", "suspect"]


def disputed(scene):
    job = scene.completed[0]
    payment = Payment.objects.get(job=job)
    escrow.act("dispute", user=scene.alice.id, payment=payment.pk, job=job, reason="wrong output")
    return payment


def test_a_dispute_is_split_on_the_payments_page(console, scene, operator):
    payment = disputed(scene)
    page = console.get(url(Payment, "change", payment.pk)).content.decode()
    assert url(Payment, "resolve_this", payment.pk) in page
    assert "wrong output" in page
    cost = money.show(payment.released + payment.fee, 18)

    response = run_on_page(console, Payment, "resolve_this", payment.pk, refund=cost, note="it was")

    assert (response.status_code, response["HX-Redirect"]) == (204, url(Payment, "change", payment.pk))
    payment.refresh_from_db()
    assert (payment.state, payment.refunded) == ("refunded", payment.held)
    page = console.get(url(Payment, "change", payment.pk)).content.decode()
    assert "it was" in page
    assert url(Payment, "resolve_this", payment.pk) not in page


@pytest.mark.parametrize("refund", ["1", "-1", "much"])
def test_an_impossible_split_is_said_and_changes_nothing(refund, console, scene):
    payment = disputed(scene)
    run_on_page(console, Payment, "resolve_this", payment.pk, refund=refund, note="n")
    (message,) = [str(message) for message in console.get(url(Payment, "changelist")).context["messages"]]
    assert "(payment.amount)" in message or "(money.amount)" in message
    payment.refresh_from_db()
    assert payment.state == "disputed"


def test_what_a_miner_cannot_become_is_said(console, scene):
    miner = Miner.objects.get(pk=scene.mike.miner_id)

    assert run(console, Miner, "resume", miner.pk) == ["mike: a miner that is online cannot be resumed (miner.state)"]
    miner.refresh_from_db()
    assert miner.state == "online"


def test_a_key_is_revoked_and_stops_working(console, scene):
    assert scene.alice.get("/v1/jobs").status_code == 200

    key = ApiKey.objects.get(user=scene.alice.user)
    assert run(console, ApiKey, "revoke", key.pk) == ["Keys revoked: 1"]

    assert scene.alice.get("/v1/jobs").status_code == 401


def test_a_dead_task_is_sent_again_once(console, scene, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        first = run(console, DeadTask, "send_again", scene.dead.pk)
    with django_capture_on_commit_callbacks(execute=True):
        second = run(console, DeadTask, "send_again", scene.dead.pk)

    assert first == ["Tasks sent again: 1"]
    assert second == [f"{scene.dead}: this task was sent again already (dead_task.requeued)"]
    assert sent == [(("trading.mature", [], {"limit": 10}), {"queue": "settlement"})]


def test_an_offer_is_suspended_with_its_reason_and_listed_again(console, scene, operator):
    offer = Offer.objects.get(miner_id=scene.mike.miner_id)
    run_on_page(console, Offer, "suspend_this", offer.pk, note="sold twice")
    offer.refresh_from_db()
    suspended = offer.state
    run_on_page(console, Offer, "lift_this", offer.pk)
    offer.refresh_from_db()

    assert (suspended, offer.state) == ("suspended", "listed")
    log = list(OfferTransition.objects.filter(offer=offer, by=operator).order_by("id").values_list("after", "note"))
    assert log == [("suspended", "sold twice"), ("listed", "")]


def test_suspending_an_offer_needs_a_reason(console, scene):
    offer = Offer.objects.get(miner_id=scene.mike.miner_id)
    response = run_on_page(console, Offer, "suspend_this", offer.pk, note="")

    offer.refresh_from_db()
    assert (response.status_code, offer.state) == (200, "listed")
    assert "This field is required." in response.content.decode()


def test_who_may_only_look_may_not_act(client, scene):
    auditor = User.objects.create_user("auditor@example.com", is_staff=True)
    auditor.user_permissions.set(Permission.objects.filter(codename="view_job"))
    client.force_login(auditor)
    job = scene.queued[0]

    assert client.get(url(Job, "change", job)).status_code == 200
    assert client.post(url(Job, "cancel_this", job), {"_form_submitted": "True"}).status_code == 403
    client.post(url(Job, "changelist"), {"action": "cancel", "_selected_action": [str(job)]})
    assert Job.objects.get(pk=job).state == "queued"
    assert client.get(url(Miner, "changelist")).status_code == 403


def test_what_an_operator_did_is_in_the_history_of_the_row(console, scene, operator):
    from django.contrib.admin.models import LogEntry

    run(console, Job, "cancel", scene.queued[0], scene.completed[0])

    (entry,) = LogEntry.objects.all()
    assert (entry.user, entry.object_id, entry.change_message) == (operator, str(scene.queued[0]), "Jobs canceled")
    assert "Jobs canceled" in console.get(url(Job, "history", scene.queued[0])).content.decode()
