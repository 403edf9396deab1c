"""Many connections poll for the same jobs at once and do them for real: is one ever leased twice?"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aitbc.chain.signing import Domain
from aitbc.core.errors import DomainError
from aitbc.demo.failure import Failed, require
from aitbc.demo.miners import PRICE, Daemon
from apps.gpu import runtimes, statements
from apps.gpu.agent.detect import processor
from apps.gpu.agent.heartbeat import Heart
from apps.gpu.agent.identity import Identity, load_identity, read_api_key
from apps.gpu.agent.transport import HttpTransport
from apps.gpu.agent.work import statement_of
from apps.gpu.runtimes.contract import Context

JSON = dict[str, Any]
KIND = "bench.matmul"


@dataclass
class Contest:
    """What all pollers together saw."""

    jobs: set[str]
    leases: Counter[str] = field(default_factory=Counter)
    done: set[str] = field(default_factory=set)
    empty: int = 0
    problems: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    seconds: float = 0.0

    def note_leases(self, jobs: Sequence[JSON]) -> None:
        with self.lock:
            self.leases.update(job["id"] for job in jobs)
            self.empty += not jobs

    def note_done(self, job: str) -> None:
        with self.lock:
            self.done.add(job)
            if self.done >= self.jobs:
                self.over.set()

    def fail(self, problem: str) -> None:
        self.problems.append(problem)
        self.over.set()

    def verdict(self) -> str | None:
        """What is wrong, None if every job was leased and done exactly once."""
        twice = [job for job, count in self.leases.items() if count > 1]
        if self.problems:
            return self.problems[0]
        if twice:
            return f"{len(twice)} jobs were leased more than once, for example {twice[0]}"
        if strangers := set(self.leases) - self.jobs:
            return f"{len(strangers)} leased jobs were not submitted here"
        if missing := self.jobs - self.done:
            return f"{len(missing)} of {len(self.jobs)} jobs were not done"
        return None


class Seller:
    """A registered miner whose jobs several connections fetch and do; its leases live while it beats."""

    def __init__(self, daemon: Daemon, *, url: str, region: str, slots: int) -> None:
        key, self._prefix = read_api_key(daemon.key_file)
        self.name, self._region, self._slots = daemon.name, region, slots
        self._identity: Identity = load_identity(daemon.state_dir / "signing.key")
        self._device = processor([daemon.cpu])
        self.transport = HttpTransport(url, key)
        self._held: set[str] = set()
        self._heart = Heart(
            transport=self.transport,
            identity=self._identity,
            devices=[self._device],
            running=lambda: list(self._held),
            on_answer=lambda answer: None,
            on_unknown=lambda: None,
        )

    def register(self) -> None:
        nonce = self.transport.nonce()
        self._domain: Domain = statements.domain(int(nonce["chain_id"]))
        signed = {"prefix": self._prefix, "nonce": nonce["nonce"], "address": self._identity.address}
        names = ("uuid", "kind", "model", "memory_mb", "cuda", "driver")
        answer = self.transport.register(
            {
                "name": self.name,
                "region": self._region,
                "concurrency": self._slots,
                "kinds": [KIND],
                "devices": [{name: getattr(self._device, name) for name in names}],
                "price": {"amount": PRICE, "asset": "AIT"},
                "address": self._identity.address,
                "nonce": nonce["nonce"],
                "proof": self._identity.sign(self._domain, statements.MINER_REGISTRATION, signed),
            }
        )
        self._heart.registered(answer)
        self._heart.start()

    def leave(self) -> None:
        self._heart.stop()
        self.transport.sign_off()
        self.transport.close()

    def poll(self, contest: Contest, context: Context) -> bool:
        """Lease one job and do it; False when there was none."""
        jobs = self.transport.poll(max_jobs=1, wait_seconds=0, kinds=[KIND])
        contest.note_leases(jobs)
        for job in jobs:
            self._held.add(job["id"])
            self.transport.result(job["id"], self._work(job, context))
            self._held.discard(job["id"])
            contest.note_done(job["id"])
        return bool(jobs)

    def _work(self, job: JSON, context: Context) -> JSON:
        output, metrics = runtimes.find(job["kind"]).run(job["input"], context)
        salt = statements.hex32(job["salt"])
        statement = statement_of(job, output_commitment=statements.commitment(salt=salt, value=output))
        return {
            "lease_token": job["lease_token"],
            "output": output,
            "metrics": metrics,
            "statement_signature": self._identity.sign(
                self._domain, statements.WORK_STATEMENT, statement.values()
            ),
        }


def contend(
    sellers: Sequence[Seller],
    *,
    jobs: set[str],
    connections: int,
    context: Context,
    seconds: float,
    tell: Callable[[str], None],
) -> Contest:
    """All `connections` poll at once until every job is done, or for at most `seconds`."""
    contest, start = Contest(jobs), threading.Barrier(connections + 1)
    threads = [
        threading.Thread(
            target=_poll_on, args=(sellers[i % len(sellers)], contest, context, start), daemon=True
        )
        for i in range(connections)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.monotonic()
    try:
        _watch(contest, deadline=begun + seconds, tell=tell)
    finally:
        contest.over.set()
        for thread in threads:
            thread.join(timeout=60)
    contest.seconds = time.monotonic() - begun
    require(not any(thread.is_alive() for thread in threads), "a poller got no answer for a minute")
    return contest


def _watch(contest: Contest, *, deadline: float, tell: Callable[[str], None]) -> None:
    while not contest.over.wait(2):
        tell(f"{len(contest.done)} of {len(contest.jobs)} jobs done")
        if time.monotonic() > deadline:
            raise Failed(
                f"{len(contest.jobs) - len(contest.done)} jobs are not done in time", log="log/web.log"
            )


def _poll_on(seller: Seller, contest: Contest, context: Context, start: threading.Barrier) -> None:
    start.wait()
    try:
        while not contest.over.is_set():
            if not seller.poll(contest, context):
                contest.over.wait(0.02)
    except DomainError as error:
        contest.fail(f"a poller was refused: {error}")
    except Exception as error:
        contest.fail(f"a poller failed: {type(error).__name__}: {error}")
