"""Submitting: escrow and queue or neither; every refusal names its reason and writes nothing."""

import hashlib

import pytest
from django.db import connection

from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import MATMUL, job_body
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.models import Job, QueuedJob
from apps.gpu.tests.steps import pass_time, read, refused, submit
from apps.trading.models import Payment
from apps.trading.services.audit import audit


def balance(client):
    (account,) = [a for a in read(client.get("/v1/accounts"))["items"] if a["asset"] == "AIT"]
    return account["available"], account["held"]


def upload(client, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    response = client.put(f"/v1/artifacts/{sha256}", content)
    assert response.status_code == 201, response.content
    return sha256


def test_a_job_is_queued_with_its_escrow(alice):
    job = submit(alice, max_price={"amount": "0.25", "asset": "AIT"}, ttl_seconds=60, priority=3)

    assert (job["state"], job["attempts"], job["priority"], job["miner_id"]) == ("queued", 0, 3, None)
    assert job["error"] is None
    amounts = {name: job["payment"][name]["amount"] for name in ("held", "released", "refunded", "fee")}
    assert amounts == {"held": "0.25", "released": "0", "refunded": "0", "fee": "0"}
    assert job["payment"]["state"] == "escrowed"
    assert balance(alice) == ("0.75", "0.25")
    stored = Job.objects.get()
    assert (stored.expires_at - stored.created_at).total_seconds() == 60
    assert QueuedJob.objects.get().job_id == stored.pk
    assert audit() == []


def test_without_money_nothing_is_written(alice):
    before = snapshot()

    response = alice.post("/v1/jobs", job_body(max_price={"amount": "1.000000000000000001"}))

    refused(response, 409, "payment.insufficient_funds")
    assert snapshot() == before


def test_money_in_escrow_cannot_be_spent_again(alice):
    submit(alice, max_price={"amount": "0.6"})
    before = snapshot()

    refused(alice.post("/v1/jobs", job_body(max_price={"amount": "0.5"})), 409, "payment.insufficient_funds")

    assert snapshot() == before


def test_who_never_had_an_account_is_refused_like_anyone_without_money(db):
    bob = cast.person("bob")

    refused(bob.post("/v1/jobs", job_body()), 409, "payment.insufficient_funds")

    assert (Job.objects.count(), Payment.objects.count(), QueuedJob.objects.count()) == (0, 0, 0)


def test_an_unknown_kind_is_named(alice):
    before = snapshot()

    problem = refused(alice.post("/v1/jobs", job_body(kind="llm.dream")), 422, "job.unknown_kind")

    assert problem["errors"][0]["loc"] == ["body", "kind"]
    assert snapshot() == before


@pytest.mark.parametrize(
    ("given", "loc"),
    [
        (MATMUL | {"n": "8"}, ["body", "input", "n"]),
        (MATMUL | {"n": 0}, ["body", "input", "n"]),
        (MATMUL | {"seed": -1}, ["body", "input", "seed"]),
        (MATMUL | {"seed": 1.5}, ["body", "input", "seed"]),
        (MATMUL | {"dtype": "float64"}, ["body", "input", "dtype"]),
        (MATMUL | {"surplus": 1}, ["body", "input"]),
        ({"n": 8}, ["body", "input"]),
    ],
)
def test_an_input_against_the_schema_names_the_field(alice, given, loc):
    before = snapshot()

    problem = refused(alice.post("/v1/jobs", job_body(input=given)), 422, "job.invalid_input")

    assert loc in [error["loc"] for error in problem["errors"]]
    assert all(error["msg"] for error in problem["errors"])
    assert snapshot() == before


def test_an_input_that_no_miner_could_commit_to_is_refused(alice, artifacts_dir):
    model = upload(alice, b"model")
    tensor = {"dtype": "int64", "shape": [1], "data": [2**53 + 1]}
    before = snapshot()

    response = alice.post("/v1/jobs", job_body(kind="onnx.infer", input={"model": model, "inputs": {"x": tensor}}))

    assert refused(response, 422, "request.invalid")["errors"][0]["loc"] == ["body", "input"]
    assert snapshot() == before


@pytest.mark.parametrize(
    "amount",
    [
        "0",
        "0.0",
        "-1",
        "+1",
        "1e3",
        "1,5",
        " 1",
        "",
        ".5",
        "1.",
        "01",
        "NaN",
        "0.0000000000000000001",
        "9" * 21,
        "\u0661",
    ],
)
def test_a_malformed_amount_is_refused_with_its_place(alice, amount):
    before = snapshot()

    problem = refused(alice.post("/v1/jobs", job_body(max_price={"amount": amount})), 422, "request.invalid")

    (error,) = problem["errors"]
    assert error["loc"][:2] == ["body", "max_price"]
    assert snapshot() == before


@pytest.mark.parametrize("price", [{"amount": 1}, {"amount": "1", "asset": "BTC"}, {"amount": "1", "x": 1}, "1", None])
def test_an_amount_of_another_shape_is_refused(alice, price):
    before = snapshot()

    refused(alice.post("/v1/jobs", job_body(max_price=price)), 422, "request.invalid")

    assert snapshot() == before


@pytest.mark.parametrize(
    "change",
    [
        {"ttl_seconds": 0},
        {"ttl_seconds": 604_801},
        {"priority": -1},
        {"priority": 11},
        {"id": "7d444840-9dc0-11d1-b245-5ffdce74fad2"},
        {"id": "no"},
        {"surplus": True},
        {"input": None},
        {"input_artifact": "ab" * 32},
        {"input_artifact": "AB" * 32, "input": None},
        {"constraints": {"cuda": "12.x"}},
        {"constraints": {"min_vram_gb": 0}},
        {"constraints": {"gpu_model": ""}},
    ],
)
def test_a_body_of_another_shape_is_refused(alice, change):
    before = snapshot()

    problem = refused(alice.post("/v1/jobs", job_body(**change)), 422, "request.invalid")

    assert problem["errors"][0]["loc"][0] == "body"
    assert problem["errors"][0]["loc"].count("body") == 1
    assert snapshot() == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "http.malformed"),
        (b"[]", 422, "request.invalid"),
        (b'{"kind": "\xff"}', 400, "http.malformed"),
        (b'{"kind": "a", "input": {"x": "\\u0000"}}', 422, "request.null_character"),
        (b'{"kind": "a", "input": ' + b"[" * 70 + b"]" * 70 + b"}", 422, "request.too_deep"),
        (b'{"kind": "a", "input": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}", 422, "request.too_deep"),
    ],
)
def test_json_that_cannot_be_kept_is_refused(alice, body, status, code):
    before = snapshot()

    refused(alice.post("/v1/jobs", body), status, code)

    assert snapshot() == before


@pytest.mark.parametrize(("header", "status"), [(None, 401), ("Bearer nonsense", 401), ("Basic eA==", 401)])
def test_a_caller_without_a_key_is_refused(alice, header, status):
    from django.test import Client

    extra = {} if header is None else {"HTTP_AUTHORIZATION": header}
    response = Client().post("/v1/jobs", job_body(), content_type="application/json", **extra)

    assert response.status_code == status
    assert response["WWW-Authenticate"] == "Bearer"
    assert Job.objects.count() == 0


def test_a_key_without_the_scope_is_refused(db):
    reader = cast.person("reader", scopes=("jobs:read",))

    assert refused(reader.post("/v1/jobs", job_body()), 403, "auth.scope")["scope"] == "jobs:write"


# -- ids and idempotency keys --------------------------------------------------------------------
def test_the_same_id_and_content_is_the_existing_job(alice):
    job_id = str(uuid7())
    first = submit(alice, id=job_id)
    before = snapshot()

    again = alice.post("/v1/jobs", job_body(id=job_id, max_price={"amount": "0.010"}))

    assert again.status_code == 200
    assert read(again) == first
    assert snapshot() == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "text.embed", "input": {"texts": ["a"]}}, "kind"),
        ({"input": MATMUL | {"seed": 2}}, "input"),
        ({"max_price": {"amount": "0.02"}}, "max_price"),
        ({"ttl_seconds": 901}, "ttl_seconds"),
        ({"priority": 1}, "priority"),
        ({"constraints": {"region": "eu"}}, "constraints"),
        ({"constraints": {"models": ["a"]}}, "constraints"),
    ],
)
def test_the_same_id_with_other_content_names_the_field(alice, change, field):
    job_id = str(uuid7())
    submit(alice, id=job_id)
    before = snapshot("gpu_job_class")

    problem = refused(alice.post("/v1/jobs", job_body(**{"id": job_id} | change)), 409, "job.exists")

    assert problem["field"] == field
    assert snapshot("gpu_job_class") == before


def test_an_id_of_another_client_tells_nothing_of_his_job(alice, mallory):
    job = submit(alice, input=MATMUL | {"seed": 77})
    before = snapshot()

    same = mallory.post("/v1/jobs", job_body(id=job["id"], input=MATMUL | {"seed": 77}))
    other = mallory.post("/v1/jobs", job_body(id=job["id"]))

    answers = [refused(response, 409, "job.exists") for response in (same, other)]
    assert [answer["field"] for answer in answers] == ["id", "id"]
    assert answers[0]["detail"] == answers[1]["detail"]
    assert snapshot() == before


def test_an_idempotency_key_replays_its_answer(alice):
    first = alice.post("/v1/jobs", job_body(), idempotency_key="order 1")
    before = snapshot()

    again = alice.post("/v1/jobs", job_body(), idempotency_key="order 1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again["Idempotency-Replayed"] == "true"
    assert not first.has_header("Idempotency-Replayed")
    assert read(again) == read(first)
    assert snapshot() == before
    assert Job.objects.count() == 1


def test_an_idempotency_key_with_another_body_is_refused(alice):
    alice.post("/v1/jobs", job_body(), idempotency_key="order 1")
    before = snapshot()

    response = alice.post("/v1/jobs", job_body(priority=1), idempotency_key="order 1")

    refused(response, 422, "idempotency.mismatch")
    assert snapshot() == before


def test_idempotency_keys_belong_to_their_user(alice, mallory):
    first = alice.post("/v1/jobs", job_body(), idempotency_key="order 1")
    second = mallory.post("/v1/jobs", job_body(), idempotency_key="order 1")

    assert second.status_code == 201
    assert read(second)["id"] != read(first)["id"]


def test_a_refusal_does_not_use_up_its_idempotency_key(alice):
    refused(
        alice.post("/v1/jobs", job_body(max_price={"amount": "5"}), idempotency_key="k"),
        409,
        "payment.insufficient_funds",
    )
    cast.fund(alice.id, 5 * cast.AIT)

    response = alice.post("/v1/jobs", job_body(max_price={"amount": "5"}), idempotency_key="k")

    assert response.status_code == 201
    assert not response.has_header("Idempotency-Replayed")


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
def test_a_malformed_idempotency_key_is_refused(alice, key):
    refused(alice.post("/v1/jobs", job_body(), idempotency_key=key), 422, "idempotency.key")

    assert Job.objects.count() == 0


def test_a_request_under_way_with_the_same_key_is_a_conflict(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, cast.AIT)
    name = f"{alice.id} jobs.submit twice"
    with connection.cursor() as cursor:  # another request that holds the key, on a connection of its own
        cursor.execute("SELECT pg_advisory_lock(hashtextextended(%s, 27))", (name,))
        try:
            (response,) = in_threads(lambda _: alice.post("/v1/jobs", job_body(), idempotency_key="twice"), 1)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 27))", (name,))

    refused(response, 409, "idempotency.in_flight")
    assert Job.objects.count() == 0
    assert alice.post("/v1/jobs", job_body(), idempotency_key="twice").status_code == 201


def test_one_id_submitted_eight_times_at_once_is_one_job(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, cast.AIT)
    body = job_body(id=str(uuid7()))

    answers = in_threads(lambda _: alice.post("/v1/jobs", body), 8)

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert (Job.objects.count(), QueuedJob.objects.count(), Payment.objects.count()) == (1, 1, 1)
    assert balance(alice) == ("0.99", "0.01")
    assert audit() == []


def test_two_submissions_cannot_spend_the_same_money(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, cast.AIT)

    answers = in_threads(lambda _: alice.post("/v1/jobs", job_body(max_price={"amount": "0.3"})), 8)

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
    assert Job.objects.count() == 3
    assert balance(alice) == ("0.1", "0.9")
    assert audit() == []


# -- batches -------------------------------------------------------------------------------------
def batch(client, *jobs):
    response = client.post("/v1/jobs/batch", {"jobs": list(jobs)})
    assert response.status_code == 207, response.content
    return read(response)["items"]


def item(**changes):
    return job_body(**{"id": str(uuid7())} | changes)


def test_one_bad_item_does_not_sink_the_others(alice):
    good, also_good = item(), item(max_price={"amount": "0.5"})
    without_id = job_body()
    answers = batch(
        alice, good, item(kind="no.such"), without_id, item(max_price={"amount": "2"}), {"kind": 5}, also_good
    )

    assert [answer["status"] for answer in answers] == [201, 422, 422, 409, 422, 201]
    assert [answer.get("problem", {}).get("code") for answer in answers] == [
        None,
        "job.unknown_kind",
        "request.invalid",
        "payment.insufficient_funds",
        "request.invalid",
        None,
    ]
    assert answers[2]["problem"]["errors"][0]["loc"][-1] == "id"
    assert [answers[0]["job"]["id"], answers[5]["job"]["id"]] == [good["id"], also_good["id"]]
    assert Job.objects.count() == 2
    assert balance(alice) == ("0.49", "0.51")
    assert audit() == []


def test_a_batch_sent_twice_is_one_batch(alice):
    jobs = [item(), item()]
    first = batch(alice, *jobs)
    before = snapshot()

    again = batch(alice, *jobs)

    assert [answer["status"] for answer in again] == [200, 200]
    assert [answer["job"] for answer in again] == [answer["job"] for answer in first]
    assert snapshot() == before


def test_an_id_twice_in_a_batch_is_one_job_and_other_content_is_refused(alice):
    job = item()

    answers = batch(alice, job, job, job | {"priority": 2})

    assert [answer["status"] for answer in answers] == [201, 200, 409]
    assert answers[1]["job"]["id"] == job["id"]
    assert (answers[2]["problem"]["code"], answers[2]["problem"]["field"]) == ("job.exists", "priority")
    assert Job.objects.count() == 1


def test_an_item_that_repeats_a_refused_one_is_refused_alike(alice):
    job = item(max_price={"amount": "7"})

    answers = batch(alice, job, job)

    assert [answer["status"] for answer in answers] == [409, 409]
    assert {answer["problem"]["code"] for answer in answers} == {"payment.insufficient_funds"}
    assert Job.objects.count() == 0


def test_another_clients_id_in_a_batch_does_not_leak(alice, mallory):
    job = submit(alice)

    (answer,) = batch(mallory, item(id=job["id"]))

    assert answer["status"] == 409
    assert "job" not in answer
    assert answer["problem"]["field"] == "id"


@pytest.mark.parametrize("jobs", [[], [{}] * 101])
def test_a_batch_has_one_to_a_hundred_items(alice, jobs):
    refused(alice.post("/v1/jobs/batch", {"jobs": jobs}), 422, "request.invalid")


def test_money_runs_out_within_a_batch(alice):
    answers = batch(alice, *(item(max_price={"amount": "0.4"}) for _ in range(4)))

    assert [answer["status"] for answer in answers] == [201, 201, 409, 409]
    assert balance(alice) == ("0.2", "0.8")


# -- input as an artifact ------------------------------------------------------------------------
def test_an_input_may_be_an_artifact(alice, artifacts_dir):
    sha256 = upload(alice, b'{"n": 8, "seed": 1, "dtype": "float32"}')

    job = submit(alice, input=None, input_artifact=sha256)

    stored = Job.objects.get(pk=job["id"])
    assert (stored.input, stored.input_artifact, stored.artifacts) == (None, "0x" + sha256, [sha256])


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's"])
def test_an_artifact_must_be_the_clients_own(alice, mallory, artifacts_dir, whose):
    sha256 = hashlib.sha256(b"secret").hexdigest()
    if whose == "a stranger's":
        upload(mallory, b"secret")
    before = snapshot()

    as_input = alice.post("/v1/jobs", job_body(input=None, input_artifact=sha256))
    as_model = alice.post("/v1/jobs", job_body(kind="onnx.infer", input={"model": sha256, "inputs": {}}))

    for response in (as_input, as_model):
        assert refused(response, 404, "artifact.unknown")["artifact"] == sha256
    assert snapshot() == before


def test_an_image_inside_the_input_is_no_artifact(alice):
    job = submit(alice, kind="vision.ocr", input={"image": "aGFs" * 30})

    assert Job.objects.get(pk=job["id"]).artifacts == []


# -- what clients read ---------------------------------------------------------------------------
def test_a_client_sees_only_its_own_jobs(alice, mallory):
    job = submit(alice)

    refused(mallory.get(f"/v1/jobs/{job['id']}"), 404, "job.unknown")
    refused(mallory.get(f"/v1/jobs/{job['id']}/result"), 404, "job.unknown")
    refused(mallory.get(f"/v1/jobs/{job['id']}/receipt"), 404, "receipt.unknown")
    refused(mallory.post(f"/v1/jobs/{job['id']}/cancel"), 404, "job.unknown")
    assert read(mallory.get("/v1/jobs"))["items"] == []
    assert read(alice.get(f"/v1/jobs/{job['id']}"))["state"] == "queued"


def test_a_result_is_not_ready_until_the_job_is_final(alice):
    job = submit(alice)

    response = alice.get(f"/v1/jobs/{job['id']}/result")

    refused(response, 425, "job.not_ready")
    assert response["Retry-After"] == "1"


def test_jobs_are_listed_newest_first_with_filters_and_pages(alice):
    old, middle, new = (submit(alice, input=MATMUL | {"seed": seed})["id"] for seed in (1, 2, 3))
    pass_time(old, 3600)
    alice.post(f"/v1/jobs/{middle}/cancel")

    def ids(query=""):
        return [job["id"] for job in read(alice.get(f"/v1/jobs{query}"))["items"]]

    created = Job.objects.get(pk=middle).created_at.isoformat().replace("+00:00", "Z")
    assert ids() == [new, middle, old]
    assert ids("?state=canceled") == [middle]
    assert ids("?kind=bench.matmul&state=queued") == [new, old]
    assert ids("?kind=text.embed") == []
    assert ids(f"?created_before={created}") == [old]
    assert ids(f"?created_after={created}") == [new]
    page = read(alice.get("/v1/jobs?limit=2"))
    assert [job["id"] for job in page["items"]] == [new, middle]
    assert ids(f"?limit=2&cursor={page['next']}") == [old]
    assert read(alice.get(f"/v1/jobs?limit=2&cursor={page['next']}"))["next"] is None


@pytest.mark.parametrize("query", ["state=done", "limit=0", "limit=201", "created_after=yesterday", "cursor=nonsense"])
def test_a_malformed_query_is_refused(alice, query):
    assert alice.get(f"/v1/jobs?{query}").status_code == 422


def test_an_input_over_the_inline_limit_must_be_an_artifact(alice):
    before = snapshot()
    texts = ["x" * 8000] * 150

    problem = refused(
        alice.post("/v1/jobs", job_body(kind="text.embed", input={"texts": texts})), 422, "request.invalid"
    )

    assert problem["errors"][0]["loc"] == ["body", "input"]
    assert "input_artifact" in problem["detail"]
    assert snapshot() == before
