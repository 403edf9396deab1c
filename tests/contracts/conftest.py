"""AIT and Settlement on a private anvil; every test starts from the same freshly deployed state."""

from dataclasses import dataclass

import pytest

from aitbc.chain.approvals import PAYOUT, WITHDRAWAL, settlement_domain
from aitbc.chain.client import Client
from aitbc.chain.signing import Struct, digest
from aitbc.chain.testing import AIT, TEST_CHAIN_ID, Actor, Deployed, running_anvil

CAP, THRESHOLD = 1_000 * AIT, 100 * AIT


@dataclass
class World:
    client: Client
    owner: Actor
    operator: Actor
    approver: Actor
    guardian: Actor
    alice: Actor
    bob: Actor
    token: Deployed
    settlement: Deployed

    def fund(self, actor: Actor, amount: int) -> None:
        """Give an actor tokens and let Settlement take them."""
        self.token.send(self.owner, "mint", actor.address, amount)
        self.token.send(actor, "approve", self.settlement.address, amount)

    def reserve(self, amount: int) -> None:
        """Put tokens into the contract by a real deposit."""
        self.fund(self.alice, amount)
        self.settlement.send(self.alice, "depositFor", "0x" + "aa" * 32, amount)

    def approval(self, struct: Struct, values: dict, signer: Actor | None = None) -> str:
        domain = settlement_domain(TEST_CHAIN_ID, self.settlement.address)
        return (signer or self.approver).signer.sign(digest(domain, struct, values))

    def withdraw(self, intent: str, to: str, amount: int, *, signer: Actor | None = None):
        values = {"intentId": intent, "to": to, "amount": amount}
        approval = self.approval(WITHDRAWAL, values, signer) if amount > THRESHOLD else "0x"
        return self.settlement.send(self.operator, "withdraw", intent, to, amount, approval)

    def open_payout(self, batch: str, root: str, total: int, count: int):
        values = {"batchId": batch, "root": root, "total": total, "count": count}
        approval = self.approval(PAYOUT, values) if total > THRESHOLD else "0x"
        return self.settlement.send(self.operator, "openPayout", batch, root, total, count, approval)

    def balance(self, who: Actor | Deployed) -> int:
        return int(self.token.read("balanceOf", who.address))


@pytest.fixture(scope="session")
def deployed(tmp_path_factory) -> World:
    with running_anvil(tmp_path_factory.mktemp("anvil")) as url:
        client = Client(url, TEST_CHAIN_ID)
        owner, operator, approver, guardian, alice, bob = (Actor(client) for _ in range(6))
        token = Deployed.create(owner, "AIT", owner.address)
        roles = [operator.address, approver.address, guardian.address]
        settlement = Deployed.create(owner, "Settlement", token.address, owner.address, *roles, CAP, THRESHOLD)
        yield World(client, owner, operator, approver, guardian, alice, bob, token, settlement)


@pytest.fixture
def world(deployed: World) -> World:
    snapshot = deployed.client.call("evm_snapshot")
    yield deployed
    deployed.client.call("evm_revert", snapshot)
