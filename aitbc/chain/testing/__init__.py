"""What tests need of a chain: a private anvil, funded actors, contracts that answer in one line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aitbc.chain import signing
from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Receipt
from aitbc.chain.keystore import Signer
from aitbc.stack.anvil import Anvil

TEST_CHAIN_ID = 31337
AIT = 10**18
T = TypeVar("T")


@contextmanager
def running_anvil(folder: Path) -> Iterator[str]:
    """The URL of a fresh chain that ends with this process."""
    node = Anvil(TEST_CHAIN_ID, folder)
    node.start(owned=True)
    try:
        yield node.url
    finally:
        node.stop()


class Actor:
    """Somebody with a key and ether."""

    def __init__(self, client: Client, role: str = "somebody") -> None:
        self.client = client
        self.signer = Signer(role, signing.new_private_key())
        self.address = self.signer.address
        client.call("anvil_setBalance", self.address, hex(1_000 * 10**18))

    def send(self, to: str | None, data: str, *, gas: int | None = None) -> Receipt:
        """Mined receipt; without `gas` a call that would revert raises Conflict "chain.reverted"."""
        call = {"from": self.address, "data": data} | ({"to": to} if to else {})
        fields = {
            "type": 2,
            "chainId": self.client.chain_id,
            "nonce": self.client.nonce(self.address, "pending"),
            "gas": gas or self.client.estimate_gas(call) * 2,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 10**9,
            "value": 0,
            "data": data,
        }
        raw, tx_hash = self.signer.sign_transaction(fields | ({"to": to} if to else {}))
        self.client.send_raw(raw)
        receipt = wait(lambda: self.client.receipt(tx_hash))
        wait(lambda: None if self._pooled(fields["nonce"]) else receipt)
        return receipt

    def _pooled(self, nonce: int) -> bool:
        """Anvil shows a receipt before its pool lets go of the transaction by (sender, nonce): one sent
        in between with that nonce, after a fork, would be dropped in its place."""
        pending = self.client.call("txpool_content")["pending"]
        mine = {address.lower(): nonces for address, nonces in pending.items()}
        return str(nonce) in mine.get(self.address.lower(), {})


class Deployed:
    """A contract at its address: `send` signs as an actor, `read` asks at the head, `events` decodes."""

    def __init__(self, client: Client, name: str, address: str) -> None:
        self.client = client
        self.interface = interface(name)
        self.address = address

    @classmethod
    def create(cls, actor: Actor, name: str, *args: Any) -> "Deployed":
        receipt = actor.send(None, interface(name).creation(*args))
        assert receipt.contract is not None
        address = signing.checksum_address(signing.parse_address(receipt.contract))
        return cls(actor.client, name, address)

    def send(self, actor: Actor, function: str, *args: Any, gas: int | None = None) -> Receipt:
        return actor.send(self.address, self.interface.call_data(function, args), gas=gas)

    def read(self, function: str, *args: Any) -> Any:
        call = self.address, self.interface.call_data(function, args)
        [data] = self.client.read_many([call], self.client.head())
        values = self.interface.result(function, data)
        return values[0] if len(values) == 1 else values

    def events(self, receipt: Receipt) -> list[tuple[str, dict[str, Any]]]:
        ours = [entry for entry in receipt.logs if entry["address"].lower() == self.address.lower()]
        decoded = [self.interface.decode_log(entry["topics"], entry["data"]) for entry in ours]
        return [item for item in decoded if item is not None]


def wait(ask: Callable[[], T | None], *, seconds: float = 10.0) -> T:
    """The first answer that is not None."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        assert time.monotonic() < deadline, "nothing came of it in time"
        time.sleep(0.002)
    return answer


def mine(client: Client, blocks: int = 1) -> None:
    client.call("anvil_mine", hex(blocks))
