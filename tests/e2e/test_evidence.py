"""From a job that really runs in a sandbox to what its client reads of it: its log, rows under its root."""

import contextlib

import orjson
import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.agent import loop
from apps.gpu.agent.detect import detect
from apps.gpu.agent.identity import load_identity
from apps.gpu.agent.loop import Agent, Config
from apps.gpu.agent.sandbox import Sandbox
from apps.gpu.services.first_party import LocalTransport
from apps.gpu.tests.steps import read, submit


@pytest.fixture
def worker(committed_db, tmp_path, monkeypatch):
    """The platform's own worker, as a task of the queue `gpu` makes it."""
    monkeypatch.setattr(loop, "BENCHMARK_SECONDS", 0.01)
    monkeypatch.setattr(Agent, "_take_challenge", lambda *_: None)  # half a minute of another story
    cast.ensure_receipt_key()
    owner = cast.person("owner", role="miner")
    with contextlib.closing(Sandbox(tier="process", threads=1)) as sandbox:
        agent = Agent(
            transport=LocalTransport(owner.principal),
            identity=load_identity(tmp_path / "signing.key"),
            sandbox=sandbox,
            devices=detect(cpus=(0,)).devices,
            config=Config(name="worker", region="eu", price="0.001", kinds=("bench.matmul",)),
            prefix=owner.principal.prefix,
        )
        agent.attach()
        yield agent
        agent.detach()


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
