"""Gas of the contracts' calls, measured on a private chain. `make bench NAME=settlement`.

What a settlement of 1,000 receipts costs each, of 20 and of 200 providers who never held AIT before: its
anchor, the promise of the payout and all claims, beside a plain AIT transfer to a new account in the same
run. Ends with one JSON line.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aitbc.settings.test")
django.setup()

from aitbc.chain import merkle, signing  # noqa: E402 - Django first
from aitbc.chain.addresses import bytes32  # noqa: E402
from aitbc.chain.approvals import PAYOUT, settlement_domain  # noqa: E402
from aitbc.chain.client import Client  # noqa: E402
from aitbc.chain.signing import digest  # noqa: E402
from aitbc.chain.testing import (  # noqa: E402
    AIT,
    TEST_CHAIN_ID,
    Actor,
    Deployed,
    running_anvil,
)
from aitbc.core.ids import uuid7  # noqa: E402
from apps.trading import claims  # noqa: E402
from bench.results import at_most  # noqa: E402

NO_HEAD = "0x" + "00" * 32
RECEIPTS = 1_000


class Bench:
    """The contracts with their actors; each method prints one line per measured call."""

    def __init__(self, client: Client) -> None:
        self.owner, self.operator, self.approver, self.guardian, self.alice = (Actor(client) for _ in range(5))
        self.token = Deployed.create(self.owner, "AIT", self.owner.address)
        roles = [actor.address for actor in (self.operator, self.approver, self.guardian)]
        args = [self.token.address, self.owner.address, *roles, 10**9 * AIT, 100 * AIT]
        self.settlement = Deployed.create(self.owner, "Settlement", *args)
        for name, contract, given in (("AIT", self.token, [self.owner.address]), ("Settlement", self.settlement, args)):
            receipt = self.owner.send(None, contract.interface.creation(*given))
            self.show(f"deploy {name}", receipt.gas_used)

    def show(self, call: str, gas: int, per: int = 1) -> None:
        print(f"{call:<44}{gas:>10}" + (f"{gas / per:>12.1f} each" if per > 1 else ""))

    def deposits(self) -> None:
        self.token.send(self.owner, "mint", self.alice.address, 10**6 * AIT)
        self.token.send(self.alice, "approve", self.settlement.address, 10**6 * AIT)
        for name in ("depositFor, first", "depositFor, later"):
            self.show(name, self.settlement.send(self.alice, "depositFor", bytes32(uuid7()), AIT).gas_used)
        user = bytes32(uuid7())
        address = self.settlement.read("depositAddress", user)
        for name in ("sweep, first of an address", "sweep, later"):
            self.token.send(self.alice, "transfer", address, AIT)
            self.show(name, self.settlement.send(self.alice, "sweep", user).gas_used)
        self.settlement.send(self.alice, "depositFor", user, 10**5 * AIT)

    def anchors(self) -> None:
        for count in (1, 100, 1_000, 100_000):
            root = "0x" + merkle.leaf(count.to_bytes(4, "big")).hex()
            receipt = self.settlement.send(self.operator, "anchor", bytes32(uuid7()), root, count, NO_HEAD)
            self.show(f"anchor of {count} receipts", receipt.gas_used, count)

    def withdrawals(self) -> None:
        for name, to in (
            ("withdraw to a new account", Actor(self.token.client).address),
            ("withdraw", self.alice.address),
        ):
            receipt = self.settlement.send(self.operator, "withdraw", bytes32(uuid7()), to, AIT, "0x")
            self.show(name, receipt.gas_used)

    def payouts(self) -> None:
        for count in (1, 10, 100, 1_000):
            batch = uuid7()
            shares = [(Actor(self.token.client).address if i == 0 else self.alice.address, AIT) for i in range(count)]
            tree = merkle.Tree(
                [claims.leaf(batch=batch, position=i, address=a, amount=n) for i, (a, n) in enumerate(shares)]
            )
            values = {"batchId": bytes32(batch), "root": "0x" + tree.root.hex(), "total": count * AIT, "count": count}
            domain = settlement_domain(TEST_CHAIN_ID, self.settlement.address)
            approval = self.approver.signer.sign(digest(domain, PAYOUT, values)) if count > 100 else "0x"
            opened = self.settlement.send(self.operator, "openPayout", *values.values(), approval)
            self.show(f"openPayout of {count}" + (", two keys" if count > 100 else ""), opened.gas_used, count)
            proof = ["0x" + node.hex() for node in tree.proof(0)]
            claim = self.settlement.send(self.alice, "claim", bytes32(batch), 0, *shares[0], proof)
            self.show(f"claim of 1 among {count}", claim.gas_used)

    def transfer(self) -> int:
        """A plain transfer to an account that never held AIT."""
        to = signing.address_of(signing.new_private_key())
        gas = self.token.send(self.alice, "transfer", to, AIT).gas_used
        self.show("plain transfer to a new account", gas)
        return gas

    def settlement_of(self, providers: int, transfer: int) -> dict[str, Any]:
        """Anchor of RECEIPTS receipts, one payout and all its claims, to accounts that never held AIT."""
        batch = uuid7()
        root = "0x" + merkle.leaf(batch.bytes).hex()
        steps = [self.settlement.send(self.operator, "anchor", bytes32(batch), root, RECEIPTS, NO_HEAD)]
        shares = [(signing.address_of(signing.new_private_key()), AIT * (i + 1) // 7) for i in range(providers)]
        tree = merkle.Tree(
            [claims.leaf(batch=batch, position=i, address=a, amount=n) for i, (a, n) in enumerate(shares)]
        )
        promise = [bytes32(batch), "0x" + tree.root.hex(), sum(n for _, n in shares), providers]
        values = dict(zip(("batchId", "root", "total", "count"), promise, strict=True))
        domain = settlement_domain(TEST_CHAIN_ID, self.settlement.address)
        approval = self.approver.signer.sign(digest(domain, PAYOUT, values))
        steps.append(self.settlement.send(self.operator, "openPayout", *promise, approval))
        args = claims.claim_many(batch=batch, tree=tree, shares=list(enumerate(shares)))
        steps.append(self.settlement.send(self.operator, "claimMany", *args))
        for address, amount in shares:
            assert self.token.read("balanceOf", address) == amount
        for name, step in zip(("anchor", "openPayout", "claimMany"), steps, strict=True):
            self.show(f"{name}, {RECEIPTS} receipts of {providers}", step.gas_used, RECEIPTS)
        each = sum(step.gas_used for step in steps) / RECEIPTS
        what = f"gas per receipt, {RECEIPTS} receipts of {providers} providers, claims included"
        return at_most(what, round(each, 1), "gas", transfer, providers / RECEIPTS)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="aitbc-") as folder, running_anvil(Path(folder)) as url:
        print(f"{'call':<44}{'gas':>10}")
        bench = Bench(Client(url, TEST_CHAIN_ID))
        for measure in (bench.deposits, bench.anchors, bench.withdrawals, bench.payouts):
            measure()
        transfer = bench.transfer()
        rows = [bench.settlement_of(providers, transfer) for providers in (20, 200)]
    print(json.dumps({"name": "settlement", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
