"""Reviews after deals, and scores that their events rebuild."""

from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, ProgrammingError, connections
from hypothesis import given
from hypothesis import strategies as st

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Forbidden
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT
from apps.gpu.models import Job
from apps.gpu.services.miners import DeviceClaim
from apps.gpu.tests.steps import fail, lease_of, read, refused, submit
from apps.marketplace.tasks import collect
from apps.marketplace.tests.conftest import OFFERS, price
from apps.trading.models import Payment
from apps.trading.services import escrow
from apps.trading.services.escrow import call

REVIEWS = "/v1/reputation/reviews"
GOOD = dict.fromkeys(("overall", "performance", "communication", "reliability", "value"), 5)
BAD = dict.fromkeys(GOOD, 1)


@pytest.fixture
def alice(db):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    return alice


@pytest.fixture
def mike(db):
    return cast.seller("mike", concurrency=300)


@pytest.fixture
def olga(db):
    return cast.person("olga", role="operator")


def completed(client, miner) -> UUID:
    lease = lease_of(client, miner)
    assert miner.deliver(lease, MATMUL_OUTPUT).status_code == 200
    return UUID(lease["id"])


def broken(client, miner) -> UUID:
    """A job that its only miner failed at until its attempts were used up."""
    job = submit(client)
    for _ in range(3):
        (lease,) = miner.poll()
        assert fail(miner, lease, "runtime.crashed", retryable=True).status_code == 200
    assert Job.objects.get(pk=job["id"]).state == "failed"
    return UUID(job["id"])


def review(author, deal, ratings=GOOD, **more):
    return author.post(REVIEWS, {"deal": deal, "ratings": ratings} | more)


def approved(author, deal, olga, ratings=GOOD):
    found = read(review(author, deal, ratings))
    call("review_moderate", olga.id, UUID(found["id"]), "approved")
    return found["id"]


def reputation(user):
    return read(cast.Client().get(f"/v1/reputation/{user.id}"))


def events(user):
    return [(e["cause"], e["score"]) for e in read(cast.Client().get(f"/v1/reputation/{user.id}/events"))["items"]]


def verified() -> str:
    out = StringIO()
    call_command("recompute_reputation", "--verify", stdout=out)
    return out.getvalue()


def tables():
    names = ("marketplace_review", "marketplace_reputation", "marketplace_reputation_event")
    return [db.rows(f"SELECT t::text FROM {name} t ORDER BY 1") for name in names]


# -- reviews -------------------------------------------------------------------------------------


def test_each_party_reviews_a_completed_deal_once(alice, mike, olga):
    deal = completed(alice, mike)

    found = read(review(alice, deal, text="quick", tags=["fast"]))
    by_mike = read(review(mike, deal, BAD))

    assert (found["subject"], found["state"], found["tags"], found["ratings"]) == (
        str(mike.id),
        "pending",
        ["fast"],
        GOOD,
    )
    assert by_mike["subject"] == str(alice.id)
    before = tables()
    refused(review(alice, deal), 409, "review.exists")
    refused(review(olga, deal), 403, "review.no_deal")
    refused(review(alice, uuid4()), 403, "review.no_deal")
    assert tables() == before


def test_a_failed_or_running_job_is_no_deal(alice, mike):
    failed = broken(alice, mike)
    running = lease_of(alice, mike)["id"]

    for deal in (failed, running):
        refused(review(alice, deal), 403, "review.no_deal")
    assert tables()[0] == []


def test_who_sells_to_himself_has_no_deal(mike):
    cast.fund(mike.id, AIT)
    deal = completed(mike, mike)

    refused(review(mike, deal), 403, "review.no_deal")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("ratings", {"ratings": GOOD | {"overall": 6}}),
        ("ratings", {"ratings": GOOD | {"value": 0}}),
        ("text", {"text": "x" * 1001}),
        ("tags", {"tags": ["Not a tag"]}),
    ],
)
def test_what_does_not_fit_is_named(place, change, alice, mike):
    deal = completed(alice, mike)
    problem = refused(alice.post(REVIEWS, {"deal": deal, "ratings": GOOD} | change), 422, "request.invalid")
    assert place in str(problem["errors"][0]["loc"])
    assert tables()[0] == []


def test_pending_and_rejected_reviews_never_count(alice, mike, olga):
    deal = completed(alice, mike)
    found = read(review(alice, deal))
    assert reputation(mike)["reviews"] == {"count": 0, "average": None}
    assert read(alice.get(f"{REVIEWS}?subject={mike.id}"))["items"] == []
    assert [r["id"] for r in read(alice.get(REVIEWS))["items"]] == [found["id"]]

    call("review_moderate", olga.id, UUID(found["id"]), "rejected")
    assert reputation(mike)["reviews"]["count"] == 0
    assert events(mike) == []

    call("review_moderate", olga.id, UUID(found["id"]), "approved")
    assert reputation(mike)["reviews"] == {"count": 1, "average": 5}
    call("review_moderate", olga.id, UUID(found["id"]), "rejected")
    assert reputation(mike)["reviews"]["count"] == 0
    assert reputation(mike)["parts"]["community"] == 500


def test_nobody_moderates_his_own(alice, mike):
    found = read(review(alice, completed(alice, mike)))
    for user in (alice, mike):
        with pytest.raises(Forbidden, match="own"):
            call("review_moderate", user.id, UUID(found["id"]), "approved")


def test_average_and_count_follow_an_edit_and_a_deletion_at_once(alice, mike, olga):
    parameters.change(name="review_auto_approve", value=1, by=None)
    first = read(review(alice, completed(alice, mike)))
    second = read(review(alice, completed(alice, mike), BAD))
    assert reputation(mike)["reviews"] == {"count": 2, "average": 3}

    edited = read(alice.patch(f"{REVIEWS}/{second['id']}", {"ratings": BAD | {"overall": 3}}))
    assert (edited["ratings"]["overall"], edited["text"], edited["state"]) == (3, "", "approved")
    assert reputation(mike)["reviews"] == {"count": 2, "average": 4}

    assert alice.delete(f"{REVIEWS}/{first['id']}").status_code == 200
    assert reputation(mike)["reviews"] == {"count": 1, "average": 3}
    refused(alice.delete(f"{REVIEWS}/{first['id']}"), 404, "review.unknown")
    refused(mike.patch(f"{REVIEWS}/{second['id']}", {"text": "mine"}), 404, "review.unknown")
    assert "sound" in verified()


def test_an_edit_waits_for_approval_again(alice, mike, olga):
    found = approved(alice, completed(alice, mike), olga)
    read(alice.patch(f"{REVIEWS}/{found}", {"text": "worse than I thought"}))

    assert reputation(mike)["reviews"]["count"] == 0
    assert [cause for cause, _ in events(mike)] == ["review.removed", "review.counted"]


def test_of_many_at_once_one_review_is_written(committed_db, in_threads):
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    deal = completed(alice, mike)

    statuses = in_threads(lambda _: review(alice, deal).status_code, 4)

    assert sorted(statuses) == [201, 409, 409, 409]


# -- the score -----------------------------------------------------------------------------------


def test_new_people_start_neutral(alice):
    found = reputation(alice)

    assert (found["score"], found["level"]) == (500, "intermediate")
    assert set(found["parts"].values()) == {500}
    refused(cast.Client().get(f"/v1/reputation/{uuid4()}"), 404, "reputation.unknown")


def test_a_completed_deal_moves_both_scores_by_the_formula(alice, mike):
    deal = completed(alice, mike)
    paid = Payment.objects.get(job=deal)
    waited = db.value(
        "SELECT round(extract(epoch FROM started_at - leased_at) * 1000)::float8 FROM gpu_job WHERE id = %s", (deal,)
    )

    assert collect()["noted"] == 1
    assert collect()["noted"] == 0

    found = reputation(mike)
    parts = {
        "performance": (5000 + 600 * max(0.5, 1 - max(0, waited) / 10_000)) / 11,
        "reliability": (5000 + 1000) / 11,
        "community": 500,
        "security": (5000 + 800) / 11,
        "economic": (5000 + 500 * min(2, (paid.released + paid.fee) / 10**17)) / 11,
    }
    assert found["parts"] == {name: round(value) for name, value in parts.items()}
    weights = (0.35, 0.25, 0.20, 0.10, 0.10)
    assert found["score"] == round(sum(w * p for w, p in zip(weights, parts.values(), strict=True)))
    assert found["deals"] == {"completed": 1, "failed": 0, "bought": 0, "disputes_lost": 0}
    assert reputation(alice)["deals"]["bought"] == 1
    assert reputation(alice)["parts"]["security"] == round(5800 / 11)
    assert "sound: {'scores': 2}" in verified()


def test_success_counts_once(alice, mike):
    """A failure lowers the reliability part, and no other but security."""
    broken(alice, mike)
    collect()

    found = reputation(mike)
    assert found["parts"]["reliability"] == round(5000 / 11)
    assert {found["parts"][name] for name in ("performance", "community", "economic")} == {500}
    assert found["deals"]["failed"] == 1
    assert events(mike) == [("deal.failed", found["score"])]


def test_a_lost_dispute_turns_the_deal_into_a_failure(alice, mike, olga):
    deal = completed(alice, mike)
    collect()
    payment = Payment.objects.get(job=deal)
    escrow.act("dispute", user=alice.id, payment=payment.pk, job=deal, reason="wrong")
    escrow.resolve(operator=olga.id, payment=payment.pk, refund=payment.released + payment.fee, note="it was")

    assert collect()["noted"] == 1
    assert collect()["noted"] == 0
    assert reputation(mike)["deals"] == {"completed": 0, "failed": 1, "bought": 0, "disputes_lost": 1}
    assert reputation(alice)["deals"]["disputes_lost"] == 0
    assert "sound" in verified()


def test_measured_hardware_and_reviews_weigh_in(alice, mike, olga):
    deal = completed(alice, mike)
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE gpu_device SET verified = true WHERE miner_id = %s", [mike.miner_id])
    approved(alice, deal, olga)
    collect()

    found = reputation(mike)
    assert found["parts"]["community"] == round((5000 + 0.1 * 1000) / 10.1)
    assert found["parts"]["security"] == round((5000 + 850) / 11)
    assert [cause for cause, _ in events(mike)] == ["hardware.measured", "deal.completed", "review.counted"]
    assert "sound" in verified()


def test_the_application_writes_neither_scores_nor_events_itself(committed_db):
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    completed(alice, mike)
    collect()
    before = tables()
    for change in ("UPDATE marketplace_reputation SET score = 1000", "DELETE FROM marketplace_reputation_event"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            db.rows(change)
    with connections["owner"].cursor() as cursor, pytest.raises(IntegrityError, match="stay"):
        cursor.execute("DELETE FROM marketplace_reputation_event")
    assert tables() == before


def test_a_score_that_was_tampered_with_is_found_and_put_right(committed_db):
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    completed(alice, mike)
    collect()
    honest = reputation(mike)
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE marketplace_reputation SET score = 1000, ok = 999 WHERE user_id = %s", [mike.id])
    with pytest.raises(CommandError, match=f"{mike.id}: its events make another score"):
        verified()

    call_command("recompute_reputation", stdout=StringIO())

    assert reputation(mike)["score"] == honest["score"]
    assert "sound" in verified()


def test_a_deal_that_was_never_noted_is_found(alice, mike):
    completed(alice, mike)
    collect()
    completed(alice, mike)
    Job.objects.update(finished_at=Job.objects.first().created_at.replace(year=2020))
    with pytest.raises(CommandError, match="was never noted"):
        verified()
    call_command("recompute_reputation", stdout=StringIO())
    assert "sound" in verified()


@given(ok=st.integers(0, 500), failed=st.integers(0, 500), lost=st.integers(0, 50), earned=st.integers(0, 10**21))
def test_the_score_lies_between_its_bounds_and_failures_never_raise_it(
    django_db_setup, django_db_blocker, ok, failed, lost, earned
):
    query = """SELECT (reputation_parts(
        ROW(%s::uuid, %s::int8, %s::int8, 0, %s::int8, %s::numeric, 0, NULL, 0, 0, 0, 0, 0, 0, 0, now())
        ::marketplace_reputation, now())).score"""
    with django_db_blocker.unblock():
        score, worse = (db.value(query, (uuid4(), ok, more, lost, earned)) for more in (failed, failed + 1))
    assert 0 <= worse <= score <= 1000


# -- levels, gates and the board -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "level"),
    [(0, "beginner"), (399, "beginner"), (400, "intermediate"), (599, "intermediate"), (600, "advanced"),
     (749, "advanced"), (750, "expert"), (899, "expert"), (900, "master"), (1000, "master")],
)  # fmt: skip
def test_levels_begin_at_400_600_750_and_900(score, level, alice):
    assert db.value("SELECT level FROM reputation_level(%s)", (score,)) == level


def at_score(user, score):
    """As if events had brought him there; only the owner's role can."""
    with connections["owner"].cursor() as cursor:
        cursor.execute(
            """INSERT INTO marketplace_reputation (user_id, score, computed_at) VALUES (%s, %s, now())
               ON CONFLICT (user_id) DO UPDATE SET score = excluded.score""",
            [user.id, score],
        )


def test_a_masters_lease_fixes_the_discounted_fee(committed_db):
    alice, mike, nora = cast.person("alice"), cast.seller("mike"), cast.seller("nora")
    cast.fund(alice.id, AIT)
    at_score(mike, 900)

    master, plain = completed(alice, mike), completed(alice, nora)

    assert Job.objects.get(pk=master).fee_bps == 200
    assert Job.objects.get(pk=plain).fee_bps == 250


def test_a_level_limits_the_jobs_that_a_miner_holds(committed_db):
    alice, mike = cast.person("alice"), cast.seller("mike", concurrency=40)
    cast.fund(alice.id, AIT)
    for _ in range(20):
        submit(alice)
    at_score(mike, 399)
    assert len(mike.claim(20)) == 16
    at_score(mike, 900)
    assert len(mike.claim(20)) == 4


def test_who_is_below_the_limit_cannot_list_an_offer(committed_db):
    device = DeviceClaim(uuid="GPU-1", kind="cuda", model="NVIDIA H200", memory_mb=1000)
    mike = cast.seller("mike", device=device)
    at_score(mike, 499)

    problem = refused(mike.post(OFFERS, {"price": price("0.001")}), 403, "reputation.too_low")
    assert "is 499" in problem["detail"]
    assert "at least 500" in problem["detail"]
    assert db.value("SELECT count(*) FROM marketplace_offer") == 0

    parameters.change(name="reputation_to_sell", value=499, by=None)
    assert mike.post(OFFERS, {"price": price("0.001")}).status_code == 201


def test_only_what_is_expensive_takes_a_score_to_buy(committed_db):
    alice = cast.person("alice")
    at_score(alice, 299)
    call("reputation_require", alice.id, "buy", 100 * AIT - 1)
    with pytest.raises(Forbidden, match="too_low"):
        call("reputation_require", alice.id, "buy", 100 * AIT)


def test_the_board_pages_without_gaps_and_shows_allowed_columns_only(committed_db):
    people = [cast.person(f"p{n}") for n in range(5)]
    for person, score in zip(people, (700, 900, 700, 100, 700), strict=True):
        at_score(person, score)

    seen, cursor = [], ""
    while cursor is not None:
        page = read(cast.Client().get(f"/v1/reputation/leaderboard?limit=2{cursor and '&cursor=' + cursor}"))
        seen += page["items"]
        cursor = page["next"]

    assert [row["score"] for row in seen] == [900, 700, 700, 700, 100]
    assert len({row["user"] for row in seen}) == 5
    assert set(seen[0]) == {"user", "score", "level", "completed"}
    refused(cast.Client().get("/v1/reputation/leaderboard?by=email"), 422, "request.invalid")
