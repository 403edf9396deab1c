import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from apps.gpu import runtimes
from apps.gpu.agent import bubblewrap, confine, workspace, zygote
from apps.gpu.agent.sandbox import MIB, Canceled, Limits, Sandbox, Slot
from apps.gpu.runtimes import bench_matmul
from apps.gpu.runtimes.contract import Code, Context, Runtime, RuntimeFailure

MATMUL = {"kind": "bench.matmul", "input": {"n": 64, "seed": 7, "dtype": "float32"}}
FOREVER = {"kind": "bench.matmul", "input": {"n": 2048, "seed": 7, "dtype": "float32", "repeats": 1000}}


@pytest.fixture(scope="module")
def sandbox():
    """A real sandbox of the tier process; its zygote also knows the tasks of `misbehaviour`."""
    known = runtimes.runtimes()
    extra = Runtime("x", lambda *_: ({}, {}), lambda _: None, preload=("apps.gpu.tests.misbehaviour",))
    patch = pytest.MonkeyPatch()
    patch.setattr(runtimes, "runtimes", lambda: {**known, "x": extra})
    patch.setenv("PLANTED_SECRET", "ait_secret")
    with contextlib.closing(Sandbox(tier="process", threads=1)) as made:
        yield made
    patch.undo()


def run(sandbox, task, payload=None, *, stopped=lambda: False, **limits):
    with sandbox.workspace() as folder:
        return sandbox.run(folder, task, payload, Limits(**{"seconds": 30, **limits}), Slot(), stopped)


def failure(sandbox, task, payload=None, **limits):
    with pytest.raises(RuntimeFailure) as caught:
        run(sandbox, task, payload, **limits)
    return caught.value


def gone(pid, seconds=5.0):
    """Whether a process ends within `seconds`; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def jobs_of(sandbox):
    return psutil.Process(sandbox._zygote.pid).children()


def test_a_job_runs_and_says_in_its_metrics_how(sandbox, tmp_path):
    outcome = run(sandbox, "job", MATMUL)

    expected, _ = bench_matmul.run(MATMUL["input"], Context(tmp_path, {}))
    assert outcome.output["root"] == expected["root"]
    assert outcome.metrics["sandbox"]["tier"] == "process"
    assert 0 < outcome.metrics["runtime_seconds"] <= outcome.milliseconds / 1000
    assert outcome.metrics["wall_ms"] == outcome.milliseconds
    assert 10 < outcome.metrics["peak_memory_mb"] < 1000
    assert jobs_of(sandbox) == []


def test_a_job_sees_no_secret_of_the_miner(sandbox):
    assert "PLANTED_SECRET" in os.environ
    assert "PLANTED_SECRET" not in sandbox.facts["environment"]
    environ = Path(f"/proc/{sandbox._zygote.pid}/environ").read_bytes()
    assert b"ait_secret" not in environ


def test_the_warm_process_parses_nothing_and_its_jobs_share_no_state(sandbox):
    first = run(sandbox, "job", MATMUL)
    second = run(sandbox, "job", MATMUL)

    assert first.output["root"] == second.output["root"]
    # A fork of a warm process: the imports alone would take 0.2 s of a processor.
    assert second.metrics["cpu_seconds"] < 0.15


def test_a_job_over_its_time_is_killed(sandbox):
    begun = time.monotonic()

    caught = failure(sandbox, "job", FOREVER, seconds=0.5)

    assert (caught.code, caught.fault) == (Code.TIMEOUT, "client")
    assert caught.message == "the job ran longer than its 0.5 seconds"
    assert 0.5 <= time.monotonic() - begun < 5
    assert jobs_of(sandbox) == []


def test_a_job_that_ignores_signals_is_killed_all_the_same(sandbox):
    assert failure(sandbox, "ignore signals", seconds=0.3).code == Code.TIMEOUT
    assert jobs_of(sandbox) == []


@pytest.mark.parametrize("task", ["allocate", "allocate in a child"])
def test_a_job_over_its_resident_memory_is_killed(sandbox, task):
    caught = failure(sandbox, task, memory_bytes=400 * MIB)

    assert (caught.code, caught.fault) == (Code.MEMORY, "client")
    assert "its limit is 400 MiB" in caught.message
    assert jobs_of(sandbox) == []


def test_an_output_over_its_size_is_refused(sandbox):
    assert len(run(sandbox, "large output", 500_000, output_bytes=MIB).output) == 500_000

    caught = failure(sandbox, "large output", 2 * MIB, output_bytes=MIB)

    assert (caught.code, caught.fault) == (Code.OUTPUT_TOO_LARGE, "client")


def test_a_file_over_its_size_is_refused(sandbox):
    assert run(sandbox, "write a large file", 100_000, file_bytes=MIB).output == "written"
    assert failure(sandbox, "write a large file", 2 * MIB, file_bytes=MIB).code == Code.OUTPUT_TOO_LARGE


def test_a_job_that_dies_by_itself_is_a_crash_of_the_provider(sandbox):
    caught = failure(sandbox, "segfault")

    assert (caught.code, caught.fault) == (Code.CRASHED, "provider")
    assert caught.message == "the job ended without a result: killed by SIGSEGV"


def test_a_job_killed_from_outside_is_a_crash(sandbox):
    def kill():
        while not jobs_of(sandbox):
            time.sleep(0.01)
        jobs_of(sandbox)[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()

    assert failure(sandbox, "sleep", 30).message == "the job ended without a result: killed by SIGKILL"
    killer.join()


def test_an_unknown_kind_has_its_own_reason(sandbox):
    caught = failure(sandbox, "job", {"kind": "no.such", "input": {}})

    assert (caught.code, caught.fault) == (Code.UNKNOWN, "provider")
    assert caught.message == "this miner has no runtime for 'no.such'"


def test_a_failure_inside_the_runtime_keeps_its_reason(sandbox):
    caught = failure(sandbox, "job", {"kind": "onnx.infer", "input": {"model": "ab" * 32, "inputs": {}}})

    assert caught.code == Code.INVALID_INPUT
    assert "was not given to this job" in caught.message


def test_a_canceled_job_stops_at_once(sandbox):
    canceled = threading.Event()
    threading.Timer(0.3, canceled.set).start()
    begun = time.monotonic()

    with pytest.raises(Canceled):
        run(sandbox, "sleep", 30, stopped=canceled.is_set)

    assert time.monotonic() - begun < 5
    assert jobs_of(sandbox) == []


def test_a_process_that_left_its_group_is_ended_with_the_job(sandbox):
    stray = run(sandbox, "leave a stray").output

    assert gone(stray, 0.5)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_result_that_is_no_plain_file_is_not_followed(sandbox, tmp_path, kind):
    (tmp_path / "secret").write_text('{"output": "stolen", "metrics": {}}')

    assert failure(sandbox, f"result is a {kind}", str(tmp_path / "secret")).code == Code.CRASHED


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"output": 1}', '{"failure": {"code": "job.paid", "message": ""}, "usage": {}}', '"x"']
)
def test_a_result_that_the_job_made_up_is_a_crash(sandbox, text):
    caught = failure(sandbox, "result is a text", text)

    assert (caught.code, caught.message) == (Code.CRASHED, "the job left a result that is not one")


def test_a_job_has_no_network_where_the_system_lets_it_be_cut(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = run(sandbox, "connect", server.getsockname()[1]).output

    assert (answer == "connected") == (sandbox.facts["network"] == "host")


def test_two_jobs_run_side_by_side(sandbox):
    begun = time.monotonic()
    outputs = []
    threads = [threading.Thread(target=lambda: outputs.append(run(sandbox, "sleep", 2).output)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outputs == ["slept", "slept"]
    assert time.monotonic() - begun < 3.9


def test_the_scratch_folder_is_gone_with_the_job(sandbox):
    with sandbox.workspace() as folder:
        folder.place("ab" * 32).write_bytes(b"input")
        sandbox.run(folder, "job", MATMUL, Limits(seconds=30), Slot())
        assert folder.folder.exists()

    assert not folder.folder.exists()


def test_a_zygote_that_was_killed_is_started_anew(sandbox):
    before = sandbox._zygote.pid
    os.kill(before, signal.SIGKILL)
    assert gone(before)

    assert failure(sandbox, "job", MATMUL).message == "the miner's warm process had ended"
    assert run(sandbox, "job", MATMUL).output["n"] == 64
    assert sandbox._zygote.pid != before


MINER = """
import sys
from apps.gpu.agent.sandbox import *
sandbox = Sandbox(tier="process")
with sandbox.workspace() as folder:
    print(sandbox._zygote.pid, folder.folder, flush=True)
    payload = {"kind": "bench.matmul", "input": {"n": 2048, "seed": 1, "dtype": "float32", "repeats": 1000}}
    sandbox.run(folder, "job", payload, Limits(seconds=60), Slot())
"""


def test_kill_9_of_the_miner_leaves_no_process_and_its_folder_is_swept_by_the_next():
    argv = [sys.executable, "-c", MINER]
    with subprocess.Popen(argv, cwd=zygote.ROOT, stdout=subprocess.PIPE, text=True) as miner:
        pid, folder = miner.stdout.readline().split()
        while not psutil.Process(int(pid)).children():
            time.sleep(0.01)
        job = psutil.Process(int(pid)).children()[0].pid
        miner.kill()

    assert gone(job)
    assert gone(int(pid))
    assert Path(folder).exists()
    with contextlib.closing(workspace.Workspaces(separate_uids=False)) as mine:
        assert not Path(folder).parent.exists()
        with contextlib.closing(workspace.Workspaces(separate_uids=False)):
            assert mine.root.exists()  # a living miner's folder stays


def confined(uid, body):
    """What `body` returns in a forked process after `confine`; JSON through a pipe."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, write)  # what other tests of this process left open would count against the limit
            os.closerange(write + 1, 65_536)
            facts = confine.confine(uid=uid, cpu_seconds=7, file_bytes=MIB, parent=os.getppid())
            os.write(write, json.dumps([facts, body()]).encode())
        except BaseException as error:
            os.write(write, json.dumps([{"failed": repr(error)}, None]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    assert text, f"the process wrote nothing and ended with {status}"
    facts, seen = json.loads(text)
    assert "failed" not in facts, facts
    return facts, seen


def test_a_confined_process_has_its_limits_and_no_way_back(tmp_path):
    secret = tmp_path / "key"
    secret.write_text("x")
    secret.chmod(0o600)
    uid = 64_000 if os.geteuid() == 0 else None

    def body():
        return [
            resource.getrlimit(resource.RLIMIT_CPU),
            resource.getrlimit(resource.RLIMIT_FSIZE),
            resource.getrlimit(resource.RLIMIT_CORE),
            Path("/proc/self/oom_score_adj").read_text().strip(),
            "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(),
            os.access(secret, os.R_OK),
            len(Path("/proc/self/net/dev").read_text().splitlines()) - 2,
        ]

    facts, seen = confined(uid, body)

    assert facts["uid"] == (uid or os.geteuid())
    assert seen[:5] == [[7, 7], [MIB, MIB], [0, 0], "1000", True]
    assert seen[5] == (uid is None)
    assert (seen[6] == 1) == (facts["network"] == "none")


def test_bubblewrap_shows_a_job_only_the_code_and_its_folder(tmp_path):
    argv = bubblewrap.argv(tmp_path, {"LANG": "C"}, "{}")
    sources = {argv[at + 1] for at, part in enumerate(argv) if part in ("--ro-bind", "--bind")}

    assert {"--unshare-all", "--die-with-parent", "--clearenv", "--cap-drop"} <= set(argv)
    assert not {str(zygote.ROOT), str(zygote.ROOT / "var"), "/", "/home", "/etc", "/var", "/tmp"} & sources
    assert {str(zygote.ROOT / "apps"), str(zygote.ROOT / "aitbc"), str(tmp_path)} <= sources


def test_bubblewrap_is_taken_only_where_its_self_test_passes():
    if reason := bubblewrap.missing():
        assert reason == "bwrap (bubblewrap) is not installed"
        with pytest.raises(RuntimeError, match=r"the sandbox tier bubblewrap is not available: bwrap"):
            Sandbox(tier="bubblewrap")
        return
    with contextlib.closing(Sandbox()) as strongest:
        assert strongest.tier == "bubblewrap"
        assert (strongest.facts["readable"], strongest.facts["interfaces"]) == ([], [])
        assert strongest.facts["processes"] < 10
        assert run(strongest, "job", MATMUL).output["n"] == 64
        assert failure(strongest, "job", FOREVER, seconds=1).code == Code.TIMEOUT
        assert failure(strongest, "job", FOREVER, memory_bytes=20 * MIB).code == Code.MEMORY


def test_a_bubblewrap_that_does_not_work_here_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert shutil.which("bwrap") == str(tmp_path / "bwrap")

    with contextlib.closing(Sandbox()) as fallen_back:
        assert fallen_back.tier == "process"
    with pytest.raises(RuntimeError, match="ended without a result: exit code 1"):
        Sandbox(tier="bubblewrap")
