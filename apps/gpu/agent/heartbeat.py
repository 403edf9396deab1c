"""Heartbeats: chained by hash, signed once a minute, carrying telemetry and what runs."""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from aitbc.core.errors import DomainError, NotFound, Unavailable
from apps.gpu import statements
from apps.gpu.agent.detect import Device
from apps.gpu.agent.identity import Identity
from apps.gpu.agent.telemetry import Sampler
from apps.gpu.agent.transport import JSON, HttpTransport

logger = structlog.get_logger(__name__)
SIGN_EVERY_SECONDS: Final = 60


class Heart:
    """Beats in a thread of its own until `stop`.

    `running` names the jobs to keep leased; `on_answer` gets each answer of the platform, `on_unknown`
    is called when it does not know this miner any more.
    """

    def __init__(
        self,
        *,
        transport: HttpTransport,
        identity: Identity,
        devices: list[Device],
        running: Callable[[], list[str]],
        on_answer: Callable[[JSON], None],
        on_unknown: Callable[[], None],
    ) -> None:
        self._transport, self._identity = transport, identity
        self._samplers = [Sampler(device) for device in devices]
        self._running, self._on_answer, self._on_unknown = running, on_answer, on_unknown
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._silent = False
        self._latency: float | None = None  # milliseconds that the last beat took to the platform and back

    def registered(self, answer: JSON) -> None:
        """Takes over what a registration says: ids, pace and where the chain of heartbeats stands."""
        self._miner, self._domain = answer["id"], statements.domain(answer["chain_id"])
        self._device_ids = {device["uuid"]: device["id"] for device in answer["devices"]}
        self._seconds = float(answer["heartbeat_seconds"])
        self._sequence, self._head = int(answer["sequence"]), statements.hex32(answer["head"])
        self._signed_at = -float(SIGN_EVERY_SECONDS)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=self._seconds)

    def _beat_on(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self.beat()
            except Exception:  # a broken sensor or a bug must not make a working miner look dead
                logger.exception("a heartbeat failed")

    def beat(self) -> None:
        """One heartbeat; what goes wrong is logged and met by the next one."""
        try:
            self._on_answer(self._send())
            if self._silent:
                logger.info("the platform answers again")
            self._silent = False
        except Unavailable as error:
            if not self._silent:
                logger.warning("the platform does not answer; trying on", reason=error.message)
            self._silent = True
        except NotFound:
            logger.warning("the platform does not know this miner; registering anew")
            self._on_unknown()
        except DomainError as error:
            self._catch_up(error)

    def _send(self) -> JSON:
        seen = {} if self._latency is None else {"latency_ms": self._latency}
        telemetry = [{"device_id": self._device_ids[s.device.uuid], **s.sample(), **seen} for s in self._samplers]
        running = sorted(self._running())
        values = statements.heartbeat_values(
            miner=self._miner, sequence=self._sequence + 1, previous=self._head, telemetry=telemetry, running=running
        )
        beat: JSON = {
            "telemetry": telemetry,
            "running": running,
            "sequence": values["sequence"],
            "previous": "0x" + self._head.hex(),
        }
        signing = time.monotonic() - self._signed_at >= SIGN_EVERY_SECONDS
        if signing:
            beat["signature"] = self._identity.sign(self._domain, statements.HEARTBEAT, values)
        begun = time.monotonic()
        answer = self._transport.heartbeat(beat)
        self._latency = round((time.monotonic() - begun) * 1000, 1)
        self._sequence, self._head = values["sequence"], statements.HEARTBEAT.hash(values)
        self._signed_at = time.monotonic() if signing else self._signed_at
        return answer

    def _catch_up(self, error: DomainError) -> None:
        """A beat whose answer got lost was accepted all the same: go on from where the platform stands."""
        expected = error.context.get("expected")
        if not isinstance(expected, dict):
            logger.error("the platform refused a heartbeat", code=error.code, reason=error.message)
            return
        self._sequence = int(expected["sequence"]) - 1
        self._head = statements.hex32(str(expected["previous"]))
        logger.info("continuing the heartbeats where the platform stands", sequence=self._sequence)
