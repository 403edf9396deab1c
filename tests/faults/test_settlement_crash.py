"""C3: the chain worker killed with -9 at each named step: every intent has exactly one mined transaction.

Real processes, real commits, a real chain; withdrawals as users ask for them, down to their ledger entries.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as configured
from django.db import connections

from aitbc.accounts import parameters
from aitbc.chain import keystore
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.chain.testing.net import chain, committed_net, node_url  # noqa: F401
from aitbc.core import db
from aitbc.core.testing.cast import Person, person
from apps.trading.models import Withdrawal
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.services.deposits import deposit_address
from apps.trading.services.withdrawals import withdraw

STEPS = ("reserve", "sign", "store", "broadcast", "mined", "final", "inside final", "posted")
SHORT, FULL = 3, 50


class Workers:
    """The forking process of `dying_worker`, and what its workers wrote to their standard error."""

    def __init__(self, log: Path, **changes: str) -> None:
        self.log = log
        self._written = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.dying_worker"],
            cwd=configured.BASE_DIR,
            env=os.environ | {"PYTHONPATH": str(configured.BASE_DIR), "LOG_LEVEL": "DEBUG", **changes},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._written,
            text=True,
        )
        names = ("CHAIN_NETWORK", "CHAIN_RPC_URL", "CHAIN_EMBEDDED", "CHAIN_FINALITY_DEPTH", "CHAIN_ID")
        given = {name: getattr(configured, name) for name in names} | {"KEYS_DIR": str(configured.KEYS_DIR)}
        aliases = ("default", "owner", "chain")
        databases = {alias: str(connections[alias].settings_dict["NAME"]) for alias in aliases}
        assert self._ask({"databases": databases, "settings": given}) == {"ready": True}

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()[-3000:]
        return dict(json.loads(answer))

    def die(self, step: str, when: str) -> None:
        assert self._ask({"step": step, "when": when})["signal"] == signal.SIGKILL, self.log.read_text()[-3000:]

    def finish(self) -> None:
        ended = self._ask({"step": "", "when": ""})
        assert ended == {"signal": 0, "code": 0}, self.log.read_text()[-3000:]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._written.close()


@pytest.fixture
def workers(committed_net, tmp_path) -> Iterator[Workers]:  # noqa: F811
    made = Workers(tmp_path / "workers.log")
    yield made
    made.close()


@pytest.fixture
def alice(committed_net) -> Person:  # noqa: F811
    who = person("alice")
    committed_net.mint(deposit_address(user=who.id), 1000 * AIT)
    committed_net.settle()
    parameters.change(name="address_wait_seconds", value=0, by=None)
    return who


def posted(who: Person) -> tuple[int, int]:
    account = ledger.account_id(owner=who.id, kind="available")
    [found] = db.rows("SELECT posted, held FROM trading_account WHERE id = %s", (account,))
    return int(found[0]), int(found[1])


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [SHORT, pytest.param(FULL, marks=pytest.mark.slow)])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_each_withdrawal_is_mined_once(committed_net, alice, workers, step, kills):  # noqa: F811
    net, wallet = committed_net, Actor(committed_net.client).address
    rng = random.Random(f"{step} {kills}")
    operator = keystore.load("operator").address
    used = net.client.nonce(operator, net.client.head())
    before, _ = posted(alice)

    for count in range(1, kills + 1):
        item = withdraw(user=alice.id, address=wallet, amount=AIT)
        when = rng.choice(("before", "after"))
        workers.die(step, when)
        lost = rng.random() < 0.3
        if lost:
            net.lose_chain_database()
        workers.finish()

        fate = f"kill {count}: {when} {step}, chain database {'lost' if lost else 'kept'}"
        item.refresh_from_db()
        assert item.state == Withdrawal.State.FINAL, fate
        intent = Intent.objects.get(business_key=f"withdrawal:{item.pk}")
        assert intent.state == Intent.State.FINAL, fate
        assert net.settlement.read("used", bytes32(item.pk)) is True, fate
        assert net.client.nonce(operator, net.client.head()) == used + count, fate
        assert net.balance(wallet) == count * AIT, fate
        assert posted(alice) == (before - count * AIT, 0), fate
    assert audit() == []


def test_no_key_is_in_what_workers_write_whatever_fails(committed_net, alice, workers):  # noqa: F811
    wallet = Actor(committed_net.client).address
    keys = {role: keystore.load(role)._key.secret for role in keystore.ROLES if role != keystore.APPROVER}
    password = (Path(configured.KEYS_DIR) / "password").read_text().strip()
    for step in ("sign", "broadcast", "inside final"):
        withdraw(user=alice.id, address=wallet, amount=AIT)
        workers.die(step, "after")
        workers.finish()
    withdraw(user=alice.id, address=wallet, amount=AIT)
    operator = Path(configured.KEYS_DIR) / "operator.json"
    document = operator.read_text()
    operator.write_text(document.replace('"mac": "', '"mac": "00'))
    workers.die("pause", "before")  # right after it was told that the key cannot be opened
    operator.write_text(document)
    workers.finish()

    written = workers.log.read_text()
    assert "intent resolved" in written
    assert "the password does not open the key of operator" in written
    for role, key in keys.items():
        for form in (key.hex(), str(int.from_bytes(key, "big")), repr(key), str(list(key))):
            assert form.lower() not in written.lower(), role
    assert password not in written
