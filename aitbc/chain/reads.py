"""What is asked of the contracts, always at a block that is named; for workers, not for web requests."""

from collections.abc import Sequence
from typing import Any, Final

from aitbc.chain.abi import interface, plain
from aitbc.chain.client import Client, client
from aitbc.chain.intents import address_of
from aitbc.core.errors import Conflict

CHUNK: Final = 200


def read_each(node: Client, contract: str, function: str, calls: Sequence[Sequence[Any]], *, block: int) -> list[Any]:
    """The first value that `function` returns for each list of arguments, as JSON value; one request."""
    abi, address = interface(contract), address_of(contract)
    answers = node.read_many([(address, abi.call_data(function, args)) for args in calls], block)
    if "0x" in answers:
        raise Conflict("chain.not_there_yet", f"there is no {contract} at block {block}")
    kind = abi.functions[function].outputs[0]["type"]
    return [plain(kind, abi.result(function, answer)[0]) for answer in answers]


def balances(*, block: int, addresses: Sequence[str]) -> tuple[int, int]:
    """(AIT of the settlement contract, AIT at `addresses` together) at `block`, smallest units."""
    accounts = [address_of("Settlement"), *addresses]
    found: list[int] = []
    for start in range(0, len(accounts), CHUNK):
        calls = [[account] for account in accounts[start : start + CHUNK]]
        found += map(int, read_each(client(), "AIT", "balanceOf", calls, block=block))
    return found[0], sum(found[1:])
