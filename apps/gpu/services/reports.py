"""What miners report about their leases: start, progress, result, failure."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction

from aitbc.chain import signing
from aitbc.core import db
from aitbc.core.errors import Conflict, DomainError, Invalid, NotFound
from apps.gpu import receipts, statements
from apps.gpu.meter import Bill, bill
from apps.gpu.models import Attempt
from apps.gpu.runtimes import llm_chat, misfits, runtimes
from apps.gpu.runtimes.contract import FAULTS
from apps.gpu.services import artifacts

_FACTS = "SELECT * FROM gpu_lease_facts(%s::uuid, %s::uuid[])"
_FAULTS = {str(code): fault for code, fault in FAULTS.items()}


@dataclass(frozen=True, slots=True)
class Report:
    """A miner's claim to have finished a job."""

    job: UUID
    lease_token: UUID
    statement_signature: str
    output: Any = None
    output_artifact: str | None = None
    metrics: dict[str, Any] | None = None
    claimed_ms: int | None = None

    def digest(self) -> bytes:
        content = [str(self.lease_token), self.output, self.output_artifact, self.metrics, self.claimed_ms]
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()

    @property
    def identity(self) -> tuple[UUID, bytes]:
        """Two reports with one identity are one report."""
        return self.job, self.digest()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the platform knows of the lease at this moment, by the database's clock."""

    id: UUID
    state: str
    kind: str
    client: UUID
    miner: UUID
    address: bytes
    attempt: int
    lease_token: UUID | None
    salt: bytes
    input: Any
    input_artifact: bytes | None
    unit_price: Any
    max_price: Any
    max_ms: int | None
    started_ms: int | None
    now_ms: int
    fee_bps: int
    result_digest: bytes | None
    owner: UUID

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> "Facts":
        """JSON columns come as text: Django switches psycopg's own decoding off."""
        values = list(row)
        values[9] = orjson.loads(values[9]) if values[9] is not None else None
        return cls(*values)


def _facts(key: UUID, jobs: list[UUID]) -> dict[UUID, Facts]:
    return {facts.id: facts for facts in map(Facts.of, db.rows(_FACTS, (key, jobs)))}


def finish(*, key: UUID, report: Report) -> dict[str, Any]:
    """Accept one result -> `{"job": ..., "receipt": ...}`; a repeat of an accepted one says the same."""
    answer = finish_batch(key=key, reports=[report])[0]
    if isinstance(answer, DomainError):
        raise answer
    return answer


def finish_batch(*, key: UUID, reports: list[Report]) -> list[dict[str, Any] | DomainError]:
    """Each report stands for itself; the accepted ones are written in one statement."""
    facts = _facts(key, [report.job for report in reports])
    checked: dict[tuple[UUID, bytes], dict[str, Any] | DomainError | None] = {}
    fresh: dict[UUID, dict[str, Any]] = {}
    for report in reports:
        if report.identity in checked:
            continue
        item = _check(key, report, facts.get(report.job))
        if isinstance(item, dict) and fresh.setdefault(report.job, item) is not item:
            item = _lost()  # the batch holds another result of this job, and that one came first
        checked[report.identity] = item
    written = _write(list(fresh.values())) if fresh else {}
    return [_answer(key, report, checked[report.identity], written) for report in reports]


def _check(key: UUID, report: Report, facts: Facts | None) -> dict[str, Any] | DomainError | None:
    """The item to write, a refusal, or None for a repeat of what was accepted."""
    try:
        facts = require_lease(key, report.job, report.lease_token, facts)
        if facts.state == "completed":
            return None if facts.result_digest == report.digest() else _lost()
        return _item(report, facts)
    except DomainError as error:
        return error


def require_lease(key: UUID, job: UUID, token: UUID, facts: Facts | None) -> Facts:
    """The facts of a lease that `token` holds, also of a completed one; 409 if lost, 404 if never his."""
    if facts is None:
        if Attempt.objects.filter(job=job, miner__key=key).exists():
            raise _lost()
        raise NotFound("job.unknown", "you hold no such job")
    if facts.lease_token != token or facts.state not in ("leased", "running", "completed"):
        raise _lost()
    return facts


def _lost() -> Conflict:
    return Conflict("lease.lost", "this lease is not yours any more; the result was not accepted")


def _item(report: Report, facts: Facts) -> dict[str, Any]:
    if facts.started_ms is None:
        raise Conflict("job.not_started", "report the start first: only time from there is paid")
    _check_output(report, facts)
    assert facts.max_ms is not None  # a constraint of leased jobs
    started = facts.started_ms
    the_bill = bill(
        platform_ms=facts.now_ms - started,
        claimed_ms=report.claimed_ms,
        max_ms=facts.max_ms,
        unit_price=int(facts.unit_price),
        fee_bps=facts.fee_bps,
    )
    document = _receipt(report, facts, the_bill, started)
    return {
        "job": str(report.job),
        "lease_token": str(report.lease_token),
        "started_ms": started,
        "finished_ms": facts.now_ms,
        "units_ms": the_bill.units,
        "total": str(the_bill.total),
        "fee": str(the_bill.fee),
        "output": report.output,
        "output_artifact": report.output_artifact,
        "metrics": _metrics(report, facts),
        "digest": report.digest().hex(),
        "receipt": document,
        "leaf": receipts.leaf(document).hex(),
        "owner": str(facts.owner),
        "client": facts.client,
        "made": _made(report, facts),
    }


def _check_output(report: Report, facts: Facts) -> None:
    if (report.output is None) == (report.output_artifact is None):
        raise Invalid("result.output", "give either output or output_artifact")
    if report.output_artifact is not None:
        artifacts.require_access(user=facts.owner, hashes=[report.output_artifact])
        return
    if errors := misfits(facts.kind, "output", report.output):
        raise Invalid("result.invalid_output", f"the output does not fit {facts.kind}", errors=errors)
    if made := _made(report, facts):
        artifacts.require_access(user=facts.owner, hashes=made)


def _metrics(report: Report, facts: Facts) -> dict[str, Any]:
    """What the miner tells, and the tokens that the platform counted; other units are counted where it is written."""
    metrics = {name: value for name, value in (report.metrics or {}).items() if name != "counted"}
    known = facts.kind == "llm.chat" and facts.input is not None and report.output is not None
    count = llm_chat.tokens(facts.input, report.output) if known else None
    return metrics if count is None else metrics | {"counted": {"unit": "token", "amount": count}}


def _made(report: Report, facts: Facts) -> list[str]:
    """The artifacts that the client gets with this result."""
    named = runtimes()[facts.kind].made(report.output) if report.output is not None else ()
    return sorted({*named, *([report.output_artifact] if report.output_artifact else [])})


def statement_of(facts: Facts, *, output: Any, output_artifact: str | None) -> statements.WorkStatement:
    """What the miner must have signed, made from the platform's own records."""
    salt, given = bytes(facts.salt), facts.input_artifact.hex() if facts.input_artifact else None
    return statements.WorkStatement(
        job=str(facts.id),
        kind=facts.kind,
        client=client_hash(facts.client),
        miner=str(facts.miner),
        attempt=facts.attempt,
        lease="0x" + statements.lease_hash(str(facts.lease_token)).hex(),
        input_commitment="0x" + statements.commitment(salt=salt, value=facts.input, artifact=given).hex(),
        output_commitment="0x" + statements.commitment(salt=salt, value=output, artifact=output_artifact).hex(),
        unit_price=int(facts.unit_price),
        max_units=facts.max_ms or 0,
    )


def client_hash(client: UUID) -> str:
    """A receipt is public: it names the client by a hash that only those who know the id can match."""
    return "0x" + hashlib.sha256(client.bytes).hexdigest()


def _receipt(report: Report, facts: Facts, the_bill: Bill, started: int) -> dict[str, Any]:
    statement = statement_of(facts, output=report.output, output_artifact=report.output_artifact)
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.WORK_STATEMENT, statement.values())
    address = signing.checksum_address(bytes(facts.address))
    if signing.recover(digest, report.statement_signature) != address:
        raise Invalid(
            "result.signature",
            "statement_signature is not yours over this work statement",
            errors=[{"loc": ["body", "statement_signature"], "msg": "signature of another statement or key"}],
        )
    return receipts.issue(
        statement=statement,
        miner=address,
        signature=report.statement_signature.lower(),
        bill=the_bill,
        started_ms=started,
        finished_ms=facts.now_ms,
    )


def _write(items: list[dict[str, Any]]) -> dict[UUID, tuple[str, str]]:
    grants = [item for item in items if item["made"]]
    payload = orjson.dumps([{k: v for k, v in item.items() if k not in ("client", "made")} for item in items]).decode()
    query = "SELECT job, code, document FROM gpu_complete(%s::jsonb)"
    with transaction.atomic() if grants else nullcontext():
        written = {job: (code, document) for job, code, document in db.rows(query, (payload,))}
        for item in grants:
            job = UUID(item["job"])
            for sha256 in item["made"] if written[job][0] == "ok" else ():
                artifacts.grant_output(job=job, client=item["client"], sha256=sha256)
    return written


def _answer(
    key: UUID, report: Report, item: dict[str, Any] | DomainError | None, written: dict[UUID, tuple[str, str]]
) -> dict[str, Any] | DomainError:
    if isinstance(item, DomainError):
        return item
    if item is None:
        return _stored_answer(report.job)
    code, document = written[report.job]
    if code != "ok":
        return _overtaken(key, report)
    return {"job": orjson.Fragment(document), "receipt": item["receipt"]}


def _overtaken(key: UUID, report: Report) -> dict[str, Any] | DomainError:
    """The lease ended between check and write: by this same result sent twice at once, or for good."""
    outcome = _check(key, report, _facts(key, [report.job]).get(report.job))
    return _stored_answer(report.job) if outcome is None else _lost()


def _stored_answer(job: UUID) -> dict[str, Any]:
    document, receipt = db.rows(
        """SELECT gpu_job_document(j, p)::text, r.document FROM gpu_job j
           LEFT JOIN trading_payment p ON p.job = j.id JOIN gpu_receipt r ON r.job_id = j.id WHERE j.id = %s""",
        (job,),
    )[0]
    return {"job": orjson.Fragment(document), "receipt": orjson.loads(receipt)}


def start(*, key: UUID, job: UUID, token: UUID) -> str:
    """Metering begins; a repeat keeps the first moment."""
    running = "coalesce(CASE WHEN j.state = 'running' THEN j.started_at END, clock_timestamp())"
    return _update_leased(f"state = 'running', started_at = {running}", (), key, job, token)


def progress(*, key: UUID, job: UUID, token: UUID, report: dict[str, Any]) -> str:
    """Kept as it was sent, and shown to the client; it also renews the lease."""
    renewed = "clock_timestamp() + parameter_value('lease_seconds') * interval '1 second'"
    change = f"progress = %s::jsonb, lease_expires_at = {renewed}"
    return _update_leased(change, (orjson.dumps(report).decode(),), key, job, token)


def _update_leased(change: str, values: tuple[str, ...], key: UUID, job: UUID, token: UUID) -> str:
    found = db.row(
        f"""UPDATE gpu_job j SET {change} FROM gpu_miner m LEFT JOIN trading_payment p ON p.job = %s
             WHERE m.key_id = %s AND j.miner_id = m.id AND j.id = %s AND j.lease_token = %s
               AND j.state IN ('leased', 'running') RETURNING gpu_job_document(j, p)::text""",
        (*values, job, key, job, token),
    )
    return found[0] if found else _refuse(key, job, token)


def fail(*, key: UUID, job: UUID, token: UUID, code: str, message: str, retryable: bool) -> str:
    """End the attempt; whose fault it was decides about a retry and the money (protocols 15)."""
    with transaction.atomic():
        held = db.row(
            """SELECT 1 FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id AND m.key_id = %s
                WHERE j.id = %s AND j.lease_token = %s AND j.state IN ('leased', 'running')
                  FOR NO KEY UPDATE OF j""",
            (key, job, token),
        )
        if held is None:
            _refuse(key, job, token)
        db.rows(
            "SELECT gpu_end_attempt(ARRAY[%s::uuid], %s::text, %s::text, %s::text, %s::boolean)",
            (job, code[:60], message[:2000], _FAULTS.get(code, "provider"), retryable),
        )
        document: str = db.value(
            """SELECT gpu_job_document(j, p)::text FROM gpu_job j LEFT JOIN trading_payment p ON p.job = j.id
                WHERE j.id = %s""",
            (job,),
        )
    return document


def _refuse(key: UUID, job: UUID, token: UUID) -> str:
    """Say why no lease matched: not his job at all, or a lease that is over."""
    require_lease(key, job, token, _facts(key, [job]).get(job))
    raise _lost()
