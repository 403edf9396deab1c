"""What other layers ask of the chain, always at a block that they name; for tasks, not for web requests."""

from collections.abc import Sequence
from typing import Final

from aitbc.chain.client import client
from aitbc.chain.contracts import Settlement, Token
from aitbc.chain.intents import address_of

CHUNK: Final = 200


def settlement_address() -> str:
    return address_of(Settlement.name)


def balances(*, block: int, addresses: Sequence[str]) -> tuple[int, int]:
    """(AIT of the settlement contract, AIT at `addresses` together) at `block`, smallest units."""
    token = Token(client(), address_of(Token.name))
    contract = token.balance_of(settlement_address(), block=block)
    chunks = (addresses[i : i + CHUNK] for i in range(0, len(addresses), CHUNK))
    return contract, sum(sum(token.balances_of(chunk, block=block)) for chunk in chunks)
