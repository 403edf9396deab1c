"""What the approver signs, and the settlement contract checks, above its threshold (EIP-712)."""

from typing import Final

from aitbc.chain import signing

WITHDRAWAL: Final = signing.Struct("Withdrawal", (("intentId", "bytes32"), ("to", "address"), ("amount", "uint256")))
PAYOUT: Final = signing.Struct(
    "Payout", (("batchId", "bytes32"), ("root", "bytes32"), ("total", "uint256"), ("count", "uint256"))
)


def settlement_domain(chain_id: int, address: str) -> signing.Domain:
    """Of the settlement contract at `address`: its signatures count for no other contract or chain."""
    return signing.Domain("AITBC Settlement", "1", chain_id, address)
