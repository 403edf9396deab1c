"""Both APIs against their own documents: whatever is sent, the answers are documented ones.

A bounded run in process, on the real stores. Ids that exist are mixed in, so that more than the 404s is
reached. `SCHEMATHESIS_SEED` and `SCHEMATHESIS_EXAMPLES` make another or a longer run.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import hypothesis
import orjson
import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT, job_body
from apps.gpu.models import Challenge, Device, Miner, QueuedJob
from apps.gpu.services import challenges, health, uploads
from apps.marketplace.tests.tenders import tender
from apps.trading.services import streams

pytestmark = [
    pytest.mark.filterwarnings("ignore::schemathesis.errors.SchemathesisWarning")
    if hasattr(schemathesis.errors, "SchemathesisWarning")
    else pytest.mark.filterwarnings("ignore::UserWarning:schemathesis.*"),
    pytest.mark.timeout(300),
]
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "2026"))
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))
PROBLEM_JSON = "application/problem+json"
load_all_checks()
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
CONFORMANCE = CHECKS.get_by_names(
    ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)


# What a generated job keeps when its input is made to fit a kind.
_KEPT = ("constraints", "priority", "ttl_seconds")


class World:
    """One user with every scope who buys and sells, and things of hers in every state."""

    def __init__(self) -> None:
        self.miner = cast.seller("walter", concurrency=1000, kinds=("bench.matmul", "text.embed"))
        cast.fund(self.miner.id, 1000 * AIT)
        payee = cast.person("payee")
        self.payee = payee.id
        cast.fund(payee.id, AIT)
        self.credentials: dict[str, Any] = {"headers": {"Authorization": f"Bearer {self.miner.token}"}}
        hook = self.miner.post("/v1/webhooks", {"url": "https://example.com/hook"})
        webhooks = [orjson.loads(hook.content)["id"]]
        self.ids: dict[str, list[str]] = {"challenge_id": self._challenges(), "webhook_id": webhooks}
        self.ids["auction_id"] = [tender(payee, sealed=sealed)["id"] for sealed in (False, True)]
        self.tokens: dict[str, str] = {}
        self.turn = 0

    def _challenges(self) -> list[str]:
        challenges.issue_missing(Miner.objects.get(pk=self.miner.miner_id))
        return [str(pk) for pk in Challenge.objects.values_list("pk", flat=True)]

    def jobs(self) -> list[str]:
        """A queued, a leased and a completed job, fresh for each operation; the miner as it was at first."""
        Miner.objects.update(
            kinds=["bench.matmul", "text.embed"], price=10**15, concurrency=1000, state="online", region="eu"
        )
        submitted = [orjson.loads(self.miner.post("/v1/jobs", job_body()).content) for _ in range(3)]
        QueuedJob.objects.exclude(job__in=[job["id"] for job in submitted]).delete()
        leases = self.miner.poll(max_jobs=2)
        assert len(leases) == 2
        assert self.miner.deliver(leases[0], MATMUL_OUTPUT).status_code == 200
        self.tokens |= {lease["id"]: lease["lease_token"] for lease in leases}
        terms = {"owner": self.miner.id, "payees": {self.payee: 10**12}, "deposit": AIT // 1000}
        self.ids["stream_id"] = [orjson.loads(streams.open_stream(**terms))["id"] for _ in range(2)]
        self.ids["payment_id"] = [job["payment"]["id"] for job in submitted]
        self.ids["upload_id"] = [
            orjson.loads(uploads.open_upload(owner=self.miner.id, sha256="ab" * 32, size=100))["id"] for _ in range(2)
        ]
        self.ids["device_id"] = [str(pk) for pk in Device.objects.values_list("pk", flat=True)]
        self.ids["job_id"] = [lease["id"] for lease in leases] + [job["id"] for job in submitted]
        return self.ids["job_id"]

    def place(self, case: Case) -> None:
        """Mostly the right key; every second time an id that exists; never a wait longer than a moment."""
        self.turn += 1
        body = case.body if isinstance(case.body, dict) else {}
        if self.turn % 10:
            case.headers.update(self.credentials["headers"])
        if self.turn % 2:
            if case.operation.path == "/v1/jobs" and body:
                case.body = body = {**job_body(), **{k: v for k, v in body.items() if k in _KEPT}}
            if isinstance(body.get("jobs"), list) and self.turn % 4 == 1:
                body["jobs"].append(job_body(id=str(uuid7())))
            for name in case.path_parameters or {}:
                if known := self.ids.get(name):
                    case.path_parameters[name] = known[self.turn % len(known)]
            job = (case.path_parameters or {}).get("job_id") or self.ids["job_id"][0]
            if "lease_token" in body and job in self.tokens:
                body["lease_token"] = self.tokens[job]
            if "sha256" in (case.path_parameters or {}) and isinstance(case.body, bytes):
                case.path_parameters["sha256"] = hashlib.sha256(case.body).hexdigest()
        if isinstance(body.get("wait_seconds"), int | float) and 0 < body["wait_seconds"] <= 30:
            body["wait_seconds"] = 0.01


def load(path: str) -> Any:
    """The document as published, less its security: who is who is not what is explored here, and the
    generator would spend most requests on malformed credentials."""
    application = get_wsgi_application()
    document = orjson.loads(Client().get(path).content)
    document["components"].pop("securitySchemes", None)
    for item in document["paths"].values():
        for operation in item.values():
            operation.pop("security", None)
    schema = schemathesis.openapi.from_dict(document)
    schema.app = application
    schema.location = path
    return schema


def operations(schema: Any) -> Iterator[Any]:
    """All of them; what ends the miner comes last."""
    found = [result.ok() for result in schema.get_all_operations()]
    yield from sorted(found, key=lambda one: (one.method.upper() == "DELETE", one.path, one.method))


def judge(case: Case, response: Any) -> None:
    """No 500 or 502; 503 only where documented and with its code; every error is a problem document."""
    content, status = bytes(response.content), response.status_code
    media = response.headers.get("content-type", [""])[0]
    assert status < 500 or status == 503, content
    if status >= 400:
        problem = orjson.loads(content)
        assert media == PROBLEM_JSON, media
        assert problem["status"] == status
        assert problem["code"]
        assert problem["code"] != "internal.error"
        assert problem["request_id"]
    case.validate_response(response, checks=list(CONFORMANCE))


def explore(operation: Any, mode: GenerationMode, world: World, seen: Counter[int]) -> None:
    """Up to EXAMPLES requests of one operation, the same ones for the same seed."""

    @hypothesis.seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Case) -> None:
        world.place(case)
        response = case.call(cookies=world.credentials.get("cookies"))
        seen[response.status_code] += 1
        judge(case, response)

    attempt()


def run(schema: Any, world: World, capsys: Any) -> Counter[int]:
    total: Counter[int] = Counter()
    failures = []
    for operation in operations(schema):
        if "_id}" in operation.path or "job_id" not in world.ids:
            world.jobs()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            seen: Counter[int] = Counter()
            try:
                explore(operation, mode, world, seen)
            except hypothesis.errors.Unsatisfiable:
                continue  # an operation without input has no malformed one
            except (AssertionError, schemathesis.core.failures.FailureGroup, ExceptionGroup) as error:
                failures.append(f"{operation.method.upper()} {operation.path} [{mode.value}]\n{_reason(error)}")
            total += seen
    with capsys.disabled():
        sys.stdout.write(f"\nschemathesis: seed {SEED}, {total.total()} requests, {dict(sorted(total.items()))}\n")
    assert not failures, f"seed {SEED}\n\n" + "\n\n".join(failures)
    return total


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(_reason(inner) for inner in error.exceptions)
    return str(error)[:1500]


@pytest.fixture
def world(committed_db, settings, tmp_path, monkeypatch):
    settings.ARTIFACTS_DIR = tmp_path
    monkeypatch.setattr(health, "WAIT_SECONDS", 0.0)  # there is no worker to wait for
    monkeypatch.setattr(health, "current_app", SimpleNamespace(send_task=lambda *_, **__: None))
    return World()


def test_the_machine_api_answers_as_documented(world, capsys):
    schema = load("/v1/openapi.json")

    total = run(schema, world, capsys)

    assert total[200] > 50
    assert total[201] > 5
    assert total[422] > 100
    assert total[409] + total[404] > 50


def test_the_peoples_api_answers_as_documented(world, capsys):
    schema = load("/api/schema/?format=json")

    total = run(schema, world, capsys)

    assert total[200] > 5


def test_the_peoples_api_answers_a_session_as_documented(world, capsys):
    """With a session, and the token that Django asks for, the writes are reached too."""
    client = Client()
    client.force_login(world.miner.user)
    token = "a" * 32
    cookies = {"sessionid": client.cookies["sessionid"].value, "csrftoken": token}
    world.credentials = {"cookies": cookies, "headers": {"X-CSRFToken": token}}
    schema = load("/api/schema/?format=json")

    total = run(schema, world, capsys)

    assert total[201] > 0
    assert total[200] > 10
    assert Device.objects.count() == 1
