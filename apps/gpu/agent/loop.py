"""The one loop of every miner: detect, register, heartbeat, poll, run, report, drain.

The same for the daemon on a provider's machine and for the platform's own worker.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

from aitbc.core.errors import DomainError, NotFound, Unavailable
from apps.gpu import runtimes, statements
from apps.gpu.agent import challenge as protocol
from apps.gpu.agent import outbox
from apps.gpu.agent.detect import Device
from apps.gpu.agent.engine import Engine
from apps.gpu.agent.heartbeat import Heart
from apps.gpu.agent.identity import Identity
from apps.gpu.agent.llm import LlmServer
from apps.gpu.agent.sandbox import MIB, Canceled, Limits, Sandbox, Slot
from apps.gpu.agent.transport import JSON, HttpTransport, pauses
from apps.gpu.agent.work import Lease, Worker
from apps.gpu.runtimes.container_run import IMAGES
from apps.gpu.runtimes.contract import RuntimeFailure

logger = structlog.get_logger(__name__)
WAIT_SECONDS: Final = 20.0
ONCE_SECONDS: Final = 30.0  # how long `once` waits for its job
BENCHMARK_SECONDS: Final = 0.5
HAND_BACK_SECONDS: Final = 15.0  # for stopping the jobs at hand and telling the platform


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the provider decides. `price` in AIT per device second; `slots` jobs at a time, shared out
    over the devices; `kinds` None offers all that can run; `allow_client_code` lets kinds that run a
    client's model into a sandbox of the tier process; `drain_seconds` are left to the jobs at hand once the
    miner is stopped; the folder `undelivered` keeps results; `llm_url` is an OpenAI-compatible server's."""

    name: str
    region: str
    price: str
    slots: int = 1
    kinds: tuple[str, ...] | None = None
    models: tuple[str, ...] = ()
    memory_bytes: int = 2048 * MIB
    allow_client_code: bool = False
    drain_seconds: float = 300
    undelivered: Path | None = None
    llm_url: str | None = None


@dataclass
class Summary:
    """What a run of the agent came to: jobs by how they ended."""

    miner: str = ""
    jobs: Counter[str] = field(default_factory=Counter)


def kinds_to_offer(config: Config, sandbox: Sandbox, device: str) -> list[str]:
    """Kinds that can run here, less those that need a better sandbox; ValueError if none is left."""
    able = [
        kind
        for kind in (*runtimes.available_kinds(device), *(["llm.chat"] if config.llm_url else []))
        if sandbox.tier != "process" or config.allow_client_code or not runtimes.find(kind).runs_client_code
        if not (runtimes.find(kind).runs_commands and sandbox.exposed)
    ]
    kinds = [kind for kind in able if config.kinds is None or kind in config.kinds]
    missing = sorted(set(config.kinds or ()) - set(kinds))
    if missing or not kinds:
        reasons = runtimes.unavailable(device)
        why = "; ".join(f"{kind}: {reasons.get(kind, 'not offered in this sandbox')}" for kind in missing)
        raise ValueError(f"no such job kind can run here ({why or 'none is available'})")
    return kinds


class Agent:
    """A miner. `run` blocks until `stop` is called (from a signal handler, say) or, once, until one job
    is done; the caller closes transport and sandbox."""

    def __init__(
        self, *, transport: HttpTransport, identity: Identity, sandbox: Sandbox, devices: list[Device],
        config: Config, prefix: str,
    ) -> None:  # fmt: skip
        self._transport, self._identity, self._sandbox = transport, identity, sandbox
        self._devices, self._config, self._prefix = devices, config, prefix
        self.kinds = kinds_to_offer(config, sandbox, devices[0].kind)
        engine = Engine.find() if "container.run" in self.kinds else None
        llm = LlmServer(config.llm_url.rstrip("/")) if config.llm_url and "llm.chat" in self.kinds else None
        self._models = [*config.models, *([IMAGES] if engine else []), *(llm.models() if llm else [])]
        self._worker = Worker(transport, identity, sandbox, config.memory_bytes, config.undelivered, engine, llm)
        self._measured: dict[str, dict[str, float]] = {}
        self._leases: dict[str, Lease] = {}
        # Dealt to the devices in turn; those of one processor share its threads.
        self._slots = [self._slot(devices[n % len(devices)], config.slots) for n in range(config.slots)]
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._hurried = False
        self._challenged: set[str] = set()
        self._provers: list[threading.Thread] = []
        self._crash: BaseException | None = None
        self.summary = Summary()
        self._heart = Heart(
            transport=transport,
            identity=identity,
            devices=devices,
            running=lambda: list(self._leases),
            on_answer=self._obey,
            on_unknown=self._register_again,
        )

    def _slot(self, device: Device, sharers: int = 1) -> Slot:
        variable = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}.get(device.kind)
        visible = device.uuid if device.kind == "cuda" else str(device.index)
        threads = max(1, len(device.cpus) // sharers)
        return Slot(device.kind, threads, ((variable, visible),) if variable else ())

    # -- life ----------------------------------------------------------------------------------
    def run(self, *, once: bool = False) -> Summary:
        """DomainError if the platform refuses this miner; an outage is waited out."""
        self.attach()
        poller = threading.Thread(target=self._poll_on, args=(once,), name="poll", daemon=True)
        poller.start()
        self._stopping.wait()
        self._leave()
        if self._crash is not None:
            raise self._crash
        return self.summary

    def attach(self) -> None:
        """Register and keep the heart beating, for a caller that polls by `serve_one`."""
        self._measure()
        self._register_patiently()
        self._deliver_kept()
        self._heart.start()

    def serve_one(self) -> str | None:
        """Lease one job and run it in this thread: how it ended, or None if there was none."""
        jobs = self._transport.poll(max_jobs=1, wait_seconds=0, kinds=self.kinds)
        if not jobs:
            return None
        lease, slot = Lease(jobs[0]), self._slots[0]
        self._leases[lease.id] = lease
        try:
            return self._worker.perform(lease, slot, chain_id=self._chain_id)
        finally:
            del self._leases[lease.id]

    def detach(self) -> None:
        """Finish with the platform after `attach`: leases go back, the device becomes free."""
        self._heart.stop()
        self._tell_platform(self._transport.sign_off)

    def stop(self) -> None:
        """Take no more jobs, finish those at hand, sign off. Asked a second time: hand them back at once."""
        if self._stopping.is_set():
            self._hurried, self._transport.patience = True, 0.0
        self._stopping.set()

    def _leave(self) -> None:
        logger.info("draining", running=len(self._leases), seconds=self._config.drain_seconds)
        deadline = time.monotonic() + self._config.drain_seconds
        self._tell_platform(self._transport.drain)
        with self._changed:
            # A lease granted just before the drain may still be on its way to the polling thread.
            self._changed.wait_for(lambda: self._leases, timeout=0.3)
            while self._leases and not self._hurried and time.monotonic() < deadline:
                self._changed.wait(0.2)  # a signal handler sets `_hurried`, and may take no lock
            self._hand_back()
        self._await_proofs()
        self.detach()
        logger.info("signed off", **self.summary.jobs)

    def _hand_back(self) -> None:
        for lease in self._leases.values():
            logger.warning("handing a job back", job=lease.id, reason="asked twice" if self._hurried else "out of time")
            lease.returned = True
            lease.canceled.set()
        self._changed.wait_for(lambda: not self._leases, timeout=HAND_BACK_SECONDS)

    def _deliver_kept(self) -> None:
        """What an earlier run could not deliver: from now on its leases are renewed, if they still hold."""
        for kept in outbox.kept(self._config.undelivered):
            lease = self._leases[kept["job"]["id"]] = Lease(kept["job"])
            threading.Thread(target=self._deliver, args=(lease, kept["body"]), daemon=True).start()

    def _deliver(self, lease: Lease, body: JSON) -> None:
        ended = "lost"
        try:
            self._worker.deliver(lease, body)
            ended = "completed"
            logger.info("a kept result was delivered", job=lease.id)
        except DomainError as error:
            logger.warning("a kept result was not taken", job=lease.id, code=error.code, reason=error.message)
        finally:
            self._ended(lease, ended)

    def _tell_platform(self, call: Callable[[], None]) -> None:
        try:
            call()
        except DomainError as error:
            logger.warning("the platform did not take the leave", code=error.code, reason=error.message)

    # -- registration --------------------------------------------------------------------------
    def _measure(self) -> None:
        for device in self._devices:
            with self._sandbox.workspace() as workspace:
                limits = Limits(seconds=120, memory_bytes=self._config.memory_bytes)
                asked = {"seconds": BENCHMARK_SECONDS}
                found = self._sandbox.run(workspace, "benchmark", asked, limits, self._slot(device)).output
            self._measured[device.uuid] = found
            logger.info("device measured", uuid=device.uuid, model=device.model, **found)

    def _register_patiently(self) -> None:
        for pause in pauses():
            try:
                self._register()
                return
            except Unavailable as error:
                logger.warning("the platform does not answer; trying on", reason=error.message)
                if self._stopping.wait(pause):
                    return

    def _register(self) -> None:
        nonce = self._transport.nonce()
        answer = self._transport.register(self._profile(nonce))
        self.summary.miner = answer["id"]
        self._chain_id, self._wait_url = int(answer["chain_id"]), answer.get("wait_url")
        self._heart.registered(answer)
        logger.info("registered", miner=answer["id"], state=answer["state"], kinds=self.kinds)
        self._take_challenges(answer)

    def _register_again(self) -> None:
        """When the platform has forgotten this miner; the next heartbeat or poll tries again."""
        try:
            self._register()
        except DomainError as error:
            logger.warning("not registered", code=error.code, reason=error.message)

    def _profile(self, nonce: JSON) -> JSON:
        config = self._config
        signed = {"prefix": self._prefix, "nonce": nonce["nonce"], "address": self._identity.address}
        domain = statements.domain(int(nonce["chain_id"]))
        return {
            "name": config.name,
            "region": config.region,
            "concurrency": config.slots,
            "kinds": self.kinds,
            "models": self._models,
            "devices": [self._claim(device) for device in self._devices],
            "price": {"amount": config.price, "asset": "AIT"},
            "address": self._identity.address,
            "nonce": nonce["nonce"],
            "proof": self._identity.sign(domain, statements.MINER_REGISTRATION, signed),
            "sandbox": self._sandbox.tier,
        }

    def _claim(self, device: Device) -> JSON:
        names = ("uuid", "kind", "model", "memory_mb", "cuda", "driver")
        return {name: getattr(device, name) for name in names} | self._measured[device.uuid]

    # -- what heartbeats bring -----------------------------------------------------------------
    def _obey(self, answer: JSON) -> None:
        for job in answer["cancel"]:
            if lease := self._leases.get(str(job)):
                logger.info("asked to stop a job", job=str(job))
                lease.canceled.set()
        self._take_challenges(answer)
        for lease in list(self._leases.values()):
            self._worker.tell(lease)
        if not self._stopping.is_set():
            self._start_orders()

    def _start_orders(self) -> None:
        """The devices are ready as long as this miner lives: an order begins when its time has come."""
        try:
            due = [
                o["id"] for o in self._transport.orders() if datetime.fromisoformat(o["starts_at"]) <= datetime.now(UTC)
            ]
            for order in due:
                self._transport.start_order(order)
                logger.info("order started", order=order)
        except DomainError as error:  # the next heartbeat tries again, until the order's start deadline
            logger.warning("an order was not started", code=error.code, reason=error.message)

    def _take_challenges(self, answer: JSON) -> None:
        """All at once, each in a thread of its own: heartbeats and jobs go on while the devices prove themselves."""
        for asked in answer.get("challenges") or filter(None, [answer.get("challenge")]):
            if asked["id"] not in self._challenged:
                self._challenged.add(asked["id"])
                prover = threading.Thread(target=self._answer, args=(asked,), name="challenge", daemon=True)
                prover.start()
                self._provers = [*filter(threading.Thread.is_alive, self._provers), prover]

    def _await_proofs(self) -> None:
        for prover in self._provers:
            prover.join()

    def _answer(self, asked: JSON) -> None:
        log = logger.bind(challenge=asked["id"], device=asked["device"])
        try:
            verdict = self._prove(asked)
            log.info("challenge answered", passed=verdict["passed"], tflops=verdict["tflops"])
        except (DomainError, RuntimeFailure, Canceled, StopIteration) as error:
            log.warning("challenge not answered", reason=str(error))

    def _prove(self, asked: JSON) -> JSON:
        device = next(device for device in self._devices if device.uuid == asked["device"])
        slot = self._slot(device)
        limits = Limits(seconds=600, memory_bytes=self._config.memory_bytes)
        if asked.get("proof") == "memory":
            return self._prove_memory(asked, limits, slot)
        spec = protocol.Spec.from_json(asked["spec"]).as_json()
        with self._sandbox.workspace() as workspace:
            work = self._sandbox.run(workspace, "challenge.commit", spec, limits, slot, self._stopping.is_set)
            nonce = self._transport.challenge_commit(asked["id"], work.output["roots"])
            if not nonce["rows"]:
                return {"passed": False, "tflops": None}  # the roots came too late
            payload = {"spec": spec, "places": nonce["rows"]}
            opened = self._sandbox.run(workspace, "challenge.open", payload, limits, slot)
        return self._transport.challenge_open(asked["id"], opened.output)

    def _prove_memory(self, asked: JSON, limits: Limits, slot: Slot) -> JSON:
        """The sandboxed process holds the memory; roots and nonces pass through files of its folder."""
        with self._sandbox.workspace() as workspace, ThreadPoolExecutor(1) as pool:
            stopped = self._stopping.is_set
            proof = pool.submit(self._sandbox.run, workspace, "challenge.memory", asked["spec"], limits, slot, stopped)
            for said in ("fill", "walk"):
                while (roots := workspace.read(said, 1 << 20)) is None and not proof.done():
                    time.sleep(0.002)
                if roots is None:
                    break  # the process ended before; its failure is raised below
                answer = self._transport.challenge_memory(asked["id"], {"roots": roots.decode().split(",")})
                if answer["verdict"] is not None:
                    (workspace.folder / f"{said}.nonce").write_text("stop")
                    return dict(answer["verdict"])
                (workspace.folder / "heard").write_text(answer["nonce"])
                os.replace(workspace.folder / "heard", workspace.folder / f"{said}.nonce")
            return dict(self._transport.challenge_memory(asked["id"], {"rows": proof.result().output})["verdict"])

    # -- jobs ----------------------------------------------------------------------------------
    def _poll_on(self, once: bool) -> None:
        try:
            self._poll_once() if once else self._poll_for_ever()
        except BaseException as error:  # handed to `run`, which raises it in the caller's thread
            self._crash = error
        finally:
            self._stopping.set()

    def _poll_once(self) -> None:
        self._await_proofs()
        deadline = time.monotonic() + ONCE_SECONDS
        while time.monotonic() < deadline and not self._stopping.is_set():
            if self._poll(most=1, wait_seconds=1):
                return
        logger.info("no job came", seconds=ONCE_SECONDS)

    def _poll_for_ever(self) -> None:
        tries = pauses()
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._slots or self._stopping.is_set())
            if self._stopping.is_set():  # the slot came free while the miner was being stopped
                return
            try:
                begun = time.monotonic()
                wait_seconds = 0 if self._wait_url else WAIT_SECONDS / 2
                if not self._poll(most=len(self._slots), wait_seconds=wait_seconds):
                    self._idle(begun)
                tries = pauses()
            except NotFound:
                self._register_again()
                self._stopping.wait(next(tries))
            except Unavailable as error:
                logger.warning("the platform does not answer; trying on", reason=error.message)
                self._stopping.wait(next(tries))

    def _idle(self, begun: float) -> None:
        """Until there may be work. Where all places to wait are taken the answer comes at once: pause."""
        try:
            if self._wait_url is not None:
                return self._transport.wait(self._wait_url, seconds=WAIT_SECONDS)
            if time.monotonic() - begun >= 1:
                return
        except (Unavailable, NotFound) as error:  # polling still works, only slower
            logger.info("no place to wait", reason=error.message)
        self._stopping.wait(1)

    def _poll(self, *, most: int, wait_seconds: float) -> int:
        jobs = self._transport.poll(max_jobs=most, wait_seconds=wait_seconds, kinds=self.kinds)
        for job in jobs:
            self._begin(Lease(job))
        return len(jobs)

    def _begin(self, lease: Lease) -> None:
        logger.info("job leased", job=lease.id, kind=lease.job["kind"], attempt=lease.job["attempt"])
        with self._changed:
            slot = self._slots.pop()
            self._leases[lease.id] = lease
            self._changed.notify_all()
        threading.Thread(target=self._perform, args=(lease, slot), name=f"job-{lease.id}", daemon=True).start()

    def _perform(self, lease: Lease, slot: Slot) -> None:
        ended = "failed"
        try:
            ended = self._worker.perform(lease, slot, chain_id=self._chain_id)
        finally:
            self._slots.append(slot)
            self._ended(lease, ended)

    def _ended(self, lease: Lease, how: str) -> None:
        with self._changed:
            del self._leases[lease.id]
            self.summary.jobs[how] += 1
            self._changed.notify_all()
