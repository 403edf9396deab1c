"""The platform's own miner: a Celery worker on the queue `gpu` that goes through the services themselves.

It is a miner like any other, with a user, a key and a signing key of its own, and the PostgreSQL lease
decides: a task that is delivered twice finds its job taken and returns.
"""

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import orjson
from django.conf import settings
from django.db import Error, connections, transaction

from aitbc.accounts import keys
from aitbc.accounts.models import Role, User
from aitbc.core.errors import Unavailable
from aitbc.core.principal import Principal
from apps.gpu.services import artifacts, challenges, heartbeats, leases, logs, miners, reports
from apps.gpu.services.miners import DeviceClaim, Registration
from apps.gpu.services.reports import Report

JSON = dict[str, Any]
Answer = TypeVar("Answer")
EMAIL = "gpu-worker@platform.invalid"


def own_key(number: int) -> Path:
    """The key file of the worker's `number`-th process; made on first use, readable by its owner only."""
    path = Path(settings.KEYS_DIR) / f"gpu-worker-{number}.key"
    if not path.exists():
        with transaction.atomic():
            user = User.objects.filter(email=EMAIL).first() or User.objects.create_user(EMAIL, role=Role.MINER)
            _, token = keys.create_key(user=user, name=f"gpu worker {number}", scopes=["miner"])
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text(token)
    return path


class LocalTransport:
    """The agent's `Transport` without HTTP: the documents are those of `/v1/miners`."""

    def __init__(self, principal: Principal) -> None:
        self._me = principal
        self._key = principal.key_id

    def nonce(self) -> JSON:
        nonce = _called(lambda: miners.make_nonce(key=self._key))
        return {"nonce": nonce, "prefix": self._me.prefix, "chain_id": settings.CHAIN_ID}

    def register(self, profile: JSON) -> JSON:
        facts = profile | {
            "devices": tuple(DeviceClaim(**device) for device in profile["devices"]),
            "kinds": tuple(profile["kinds"]),
            "models": tuple(profile["models"]),
            "price": profile["price"]["amount"],
        }
        miner, _ = _called(
            lambda: miners.register(caller=self._me, registration=Registration(**facts), first_party=True)
        )
        answer = miners.document(miner) | {"challenge": challenges.issue_missing(miner)}
        return _plain(answer | {"wait_url": None, "chain_id": settings.CHAIN_ID})

    def heartbeat(self, beat: JSON) -> JSON:
        signature: str | None = beat.get("signature")
        answer = _called(
            lambda: heartbeats.beat(
                key=self._key,
                sequence=beat["sequence"],
                previous=beat["previous"],
                running=[UUID(job) for job in beat["running"]],
                telemetry=beat["telemetry"],
                signature=signature,
            )
        )
        return _plain(answer)

    def poll(self, *, max_jobs: int, wait_seconds: float, kinds: list[str]) -> list[JSON]:
        found: list[JSON] = orjson.loads(_called(lambda: leases.claim(key=self._key, most=max_jobs, kinds=kinds)))
        return found

    def wait(self, url: str, *, seconds: float) -> None:
        raise NotImplementedError("a task is sent when there is work; nobody waits")

    def start(self, job: str, *, lease_token: str) -> None:
        _called(lambda: reports.start(key=self._key, job=UUID(job), token=UUID(lease_token)))

    def progress(self, job: str, body: JSON) -> None:
        seen, lease = {"message": body["message"]}, UUID(body["lease_token"])
        report = partial(reports.progress, key=self._key, job=UUID(job), token=lease, report=seen)
        lines, first = body["logs"], body["logs_from"]
        _called(lambda: logs.beside(report, job=UUID(job), lines=lines, first=first))

    def result(self, job: str, body: JSON) -> JSON:
        report = Report(job=UUID(job), **(body | {"lease_token": UUID(body["lease_token"])}))
        return _called(lambda: reports.finish(key=self._key, report=report))

    def fail(self, job: str, body: JSON) -> None:
        _called(
            lambda: reports.fail(
                key=self._key,
                job=UUID(job),
                token=UUID(body["lease_token"]),
                code=body["code"],
                message=body["message"],
                retryable=body["retryable"],
            )
        )

    def challenge_commit(self, challenge: str, roots: list[str]) -> JSON:
        return _plain(_called(lambda: challenges.commit(key=self._key, challenge=UUID(challenge), roots=roots)))

    def challenge_open(self, challenge: str, rows: list[JSON]) -> JSON:
        return _plain(_called(lambda: challenges.open_rows(key=self._key, challenge=UUID(challenge), rows=rows)))

    def get_artifact(self, sha256: str, path: Path) -> None:
        source = _called(lambda: artifacts.open_artifact(user=self._me.user_id, sha256=sha256))
        path.write_bytes(source.read_bytes())

    def put_artifact(self, content: bytes) -> str:
        sha256, body = hashlib.sha256(content).hexdigest(), io.BytesIO(content)
        _called(lambda: artifacts.store(user=self._me.user_id, sha256=sha256, read=body.read, length=len(content)))
        return sha256

    def drain(self) -> None:
        _called(lambda: miners.drain(key=self._key))

    def sign_off(self) -> None:
        _called(lambda: miners.sign_off(key=self._key))

    def close(self) -> None:
        connections.close_all()


def _plain(answer: JSON) -> JSON:
    """Ids and times as JSON has them, as the agent would see over HTTP."""
    plain: JSON = orjson.loads(orjson.dumps(answer, default=str))
    return plain


def _called(call: Callable[[], Answer]) -> Answer:
    """A database that is away is worth a repeat, on a new connection."""
    try:
        return call()
    except Error as error:
        connections.close_all()
        raise Unavailable("database.unavailable", "the database does not answer") from error
