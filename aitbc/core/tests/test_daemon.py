"""Long-running commands: they end between two rounds, and outlive a store that is away."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import OperationalError

from aitbc.core import daemon
from aitbc.core.errors import Unavailable

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _signals():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_round_that_has_begun_is_finished(number):
    done = []

    def work():
        if len(done) == 2:
            os.kill(os.getpid(), number)
        done.append(1)
        return 1

    daemon.run("test", work, idle_seconds=60)
    assert len(done) == 3


def test_a_signal_ends_the_wait():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    daemon.run("test", lambda: 0, idle_seconds=60)


@pytest.mark.parametrize("error", [OperationalError("gone\nline 2"), Unavailable("x.away", "gone")])
def test_a_lost_store_is_waited_for(error, caplog):
    rounds = []

    def work():
        rounds.append(1)
        if len(rounds) < 3:
            raise error
        os.kill(os.getpid(), signal.SIGTERM)
        return 1

    daemon.run("test", work, idle_seconds=0.01)
    assert len(rounds) == 3
    warnings = [record.msg["error"] for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2
    assert not any("line 2" in text for text in warnings)


def test_a_fault_of_ours_ends_the_process():
    with pytest.raises(ZeroDivisionError):
        daemon.run("test", lambda: 1 // 0, idle_seconds=0.01)


def test_the_relay_delivers_once_and_says_how_much(committed_db):
    from io import StringIO

    from django.core.management import call_command
    from django.db import transaction

    from aitbc.core.outbox import announce

    with transaction.atomic():
        announce("nobody.listens", "a", {})
        announce("nobody.listens", "b", {})
    out = StringIO()
    call_command("run_relay", "--once", stdout=out)
    assert out.getvalue() == "2 events delivered\n"


def test_a_process_says_that_it_started_and_stopped_and_exits_with_nothing_to_complain():
    code = """
import django; django.setup()
from aitbc.core import daemon
daemon.run("test", lambda: 0, idle_seconds=60)
"""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "aitbc.settings.test", "LOG_FORMAT": "json"}
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    with child:
        assert '"started"' in child.stderr.readline()
        child.send_signal(signal.SIGTERM)
        assert '"stopped"' in child.stderr.readline()
        assert child.wait(10) == 0
