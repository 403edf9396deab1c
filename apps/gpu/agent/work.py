"""One leased job from its input to the platform's receipt."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from aitbc.core import money
from aitbc.core.errors import Conflict, DomainError, NotFound, Unavailable
from apps.gpu import runtimes, statements
from apps.gpu.agent import child, outbox
from apps.gpu.agent.engine import Engine
from apps.gpu.agent.identity import Identity
from apps.gpu.agent.llm import LlmServer
from apps.gpu.agent.printed import Printed
from apps.gpu.agent.sandbox import Canceled, Limits, Outcome, Sandbox, Slot
from apps.gpu.agent.transport import JSON, HttpTransport
from apps.gpu.agent.workspace import Workspace
from apps.gpu.runtimes.commands import LOGS, MAX_FILES
from apps.gpu.runtimes.contract import Code, RuntimeFailure, invalid_input

logger = structlog.get_logger(__name__)
INLINE_BYTES: Final = 1 << 20  # a larger output travels as an artifact
DELTA_CHARS: Final = 150
DECIMALS: Final = 18  # of AIT and CREDIT
DELIVERY_TRIES: Final = 20  # each as patient as the transport: some ten minutes without the platform


@dataclass
class Lease:
    """A job in this miner's hands; `canceled` is set when it is to be stopped, by the platform unless it is
    `returned`: then the miner itself gives it up."""

    job: JSON
    canceled: threading.Event = field(default_factory=threading.Event)
    returned: bool = False
    printed: Printed | None = None  # what it writes, while it runs

    @property
    def id(self) -> str:
        return str(self.job["id"])

    @property
    def token(self) -> str:
        return str(self.job["lease_token"])


@dataclass(frozen=True)
class Worker:
    """Runs leases in `slot`s of a sandbox and reports each exactly as it ended."""

    transport: HttpTransport
    identity: Identity
    sandbox: Sandbox
    memory_bytes: int
    undelivered: Path | None = None  # the folder that keeps results until the platform has answered
    engine: Engine | None = None
    llm: LlmServer | None = None

    def perform(self, lease: Lease, slot: Slot, *, chain_id: int) -> str:
        """`completed`, or why not: `failed`, `canceled`, or `lost` with the lease."""
        log = logger.bind(job=lease.id, kind=lease.job["kind"])
        try:
            with self.sandbox.workspace() as workspace:
                lease.printed = Printed(workspace)
                try:
                    body = self._work(lease, workspace, slot, chain_id)
                finally:
                    self.tell(lease, ended=True)
            self.deliver(lease, body)
            log.info("job completed", milliseconds=body["claimed_ms"])
            return "completed"
        except RuntimeFailure as failure:
            log.warning("job failed", code=str(failure.code), reason=failure.message)
            return self._report_failure(lease, failure)
        except Canceled:
            if lease.returned:
                return self._report_failure(lease, RuntimeFailure(Code.STOPPED, "the provider stopped this miner"))
            log.info("job canceled by the platform")
            return "canceled"
        except (Conflict, NotFound) as error:
            log.warning("the lease is lost; nothing was reported", code=error.code)
            return "lost"
        except Unavailable as error:
            log.error("the platform stayed away; a result is kept for the next start", reason=error.message)
            return "lost"
        except DomainError as error:
            log.error("the platform refused the result", code=error.code, reason=error.message)
            return self._report_failure(lease, RuntimeFailure(Code.CRASHED, f"refused: {error.message}"))
        except Exception:  # the end of the slot's thread: the lease must not hang on a bug of the miner
            log.exception("the miner failed on this job")
            return self._report_failure(lease, RuntimeFailure(Code.CRASHED, "the miner failed on this job"))
        finally:
            lease.printed = None

    def deliver(self, lease: Lease, body: JSON) -> None:
        """Until the platform answers; what it does not take for now stays on the disk for the next start."""
        with outbox.holding(self.undelivered, lease.job, body):
            self._insist(lambda: self.transport.result(lease.id, body))

    def _work(self, lease: Lease, workspace: Workspace, slot: Slot, chain_id: int) -> JSON:
        job = lease.job
        given = self._input(job, workspace)
        self._fetch(runtimes.find(job["kind"]).artifacts(given), workspace)
        if job["kind"] == "container.run" and given.get("image") and self.engine is not None:
            self.engine.pull(given["image"])
        self.transport.start(lease.id, lease_token=lease.token)
        limits = Limits(seconds=float(job["max_seconds"]), memory_bytes=self.memory_bytes)
        outcome = self._run(lease, given, workspace, limits, slot)
        if runtimes.find(job["kind"]).runs_commands:
            self._deliver(outcome.output, workspace)
        return self._signed(lease, outcome, chain_id)

    def _run(self, lease: Lease, given: Any, workspace: Workspace, limits: Limits, slot: Slot) -> Outcome:
        kind, stopped = lease.job["kind"], lease.canceled.is_set
        if kind == "llm.chat" and self.llm is not None:
            return self.llm.run(given, limits, partial(self._say, lease, workspace), stopped)
        if kind == "container.run" and given.get("image") and self.engine is not None:
            return self.engine.run(given, workspace, limits, slot.threads, stopped)
        return self.sandbox.run(workspace, "job", {"kind": kind, "input": given}, limits, slot, stopped)

    def _say(self, lease: Lease, workspace: Workspace, text: str) -> None:
        """Lines for the log, short enough whatever is escaped in them, told at once."""
        with (workspace.folder / child.LOG).open("a") as log:
            for at in range(0, len(text), DELTA_CHARS):
                log.write(json.dumps({"delta": text[at : at + DELTA_CHARS]}) + "\n")
        self.tell(lease)

    def _deliver(self, output: JSON, workspace: Workspace) -> None:
        """Uploads what the job left in its folder `out`, and names each file's artifact in the output."""
        try:
            for path, content in workspace.left():
                if len(output["files"]) == MAX_FILES:
                    raise RuntimeFailure(Code.OUTPUT_TOO_LARGE, f"the job left more than {MAX_FILES} files")
                output["files"][path] = self.transport.put_artifact(content)
            if "logs" in output:
                output["logs"] = output["files"].pop(LOGS)
        except OSError as error:
            raise invalid_input(f"the job left what is no plain file: {error}") from error

    def _input(self, job: JSON, workspace: Workspace) -> Any:
        given = job.get("input")
        if job.get("input_artifact"):
            (path,) = self._fetch((job["input_artifact"],), workspace)
            try:
                given = json.loads(path.read_bytes())
            except ValueError as error:
                raise RuntimeFailure(Code.INVALID_INPUT, "the input artifact is not JSON") from error
        for wrong in runtimes.misfits(job["kind"], "input", given):
            place = "/".join(wrong["loc"][2:]) or "input"
            raise RuntimeFailure(Code.INVALID_INPUT, f"{place}: {wrong['msg']}")
        return given

    def _fetch(self, hashes: tuple[str, ...], workspace: Workspace) -> list[Path]:
        """Downloads before the start: waiting for data is not billed."""
        try:
            paths = [workspace.place(sha256) for sha256 in hashes]
            for sha256, path in zip(hashes, paths, strict=True):
                self.transport.get_artifact(sha256, path)
            return paths
        except NotFound as error:
            raise RuntimeFailure(Code.INVALID_INPUT, f"artifact not found: {error.message}") from error

    def _signed(self, lease: Lease, outcome: Outcome, chain_id: int) -> JSON:
        """The report of a result, with the miner's signature over the work statement."""
        job, salt = lease.job, statements.hex32(lease.job["salt"])
        content = statements.canonical(outcome.output)
        body: JSON = {"lease_token": lease.token, "metrics": outcome.metrics, "claimed_ms": outcome.milliseconds}
        if len(content) > INLINE_BYTES:
            body["output_artifact"] = self._insist(lambda: self.transport.put_artifact(content))
            committed = statements.artifact_commitment(salt=salt, sha256=body["output_artifact"])
        else:
            body["output"] = outcome.output
            committed = statements.commitment_of(salt=salt, canonical_json=content)
        statement = statement_of(job, output_commitment=committed)
        body["statement_signature"] = self.identity.sign(
            statements.domain(chain_id), statements.WORK_STATEMENT, statement.values()
        )
        return body

    def _report_failure(self, lease: Lease, failure: RuntimeFailure) -> str:
        body = {
            "lease_token": lease.token,
            "code": str(failure.code),
            "message": failure.message[:2000],
            "retryable": failure.fault == "provider",
        }
        try:
            self._insist(lambda: self.transport.fail(lease.id, body))
        except DomainError as error:
            logger.warning("the failure could not be reported", job=lease.id, code=error.code)
            return "lost"
        return "failed"

    def _insist(self, call: Callable[[], Any]) -> Any:
        """A result outlives an outage of the platform: its lease is judged there, when it is back."""
        for _ in range(DELIVERY_TRIES - 1):
            with suppress(Unavailable):
                return call()
        return call()

    def tell(self, lease: Lease, *, ended: bool = False) -> None:
        """Passes on what the job wrote since the last time, and stops it if the lease is gone."""
        printed = lease.printed
        if printed is None or lease.canceled.is_set():
            return
        try:
            with printed.lock:
                for report in printed.reports(ended=ended):
                    told = {"lease_token": lease.token, "message": report["logs"][-1], **report}
                    self.transport.progress(lease.id, told)
                    printed.count += len(report["logs"])
        except (Conflict, NotFound):
            lease.canceled.set()
        except (DomainError, RuntimeFailure) as error:
            logger.info("progress could not be told", job=lease.id, reason=str(error))


def statement_of(job: JSON, *, output_commitment: bytes) -> statements.WorkStatement:
    """What the miner signs, from the lease alone: the platform makes the same from its own records."""
    salt = statements.hex32(job["salt"])
    given = statements.commitment(salt=salt, value=job.get("input"), artifact=job.get("input_artifact"))
    return statements.WorkStatement(
        job=job["id"],
        kind=job["kind"],
        client=job["client"],
        miner=job["miner"],
        attempt=job["attempt"],
        lease="0x" + statements.lease_hash(job["lease_token"]).hex(),
        input_commitment="0x" + given.hex(),
        output_commitment="0x" + output_commitment.hex(),
        unit_price=money.units(job["unit_price"]["amount"], DECIMALS),
        max_units=job["max_units"],
    )
