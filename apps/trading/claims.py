"""The leaf of a payout, byte for byte what the contract's `claim` hashes, and the calls that claim."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import eth_abi

from aitbc.chain import merkle
from aitbc.chain.addresses import bytes32


def leaf(*, batch: UUID, position: int, address: str, amount: int) -> bytes:
    """keccak(keccak(abi.encode(batch, position, address, amount))); `amount` in smallest units."""
    types = ["bytes32", "uint256", "address", "uint256"]
    return merkle.leaf(eth_abi.encode(types, [bytes.fromhex(bytes32(batch)[2:]), position, address, amount]))


def tree(leaves: Iterable[Any]) -> merkle.Tree:
    """Over all leaves of a batch, by ascending position; each has the batch's id and the fields of `leaf`."""
    return merkle.Tree(
        [leaf(batch=x.batch_id, position=x.position, address=x.address, amount=x.amount) for x in leaves]
    )


def claim_many(*, batch: UUID, tree: merkle.Tree, shares: Sequence[tuple[int, tuple[str, int]]]) -> list[Any]:
    """The arguments of `claimMany` as JSON values, for leaves of `tree` by ascending position."""
    proof, flags = tree.multiproof([position for position, _ in shares])
    claims = [[str(position), address, str(amount)] for position, (address, amount) in shares]
    return [bytes32(batch), claims, ["0x" + node.hex() for node in proof], flags]
