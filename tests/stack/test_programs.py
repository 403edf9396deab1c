import os

from aitbc.stack.paths import Var
from aitbc.stack.programs import Ports, platform_programs


def test_miner_and_worker_take_the_first_and_the_last_processor_they_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 5})
    monkeypatch.delenv("GPU_WORKER_CPUS", raising=False)

    programs = {p.name: p for p in platform_programs(Var(root=tmp_path), Ports(web=1, stream=2))}

    assert programs["miner"].command[-2:] == ("--cpus", "2")
    assert programs["gpu"].environment["GPU_WORKER_CPUS"] == "5"
