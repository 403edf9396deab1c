"""The leaf of a payout, byte for byte what the contract's `claim` hashes."""

from uuid import UUID

import eth_abi

from aitbc.chain import merkle
from aitbc.chain.addresses import bytes32


def leaf(*, batch: UUID, position: int, address: str, amount: int) -> bytes:
    """keccak(keccak(abi.encode(batch, position, address, amount))); `amount` in smallest units."""
    types = ["bytes32", "uint256", "address", "uint256"]
    return merkle.leaf(eth_abi.encode(types, [bytes.fromhex(bytes32(batch)[2:]), position, address, amount]))
