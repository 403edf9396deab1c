"""Each table lies in its own database, and `run_chain` finishes what is open."""

import signal
import subprocess
import sys

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from aitbc.chain.models import Block, Deployment, FinalEvent, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.core import db

LOCAL, SHARED = (SignedTransaction, Block, Log), (Intent, NetworkStatus, Deployment, FinalEvent)


@pytest.mark.django_db(databases=["default", "chain"])
def test_each_table_exists_in_its_own_database_only():
    shared = set(connections["default"].introspection.table_names())
    local = set(connections["chain"].introspection.table_names())
    assert local == {model._meta.db_table for model in LOCAL} | {"django_migrations"}
    assert {model._meta.db_table for model in SHARED} <= shared
    assert not {model._meta.db_table for model in LOCAL} & shared
    assert {model.objects.db for model in LOCAL} == {"chain"}
    assert {model.objects.db for model in SHARED} == {"default"}


def test_run_chain_once_works_until_all_is_final(committed_net, monkeypatch):
    monkeypatch.setattr("aitbc.chain.management.commands.run_chain.client", lambda: committed_net.client)
    intent = committed_net.anchor()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        call_command("run_chain", "--once")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    intent.refresh_from_db()
    assert intent.state == Intent.State.FINAL


def test_a_second_worker_waits_for_the_first(committed_net, monkeypatch):
    intent = committed_net.anchor()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with db.advisory_lock("chain:ait-devnet") as held:
            assert held
            with pytest.raises(CommandError, match="another chain worker"):
                call_command("run_chain", "--once")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    intent.refresh_from_db()
    assert (intent.state, NetworkStatus.objects.count()) == (Intent.State.REQUESTED, 0)


def test_web_processes_do_not_load_web3():
    """It costs half a second and 60 MB, and only the chain worker speaks to a node."""
    code = (
        "import django, sys; django.setup(); import apps.trading.api.deposits, apps.trading.api.payouts, "
        "apps.trading.api.settlements, apps.trading.receivers; sys.exit('web3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
