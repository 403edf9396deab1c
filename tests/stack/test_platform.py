"""The platform as `make up` starts it, with the stores and programs that need no miner's runtimes."""

import http.cookiejar
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from aitbc.stack import platform, process
from aitbc.stack.paths import REPOSITORY

LIGHT = ("miner", "gpu", "stream")


@pytest.fixture
def users_of(var):
    """Processes whose environment names this data folder, but for the tests' own."""

    def find() -> list[str]:
        return [
            (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != os.getpid() and names(entry, str(var.root))
        ]

    return find


def names(entry: Path, root: str) -> bool:
    try:
        return process.identify(int(entry.name)) is not None and root in (
            (entry / "environ").read_text(errors="replace") + os.readlink(entry / "cwd")
        )
    except (FileNotFoundError, PermissionError, ProcessLookupError):  # ended meanwhile, or no process of ours
        return False


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def log_in(admin: platform.Admin) -> str:
    """The page that the admin shows after a log-in."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    page = opener.open(admin.url, timeout=20)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.read().decode()).group(1)
    form = {"username": admin.email, "password": admin.password, "csrfmiddlewaretoken": token}
    request = urllib.request.Request(
        page.url, data=urllib.parse.urlencode(form).encode(), headers={"Referer": page.url}
    )
    return opener.open(request, timeout=20).read().decode()


def test_up_gives_a_ready_platform_that_heals_itself_and_down_leaves_nothing(var, users_of):
    told: list[str] = []
    running = platform.up(without=LIGHT, tell=told.append)

    assert status_of(f"{running.url}/health/ready") == 200
    assert "Log out" in log_in(running.admin)
    assert told[0].endswith("starting PostgreSQL, Redis and the chain")
    assert {*running.processes} == {
        "web", "relay", "webhooks", "chain", "worker", "beat", "postgres", "redis", "anvil", "supervisor",
    }  # fmt: skip
    record = var.run / "platform.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert json.loads(record.read_text())["admin"]["password"] == running.admin.password
    assert platform.up(without=LIGHT) == running

    for name in ("web", "postgres"):
        os.kill(running.processes[name], signal.SIGKILL)
        assert process.wait_for(lambda n=name: replaced(running, n), seconds=30)
        assert process.wait_for(lambda: status_of(f"{running.url}/health/ready") == 200, seconds=30)

    platform.down()
    platform.down()

    assert users_of() == []
    assert platform.status() is None
    assert not record.exists()


def replaced(running: platform.Running, name: str) -> bool:
    """Whether this process runs again under another number."""
    now = platform.status()
    return now is not None and now.processes.get(name, running.processes[name]) != running.processes[name]


@pytest.mark.slow
def test_kill_9_of_the_supervisor_leaves_nothing_and_the_next_up_works(var, users_of):
    running = platform.up(without=LIGHT)

    os.kill(running.processes["supervisor"], signal.SIGKILL)

    assert process.wait_for(lambda: users_of() == [], seconds=30)
    assert platform.status() is None
    assert platform.up(without=LIGHT).url == running.url
    platform.down()


@pytest.mark.slow
def test_an_interrupted_up_leaves_nothing(var, users_of):
    command = [sys.executable, "manage.py", "platform", "up", "--without", ",".join(LIGHT)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as starting:
        assert "starting PostgreSQL" in starting.stdout.readline()
        assert "bringing the databases" in starting.stdout.readline()
        starting.send_signal(signal.SIGINT)

    assert starting.returncode != 0
    assert process.wait_for(lambda: users_of() == [], seconds=30)


@pytest.mark.slow
def test_a_program_that_cannot_start_is_named_with_its_log(var, monkeypatch, users_of):
    monkeypatch.setenv("GRANIAN_BACKLOG", "1")  # its least is 128

    with pytest.raises(platform.StackError, match=r"(?s)the platform did not start.*web does not start.*backlog"):
        platform.up(without=LIGHT)

    assert users_of() == []
