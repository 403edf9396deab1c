"""kill -9 of web, workers, miners, relay and indexer at random moments while 500 jobs run.

Afterwards every job is final, none was paid twice, the ledger's audit is clean, and no escrow is left.
The seed is printed; run again with AITBC_FAULT_SEED to repeat the order of the kills.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from aitbc.core.ids import uuid7
from tests.faults.conftest import ROOT, Platform, environment

VICTIMS = ("web", "worker", "gpu", "relay", "webhooks", "chain", "stream", "beat", "miner", "extra-miner")
pytestmark = pytest.mark.timeout(900)


class ExtraMiners:
    """Miner daemons beside the platform's own; a killed one is started again, as systemd would."""

    def __init__(self, platform: Platform, count: int) -> None:
        self.platform = platform
        self.commands = [self._command(number) for number in range(count)]
        self.processes = [self._start(command) for command in self.commands]

    def _command(self, number: int) -> list[str]:
        key = self.platform.var / "keys" / f"extra{number}.key"
        key.write_text(self.platform.key(f"extra{number}@example.com", "miner", "miner"))
        key.chmod(0o600)
        return [sys.executable, "manage.py", "run_miner", "--key-file", str(key), "--url", self.platform.url,
                "--kinds", "bench.matmul", "--slots", "4", "--cpus", "0,1" if number else "1",
                "--name", f"extra {number}"]  # fmt: skip

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.platform.var / "log" / "extra-miners.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=environment(self.platform.var), stdout=log, stderr=log)

    def kill_one(self, rng: random.Random) -> None:
        index = rng.randrange(len(self.processes))
        self.processes[index].kill()
        self.processes[index].wait()
        self.processes[index] = self._start(self.commands[index])

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def submit_all(platform: Platform, client: httpx.Client, count: int) -> list[str]:
    """In batches of client-made ids, repeated until each is answered: the web is among the victims."""
    ids = [str(uuid7()) for _ in range(count)]
    for start in range(0, count, 50):
        jobs = [job_body(job, seed) for seed, job in enumerate(ids[start : start + 50], start)]
        insist(lambda body={"jobs": jobs}: client.post("/v1/jobs/batch", json=body))
    return ids


def job_body(job: str, seed: int) -> dict[str, object]:
    return {
        "id": job,
        "kind": "bench.matmul",
        "input": {"n": 64, "seed": seed, "dtype": "float32", "repeats": 3},
        "max_price": {"amount": "1", "asset": "AIT"},
        "ttl_seconds": 3600,
    }


def insist(call) -> httpx.Response:
    for _ in range(240):
        try:
            response = call()
        except httpx.TransportError:
            time.sleep(0.25)
            continue
        if response.status_code < 500:
            assert response.is_success, response.text
            return response
        time.sleep(0.25)
    raise AssertionError("the platform did not come back within a minute")


def pids(platform: Platform) -> dict[str, int]:
    record = platform.var / "run" / "platform.json"
    return json.loads(record.read_text())["processes"] if record.exists() else {}


def kill(platform: Platform, victim: str, rng: random.Random) -> bool:
    """The process itself, or one of its children: workers and web have both."""
    pid = pids(platform).get(victim)
    if pid is None:
        return False
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        os.kill(rng.choice(family).pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return True


def unfinished(platform: Platform) -> int:
    (count,) = platform.sql("SELECT count(*) FROM gpu_job WHERE state IN ('queued', 'leased', 'running')")[0]
    return count


@pytest.mark.parametrize(("jobs", "kills"), [(60, 4), pytest.param(500, 10, marks=pytest.mark.slow)])
def test_no_job_is_lost_and_none_paid_twice_while_everything_is_killed(platform: Platform, seed, jobs, kills):
    rng = random.Random(seed)
    token = platform.key("alice@example.com", "client", "jobs:read,jobs:write,money:read")
    platform.manage("fund", "--user", "alice@example.com", "--amount", "1000", "--wait", "60")
    miners = ExtraMiners(platform, 2)
    killed: dict[str, int] = dict.fromkeys(VICTIMS, 0)
    try:
        with platform.client(token) as client:
            ids = submit_all(platform, client, jobs)
            deadline = time.monotonic() + 600
            while unfinished(platform) and time.monotonic() < deadline:
                victim = rng.choice(VICTIMS)
                if victim == "extra-miner":
                    miners.kill_one(rng)
                    killed[victim] += 1
                else:
                    killed[victim] += kill(platform, victim, rng)
                time.sleep(rng.uniform(0.5, 2.5))
    finally:
        miners.stop()
    print(f"killed: {killed}")  # noqa: T201 - evidence that the faults happened

    found = platform.sql("SELECT state, count(*) FROM gpu_job WHERE id = ANY (%s::uuid[]) GROUP BY state", ids)
    assert dict(found) == {"completed": jobs}
    assert sum(killed.values()) >= kills
    paid = "SELECT reference FROM trading_transfer WHERE kind = 'job.earning' GROUP BY reference"
    assert platform.sql(f"{paid} HAVING count(*) > 1") == []
    (receipts,) = platform.sql("SELECT count(*) FROM gpu_receipt WHERE job_id = ANY (%s::uuid[])", ids)[0]
    assert receipts == jobs
    (held,) = platform.sql("SELECT coalesce(sum(held), 0) FROM trading_account")[0]
    assert held == 0
    assert platform.json("audit_ledger")["ok"] is True
    anchored_once(platform)


def anchored_once(platform: Platform) -> None:
    """Every receipt reaches exactly one final batch, although relay and indexer were killed too."""
    deadline = time.monotonic() + 180
    query = """SELECT count(*), count(*) FILTER (WHERE b.state = 'final') FROM trading_receipt_leaf l
                 LEFT JOIN trading_settlement_batch b ON b.id = l.batch_id"""
    while (counts := platform.sql(query)[0])[0] != counts[1] and time.monotonic() < deadline:
        time.sleep(1)
    assert counts[0] == counts[1] > 0


@pytest.mark.slow  # the demonstration's step "restart keeps data" is in every run
def test_a_killed_platform_keeps_its_data_over_a_restart(platform: Platform):
    before = platform.sql("SELECT count(*), coalesce(sum(posted), 0) FROM trading_account")
    jobs = platform.sql("SELECT count(*) FROM gpu_job")
    supervisor = int((platform.var / "run" / "platform.pid").read_text().split()[0])
    os.kill(supervisor, signal.SIGKILL)
    time.sleep(2)
    platform.manage("platform", "up")

    assert platform.sql("SELECT count(*), coalesce(sum(posted), 0) FROM trading_account") == before
    assert platform.sql("SELECT count(*) FROM gpu_job") == jobs
    assert platform.json("audit_ledger")["ok"] is True
