"""From a job that really runs in a sandbox to what its client reads of it: its log, rows under its root."""

import orjson
import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu import worker as own_worker
from apps.gpu.agent import loop
from apps.gpu.agent.loop import Agent
from apps.gpu.models import Miner
from apps.gpu.tests.steps import read, submit


@pytest.fixture
def worker(committed_db, settings, tmp_path, monkeypatch):
    """The platform's own worker, as a task of the queue `gpu` makes it."""
    monkeypatch.setattr(loop, "BENCHMARK_SECONDS", 0.01)
    monkeypatch.setattr(Agent, "_take_challenges", lambda *_: None)  # half a minute of another story
    settings.VAR_DIR, settings.GPU_WORKER_CPUS = tmp_path, "0"
    (settings.KEYS_DIR / "gpu-worker-0.key").unlink(missing_ok=True)  # of a database that is gone
    cast.ensure_receipt_key()
    yield own_worker.agent.__wrapped__()
    own_worker.leave()


def test_the_platforms_own_worker_is_known_as_such_and_signs_off(worker):
    miner = Miner.objects.get(pk=worker.summary.miner)
    assert (miner.first_party, miner.state, miner.owner.email) == (True, "online", own_worker.EMAIL)

    own_worker.leave()

    miner.refresh_from_db()
    assert (miner.first_party, miner.state) == (True, "offline")


def test_a_job_that_ran_shows_its_log_and_proves_its_rows(worker):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    job = submit(alice, input={"n": 100, "seed": 5, "dtype": "float16"})["id"]

    assert worker.serve_one() == "completed"

    started, done = alice.get(f"/v1/jobs/{job}/logs").content.decode().splitlines()
    assert started == "bench.matmul: started on cpu, threads 1"
    assert done.startswith("bench.matmul: done after ")
    root = read(alice.get(f"/v1/jobs/{job}/result"))["output"]["root"]
    row = read(alice.get(f"/v1/jobs/{job}/rows?index=99"))
    assert (row["root"], row["index"], len(row["row"])) == (root, 99, 100)
    events = alice.get(f"/v1/jobs/{job}/logs", accept="text/event-stream").content.decode()
    assert events.endswith('event: end\ndata: {"state":"completed"}\n\n')
    assert orjson.loads(events.split("event: end\ndata: ")[1]) == {"state": "completed"}
