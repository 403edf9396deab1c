"""A real supervisor with small programs, in a process of its own: it takes over signals and orphans."""

import itertools
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from aitbc.stack import process

# Starts a child in a session of its own, says who both are, and sleeps.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "a").write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""


@pytest.fixture
def supervise(var, run_python, tmp_path):
    """Starts a supervisor over programs given as name -> code; its pid and a reader of what they wrote."""
    var.create()

    def start(programs, serving=(), **options):
        written = tmp_path / "written"
        written.touch()
        commands = {name: (sys.executable, "-c", code, str(written)) for name, code in programs.items()}
        body = f"""
            import logging, os
            from aitbc.stack.paths import current
            from aitbc.stack.programs import Program
            from aitbc.stack.supervisor import Supervisor
            programs = [
                Program(name=n, command=c, serves=n in {serving!r}, **{options!r})
                for n, c in {commands!r}.items()
            ]
            supervisor = Supervisor(programs, var=current(), keep=set)
            supervisor.start()
            print("started", flush=True)
            while not supervisor.wait(1):
                pass
            supervisor.stop()
        """
        running = run_python(textwrap.dedent(body))
        assert running.stdout.readline() == "started\n"
        return running, written

    return start


def lines(written: Path, count: int) -> list[list[int]]:
    """The first `count` lines of numbers that the programs wrote."""
    assert process.wait_for(lambda: len(written.read_text().splitlines()) >= count, seconds=15)
    return [[int(part) for part in line.split()] for line in written.read_text().splitlines()]


def gone(*pids: int) -> bool:
    return process.wait_for(lambda: not any(process.identify(pid) for pid in pids), seconds=10)


def test_a_program_killed_by_9_is_started_again_and_what_it_left_is_ended(supervise):
    supervisor, written = supervise({"a": PARENT})
    [(parent, child)] = lines(written, 1)

    os.kill(parent, signal.SIGKILL)

    (_, _), (second_parent, second_child) = lines(written, 2)
    assert gone(child)
    assert process.identify(second_parent)
    assert process.identify(second_child)
    supervisor.terminate()
    supervisor.communicate()


def test_sigterm_ends_the_programs_and_what_they_left(supervise):
    supervisor, written = supervise({"a": PARENT, "b": PARENT})
    pids = [pid for line in lines(written, 2) for pid in line]

    supervisor.terminate()
    supervisor.communicate()

    assert supervisor.returncode == 0
    assert gone(*pids)


def test_kill_9_of_the_supervisor_ends_the_programs(supervise):
    code = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    supervisor, written = supervise({"a": code, "b": code})
    pids = [pid for line in lines(written, 2) for pid in line]

    supervisor.kill()
    supervisor.communicate()

    assert gone(*pids)


def test_a_program_that_ignores_its_stop_signal_is_killed(supervise):
    deaf = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(600)
"""
    supervisor, written = supervise({"a": deaf}, stop_seconds=0.5)
    [[pid]] = lines(written, 1)

    supervisor.terminate()
    supervisor.communicate()

    assert gone(pid)


def test_what_serves_others_is_asked_to_end_after_them(supervise):
    code = """
import signal, sys, time
def leave(number, frame):
    open(sys.argv[1], "a").write(f"{NAME} {time.monotonic_ns()}\\n")
    time.sleep(0.5)
    open(sys.argv[1], "a").write(f"{NAME} {time.monotonic_ns()}\\n")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1], "a").write("0 0\\n")
while True:
    time.sleep(1)
"""
    programs = {"server": code.replace("NAME", "1"), "user": code.replace("NAME", "2")}
    supervisor, written = supervise(programs, serving=("server",))
    lines(written, 2)

    supervisor.terminate()
    supervisor.communicate()

    assert [who for who, _ in lines(written, 6)] == [0, 0, 2, 2, 1, 1]


def test_a_program_that_keeps_dying_is_started_ever_more_rarely(supervise):
    code = "import sys, time; open(sys.argv[1], 'a').write(f'{time.monotonic_ns()}\\n')"
    supervisor, written = supervise({"a": code})

    starts = [line[0] / 1e9 for line in lines(written, 4)]

    supervisor.terminate()
    supervisor.communicate()
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert gaps[0] >= 0.5
    assert gaps[1] >= 1.0
    assert gaps[2] >= 2.0
