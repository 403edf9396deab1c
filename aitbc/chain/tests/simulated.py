"""A chain made of random transactions, with forks as deep as wanted: its own truth for comparisons.

Parent hashes, receipts roots and log blooms are consistent, as on a real chain; there is no EVM.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from aitbc.chain.proofs import bloom_bits, receipts_root
from aitbc.chain.signing import checksum_address, keccak, parse_address
from aitbc.chain.tests.rpc_server import RpcError

TRANSFER = "0x" + keccak(b"Transfer(address,address,uint256)").hex()


@dataclass(frozen=True)
class Event:
    address: str
    topics: tuple[str, ...]
    data: str


@dataclass(frozen=True)
class Transaction:
    hash: str
    events: tuple[Event, ...]


@dataclass
class Mined:
    header: dict[str, Any]
    receipts: list[dict[str, Any]] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)


def transfer(token: str, sender: str, to: str, value: int) -> Event:
    topics = (TRANSFER, *("0x" + "00" * 12 + who[2:].lower() for who in (sender, to)))
    return Event(token, topics, f"0x{value:064x}")


class SimulatedChain:
    """`answer` speaks JSON-RPC; `mine` and `drop` are the forks; `truth` is what an index must hold."""

    def __init__(self, rng: random.Random, chain_id: int = 31337) -> None:
        self.rng, self.chain_id = rng, chain_id
        self.blocks: list[Mined] = []
        self.known: dict[str, Mined] = {}  # by hash, as a node keeps them: also those a fork left behind
        self.mine([])

    @property
    def head(self) -> int:
        return len(self.blocks) - 1

    def hash_at(self, number: int) -> str:
        return str(self.blocks[number].header["hash"])

    def drop(self, depth: int) -> list[Transaction]:
        """The newest `depth` blocks are no longer the chain's; their transactions may be mined again."""
        gone, self.blocks = self.blocks[-depth:], self.blocks[:-depth]
        return [transaction for block in gone for transaction in block.transactions]

    def transaction(self, *events: Event) -> Transaction:
        return Transaction("0x" + self.rng.randbytes(32).hex(), events)

    def mine(self, transactions: list[Transaction]) -> None:
        number = len(self.blocks)
        block = Mined({"hash": "0x" + self.rng.randbytes(32).hex(), "number": hex(number)})
        block.transactions = transactions
        bits = 0
        for index, transaction in enumerate(transactions):
            receipt, own = self._receipt(block.header, index, transaction)
            block.receipts.append(receipt)
            bits |= own
        block.header |= {
            "parentHash": self.hash_at(number - 1) if number else "0x" + "00" * 32,
            "timestamp": hex(1_700_000_000 + number),
            "baseFeePerGas": "0x7",
            "logsBloom": f"0x{bits:0512x}",
            "receiptsRoot": receipts_root(block.receipts),
        }
        self.blocks.append(block)
        self.known[block.header["hash"]] = block

    def _receipt(self, header: dict[str, Any], index: int, made: Transaction) -> tuple[dict[str, Any], int]:
        bits = 0
        for event in made.events:
            for item in (event.address, *event.topics):
                bits |= bloom_bits(bytes.fromhex(item[2:]))
        return {
            "type": "0x2",
            "status": "0x1",
            "cumulativeGasUsed": hex(50_000 * (index + 1)),
            "gasUsed": hex(50_000),
            "logsBloom": f"0x{bits:0512x}",
            "transactionHash": made.hash,
            "blockHash": header["hash"],
            "blockNumber": header["number"],
            "logs": [{"address": e.address.lower(), "topics": list(e.topics), "data": e.data} for e in made.events],
        }, bits

    # -- what a node answers --------------------------------------------------------------------
    def answer(self, method: str, params: list[Any]) -> Any:
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_blockNumber":
            return hex(self.head)
        if method == "eth_getBlockByNumber":
            number = int(params[0], 16)
            return self.blocks[number].header if number <= self.head else None
        if method == "eth_getBlockReceipts":
            found = self.known.get(params[0])
            return found.receipts if found else None
        if method == "eth_getTransactionCount":
            return "0x0"
        raise RpcError("execution reverted")  # there is no EVM: nothing can be sent here

    # -- what is true ---------------------------------------------------------------------------
    def truth(self, watched: list[str], *, start: int = 0, end: int | None = None) -> list[tuple[Any, ...]]:
        """(block, tx hash, ordinal, log index, address, topics, data) of every log of `watched`."""
        found = []
        for number, block in list(enumerate(self.blocks))[start : None if end is None else max(end, -1) + 1]:
            index = -1
            for made in block.transactions:
                for ordinal, event in enumerate(made.events):
                    index += 1
                    if event.address in watched:
                        row = (number, made.hash, ordinal, index, event.address, list(event.topics))
                        found.append((*row, event.data))
        return found


def address(number: int) -> str:
    """A checksummed address that nobody has the key of."""
    return checksum_address(parse_address(f"0x{number:040x}"))
