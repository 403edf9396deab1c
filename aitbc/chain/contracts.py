"""The deployed contracts, one class each, one method per call; every read names its block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aitbc.chain.abi import Interface, interface
from aitbc.chain.client import Client
from aitbc.chain.signing import Domain, Struct, checksum_address, parse_address
from aitbc.core.errors import Conflict


class Contract:
    name: ClassVar[str]

    def __init__(self, client: Client, address: str) -> None:
        self.client = client
        self.address = address

    @property
    def interface(self) -> Interface:
        return interface(self.name)

    def _read(self, function: str, *args: Any, block: int) -> tuple[Any, ...]:
        data = self.interface.call_data(function, args)
        answer = self.client.read(self.address, data, block)
        if answer == "0x":
            raise Conflict("chain.not_there_yet", f"there is no {self.name} at block {block}")
        return self.interface.result(function, answer)


class Token(Contract):
    name = "AIT"

    def balance_of(self, account: str, *, block: int) -> int:
        return int(self._read("balanceOf", account, block=block)[0])

    def balances_of(self, accounts: Sequence[str], *, block: int) -> list[int]:
        """One batch of requests."""
        calls = [(self.address, self.interface.call_data("balanceOf", [account])) for account in accounts]
        answers = self.client.read_many(calls, block)
        return [int(self.interface.result("balanceOf", answer)[0]) for answer in answers]

    def total_supply(self, *, block: int) -> int:
        return int(self._read("totalSupply", block=block)[0])


@dataclass(frozen=True)
class Payout:
    root: str
    remaining: int
    count: int


WITHDRAWAL = Struct("Withdrawal", (("intentId", "bytes32"), ("to", "address"), ("amount", "uint256")))
PAYOUT = Struct(
    "Payout", (("batchId", "bytes32"), ("root", "bytes32"), ("total", "uint256"), ("count", "uint256"))
)


def settlement_domain(chain_id: int, address: str) -> Domain:
    """What the approver signs under, for WITHDRAWAL and PAYOUT."""
    return Domain("AITBC Settlement", "1", chain_id, address)


class Settlement(Contract):
    name = "Settlement"

    def used(self, intent_id: str, *, block: int) -> bool:
        return bool(self._read("used", intent_id, block=block)[0])

    def anchored(self, batch_id: str, *, block: int) -> str:
        """The anchored root, all zero when there is none."""
        return "0x" + bytes(self._read("anchored", batch_id, block=block)[0]).hex()

    def payout(self, batch_id: str, *, block: int) -> Payout:
        root, remaining, count = self._read("payouts", batch_id, block=block)
        return Payout("0x" + root.hex(), remaining, count)

    def claimed(self, batch_id: str, index: int, *, block: int) -> bool:
        return bool(self._read("claimed", batch_id, index, block=block)[0])

    def promised(self, *, block: int) -> int:
        return int(self._read("promised", block=block)[0])

    def available_outflow(self, *, block: int) -> int:
        return int(self._read("availableOutflow", block=block)[0])

    def forwarder(self, *, block: int) -> str:
        return checksum_address(parse_address(self._read("FORWARDER", block=block)[0]))

    def deposit_address(self, user: str, *, block: int) -> str:
        return checksum_address(parse_address(self._read("depositAddress", user, block=block)[0]))
