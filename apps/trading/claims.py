"""The leaf of a payout, byte for byte what the contract's `claim` hashes, and the calls that claim."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import eth_abi

from aitbc.chain import merkle
from aitbc.chain.addresses import bytes32


def leaf(*, batch: UUID, position: int, address: str, amount: int) -> bytes:
    """keccak(keccak(abi.encode(batch, position, address, amount))); `amount` in smallest units."""
    types = ["bytes32", "uint256", "address", "uint256"]
    return merkle.leaf(eth_abi.encode(types, [bytes.fromhex(bytes32(batch)[2:]), position, address, amount]))


def claim_many(*, batch: UUID, tree: merkle.Tree, shares: Sequence[tuple[int, tuple[str, int]]]) -> list[Any]:
    """The arguments of `claimMany` as JSON values, for leaves of `tree` by ascending position."""
    proof, flags = tree.multiproof([position for position, _ in shares])
    claims = [[str(position), address, str(amount)] for position, (address, amount) in shares]
    return [bytes32(batch), claims, ["0x" + node.hex() for node in proof], flags]
