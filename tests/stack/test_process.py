import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aitbc.stack import process
from aitbc.stack.errors import StackError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def files(folder: Path) -> dict[str, Path]:
    return {"pid_file": folder / "it.pid", "log": folder / "it.log"}


def test_a_started_process_is_recorded_and_stopped(tmp_path):
    pid = process.start(SLEEP, **files(tmp_path))

    assert process.running(tmp_path / "it.pid") == pid
    process.stop(tmp_path / "it.pid", with_signal=signal.SIGTERM, seconds=5, force=False)

    assert process.identify(pid) is None
    assert not (tmp_path / "it.pid").exists()


def test_a_recycled_pid_is_never_taken_for_the_process_nor_killed(tmp_path):
    stranger = subprocess.Popen(SLEEP)
    identity = process.identify(stranger.pid)
    pid, ticks, boot = identity.split()
    (tmp_path / "it.pid").write_text(f"{pid} {int(ticks) - 1} {boot}\n")

    assert process.running(tmp_path / "it.pid") is None
    process.stop(tmp_path / "it.pid", with_signal=signal.SIGKILL, seconds=1, force=True)

    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_pid_of_an_earlier_boot_is_not_running(tmp_path):
    identity = process.identify(os.getpid())
    (tmp_path / "it.pid").write_text(identity.replace(identity.split()[2], "an-earlier-boot"))

    assert process.running(tmp_path / "it.pid") is None


def test_a_process_that_ended_unreaped_is_not_running(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    assert process.wait_for(lambda: process.identify(child.pid) is None, seconds=5)
    assert child.poll() == 0


def test_a_process_that_ignores_the_signal_is_an_error_unless_forced(tmp_path):
    deaf = [
        sys.executable,
        "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
    ]
    pid = process.start(deaf, **files(tmp_path))
    assert process.wait_for(lambda: (tmp_path / "it.log").read_text() == "1\n", seconds=5)

    with pytest.raises(StackError, match=f"process {pid} .* did not end"):
        process.stop(tmp_path / "it.pid", with_signal=signal.SIGTERM, seconds=0.2, force=False)

    assert process.running(tmp_path / "it.pid") == pid
    process.stop(tmp_path / "it.pid", with_signal=signal.SIGTERM, seconds=0.2, force=True)
    assert process.identify(pid) is None


def test_an_owned_process_dies_with_its_parent_even_by_kill_9(tmp_path, run_python):
    code = f"""
import signal, time
from pathlib import Path
from aitbc.stack import process
folder = Path({str(tmp_path)!r})
pid = process.start(
    {SLEEP!r}, pid_file=folder / "it.pid", log=folder / "it.log", death_signal=signal.SIGTERM
)
print(pid, flush=True)
time.sleep(600)
"""
    parent = run_python(code)
    pid = int(parent.stdout.readline())
    assert process.running(tmp_path / "it.pid") == pid

    parent.kill()
    parent.communicate()

    assert process.wait_for(lambda: process.identify(pid) is None, seconds=5)


def test_a_missing_program_is_an_error_that_names_it(tmp_path):
    with pytest.raises(StackError, match="cannot start /no/such/program"):
        process.start(["/no/such/program"], **files(tmp_path))
    assert process.running(tmp_path / "it.pid") is None


def test_a_process_that_ends_while_starting_is_reported_with_its_log(tmp_path):
    def check() -> None:
        raise StackError("no answer")

    process.start([sys.executable, "-c", "raise SystemExit('the disk is full')"], **files(tmp_path))
    began = time.monotonic()

    with pytest.raises(StackError, match=r"(?s)thing ended while starting.*the disk is full"):
        process.wait_until_healthy(check, name="thing", seconds=30, **files(tmp_path))
    assert time.monotonic() - began < 10


def test_a_taken_port_is_not_free_and_another_one_is_chosen(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    )
    port = int(server.stdout.readline().split(" port ")[1].split()[0])

    assert process.listens(server.pid, port)
    assert not process.listens(os.getpid(), port)
    assert not process.is_free(port)
    assert process.free_port(port) in process.PORTS
    assert process.free_port(port) != port

    server.kill()
    server.communicate()
    assert process.free_port(port) == port


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_LOG_BYTES", 10)
    (tmp_path / "it.log").write_text("of the last run")

    process.start([sys.executable, "-c", "print('new')"], **files(tmp_path))

    assert process.wait_for(lambda: (tmp_path / "it.log").read_text() == "new\n", seconds=5)
    assert (tmp_path / "it.log.1").read_text() == "of the last run"
