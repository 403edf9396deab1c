"""Fixtures: a private chain with deployed contracts, and the databases that follow it.

A conftest.py imports them: `from aitbc.chain.testing.net import *`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction

from aitbc.chain import keystore
from aitbc.chain.addresses import bytes32
from aitbc.chain.client import Client
from aitbc.chain.deploy import deploy
from aitbc.chain.intents import request_intent
from aitbc.chain.models import Block, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.chain.testing import AIT, TEST_CHAIN_ID, Actor, Deployed, mine, running_anvil
from aitbc.chain.worker import Worker
from aitbc.core import ports
from aitbc.core.ids import uuid7

__all__ = ["chain", "committed_net", "db_of_chain", "net", "node_url", "subscribe"]
DEPTH = 3


@dataclass
class Net:
    """The embedded network of a test."""

    client: Client
    token: Deployed
    settlement: Deployed
    minter: Actor

    def mint(self, to: str, amount: int = AIT) -> str:
        return self.token.send(self.minter, "mint", to, str(amount)).tx_hash

    def mine(self, blocks: int = 1) -> None:
        mine(self.client, blocks)

    def worker(self, client: Client | None = None) -> Worker:
        return Worker(client or self.client, block_seconds=0)

    def settle(self, worker: Worker | None = None, *, rounds: int = 200) -> Worker:
        """Tick until nothing is open."""
        worker = worker or self.worker()
        for _ in range(rounds):
            if not worker.tick():
                return worker
        raise AssertionError("something never became final")

    def status(self) -> NetworkStatus:
        return NetworkStatus.objects.get()

    def anchor(self, **changes: Any) -> Intent:
        """Ask for an anchor of its own batch."""
        batch = bytes32(uuid7())
        fields = {
            "kind": "test.anchor",
            "business_key": f"anchor:{batch}",
            "contract": "Settlement",
            "function": "anchor",
            "args": [batch, "0x" + "11" * 32, "1", "0x" + "00" * 32],
        }
        with transaction.atomic():
            return request_intent(**(fields | changes))

    def withdrawal(self, to: str, amount: int = AIT) -> Intent:
        return self.anchor(
            kind="test.withdraw",
            business_key=f"withdraw:{uuid7()}",
            function="withdraw",
            args=[bytes32(uuid7()), to, str(amount), "0x"],
        )

    def lose_chain_database(self) -> None:
        for model in (SignedTransaction, Log, Block):
            model.objects.all().delete()

    def balance(self, address: str) -> int:
        return int(self.token.read("balanceOf", address))


@pytest.fixture(scope="session")
def node_url(tmp_path_factory) -> Iterator[str]:
    with running_anvil(tmp_path_factory.mktemp("anvil")) as url:
        yield url


@pytest.fixture
def chain(node_url, settings, tmp_path) -> Iterator[Client]:
    """A node in its first state, and key files of this test's own."""
    settings.CHAIN_NETWORK = "ait-devnet"
    settings.CHAIN_RPC_URL = node_url
    settings.CHAIN_EMBEDDED = True
    settings.CHAIN_FINALITY_DEPTH = DEPTH
    settings.KEYS_DIR = tmp_path / "keys"
    client = Client(node_url, TEST_CHAIN_ID)
    client.call("evm_setAutomine", True)
    snapshot = client.call("evm_snapshot")
    yield client
    Client(node_url, TEST_CHAIN_ID).call("evm_revert", snapshot)


def build_net(chain: Client) -> Net:
    rows = deploy(chain, daily_cap=10**6 * AIT, approval_threshold=100 * AIT)
    token = Deployed(chain, "AIT", rows["AIT"].address)
    settlement = Deployed(chain, "Settlement", rows["Settlement"].address)
    minter = Actor(chain)
    minter.signer = keystore.load("owner")
    minter.address = minter.signer.address
    return Net(chain, token, settlement, minter)


@pytest.fixture
def net(chain, db_of_chain) -> Net:
    return build_net(chain)


@pytest.fixture
def committed_net(chain, committed_db) -> Iterator[Net]:
    """With real commits, for code that refuses an open transaction."""
    made = build_net(chain)
    yield made
    made.lose_chain_database()


@pytest.fixture
def db_of_chain(request) -> None:
    """Both databases, rolled back after the test."""
    request.node.add_marker(pytest.mark.django_db(databases=["default", "chain"]))
    request.getfixturevalue("db")


@pytest.fixture
def subscribe(monkeypatch) -> Callable[..., None]:
    """Subscribe for one test only."""

    def add(name: str, handler: Callable[[Any], None]) -> None:
        monkeypatch.setitem(ports._subscribers, name, [handler])

    return add
