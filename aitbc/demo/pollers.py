"""Many connections poll for the same jobs at once and do them for real: is one ever leased twice?"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from aitbc.chain.signing import Domain
from aitbc.demo.failure import require
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
    """What all pollers together saw: each lease and each accepted result, in lists that threads append to."""

    jobs: set[str]
    leased: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    seconds: float = 0.0

    def leased_more_than_once(self) -> list[str]:
        return [job for job, count in Counter(self.leased).items() if count > 1]

    def require_each_once(self) -> None:
        """Failed unless every job was leased and done exactly once."""
        twice, strangers = self.leased_more_than_once(), set(self.leased) - self.jobs
        missing = self.jobs - set(self.done)
        require(not twice, f"{len(twice)} jobs were leased more than once, for example {twice[:1]}")
        require(not strangers, f"{len(strangers)} leased jobs were not submitted here")
        require(not missing, f"{len(missing)} of {len(self.jobs)} jobs were not done")


class Seller:
    """A registered miner whose jobs several connections fetch and do; its leases live while it beats."""

    def __init__(self, daemon: Daemon, *, url: str, region: str, slots: int) -> None:
        key, self._prefix = read_api_key(daemon.write_key())
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
        for job in jobs:
            contest.leased.append(job["id"])
            self._held.add(job["id"])
            self.transport.result(job["id"], self._work(job, context))
            self._held.discard(job["id"])
            contest.done.append(job["id"])
        return bool(jobs)

    def _work(self, job: JSON, context: Context) -> JSON:
        output, metrics = runtimes.find(job["kind"]).run(job["input"], context)
        salt = statements.hex32(job["salt"])
        statement = statement_of(job, output_commitment=statements.commitment(salt=salt, value=output))
        signature = self._identity.sign(self._domain, statements.WORK_STATEMENT, statement.values())
        return {
            "lease_token": job["lease_token"],
            "output": output,
            "metrics": metrics,
            "statement_signature": signature,
        }


def contend(
    sellers: Sequence[Seller],
    *,
    jobs: Sequence[str],
    connections: int,
    context: Context,
    seconds: float,
    tell: Callable[[str], None],
) -> Contest:
    """All `connections` poll at once until every job is done; Failed after `seconds`."""
    contest, start = Contest(set(jobs)), threading.Barrier(connections + 1)
    with ThreadPoolExecutor(connections) as pool:
        pollers = [
            pool.submit(_poll_on, sellers[i % len(sellers)], contest, context, start) for i in range(connections)
        ]
        start.wait()
        begun = time.monotonic()
        try:
            while wait(pollers, timeout=2, return_when=FIRST_EXCEPTION).not_done:
                tell(f"{len(contest.done)} of {len(jobs)} jobs done")
                in_time = time.monotonic() < begun + seconds
                require(in_time, "the jobs are not done in time", log="log/web.log")
                if any(poller.done() and poller.exception() for poller in pollers):
                    break
        finally:
            contest.over.set()
    contest.seconds = time.monotonic() - begun
    for poller in pollers:
        poller.result()
    return contest


def _poll_on(seller: Seller, contest: Contest, context: Context, start: threading.Barrier) -> None:
    start.wait()
    while len(contest.done) < len(contest.jobs) and not contest.over.is_set():
        if not seller.poll(contest, context):
            contest.over.wait(0.02)
