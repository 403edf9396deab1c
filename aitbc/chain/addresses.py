"""Addresses that follow from others, and ids as the contracts take them; no node needed."""

from uuid import UUID

from aitbc.chain.signing import checksum_address, keccak, parse_address


def bytes32(value: UUID) -> str:
    """A UUID as the contracts take it: its 16 bytes, then 16 zeros, 0x hex."""
    return "0x" + value.hex + "0" * 32


def user_of(value: str) -> UUID | None:
    """The inverse of `bytes32`; None for a value that is not a UUID and 16 zeros."""
    return UUID(value[2:34]) if value.endswith("0" * 32) else None


def clone_address(*, deployer: str, implementation: str, salt: bytes) -> str:
    """CREATE2 address (EIP-1014) of a minimal proxy (EIP-1167); what `depositAddress` answers."""
    code = (
        bytes.fromhex("3d602d80600a3d3981f3363d3d373d3d3d363d73")
        + parse_address(implementation)
        + bytes.fromhex("5af43d82803e903d91602b57fd5bf3")
    )
    return checksum_address(keccak(b"\xff" + parse_address(deployer) + salt + keccak(code))[12:])
