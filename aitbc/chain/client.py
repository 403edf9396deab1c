"""JSON-RPC client: explicit timeouts, one table of typed errors, a circuit breaker, a checked chain id.

Every read names its block; only `head` asks for the latest. web3's provider keeps connections per thread.
"""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NewType, TypeVar

import requests
from django.conf import settings
from web3 import HTTPProvider

from aitbc.chain.abi import revert_reason
from aitbc.chain.proofs import receipts_root, unhex
from aitbc.core.errors import Conflict, DomainError, Unavailable

BlockNumber = NewType("BlockNumber", int)
T = TypeVar("T")
MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError)
CONNECT_TIMEOUT, READ_TIMEOUT = 2.0, 10.0  # seconds
FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 5.0
# Patterns of node messages (geth, erigon, nethermind, besu, anvil), and what each refusal is; the first wins.
REFUSALS: Final = (
    (r"nonce (is )?too low|\boldnonce", "chain.nonce_too_low"),
    (r"nonce (is )?too high", "chain.nonce_too_high"),
    (r"\balready ?(known|imported)|\bknown transaction|same hash", "chain.already_known"),
    (r"underpriced|less than block base fee|could not replace|replacementnotallowed", "chain.underpriced"),
    (r"insufficient funds|insufficientfunds", "chain.insufficient_funds"),
    (r"intrinsic gas|exceeds block gas limit|gas limit exceeded", "chain.gas"),
    (r"revert", "chain.reverted"),
)


def _read(parse: Callable[[Any], T], raw: Any) -> T:
    """An answer without the fields or the types that it must have says nothing."""
    try:
        return parse(raw)
    except MALFORMED as error:
        raise Unavailable("chain.rpc", "the node's answer is malformed") from error


def _quantity(raw: Any) -> int:
    return _read(lambda text: int(text, 16), raw)


@dataclass(frozen=True)
class Header:
    number: BlockNumber
    hash: str
    parent: str
    timestamp: int
    base_fee: int
    bloom: int
    receipts_root: str


@dataclass(frozen=True)
class Receipt:
    tx_hash: str
    block_number: BlockNumber
    block_hash: str
    succeeded: bool
    gas_used: int
    contract: str | None
    logs: tuple[dict[str, Any], ...]


def typed_error(error: dict[str, Any]) -> DomainError:
    """A node's `error` object as one of ours; what the table does not know may be worth a retry."""
    message = str(error.get("message", ""))
    data = error.get("data")
    if isinstance(data, dict):
        data = data.get("data")
    for pattern, code in REFUSALS:
        if re.search(pattern, message.lower()):
            reason = revert_reason(data if isinstance(data, str) else None)
            return Conflict(code, f"the node refused: {reason or message}", reason=reason)
    return Unavailable("chain.rpc", f"the node answered error {error.get('code')}: {message}")


class Client:
    """One node of one network. Raises Unavailable for transport faults, Conflict for refusals.

    Of several URLs, separated by commas, the first is asked, and a block counts once all of them show it."""

    def __init__(self, url: str, chain_id: int) -> None:
        self.url, *others = url.split(",")
        self.chain_id = chain_id
        self._witnesses = [Client(other, chain_id) for other in others]
        self._provider = HTTPProvider(
            self.url, request_kwargs={"timeout": (CONNECT_TIMEOUT, READ_TIMEOUT)}, exception_retry_configuration=None
        )
        self._failures = 0  # in a row
        self._open_until = 0.0
        self._probe = threading.Lock()
        self._identified = False

    def _admit(self) -> None:
        """The circuit breaker: open for a while after failures in a row, then half open for one caller."""
        with self._probe:
            if self._failures < FAILURES_TO_OPEN:
                return
            if time.monotonic() < self._open_until:
                raise Unavailable("chain.unavailable", "the node failed repeatedly and is not asked for now")
            self._open_until = time.monotonic() + OPEN_SECONDS  # the others wait for this one's answer

    def _transport(self, send: Any, *args: Any) -> Any:
        self._admit()
        try:
            answer = send(*args)
        except (requests.RequestException, *MALFORMED) as error:
            self._failures += 1
            self._open_until = time.monotonic() + OPEN_SECONDS
            self._identified = False  # whoever answers next may be another node
            what = f"the node does not answer ({type(error).__name__})"  # its text has the URL, keys and all
            raise Unavailable("chain.unavailable", what) from None
        self._failures = 0
        return answer

    def identify(self, *, again: bool = False) -> None:
        """Unavailable "chain.wrong_chain" unless the node is of our chain; asked once per connection."""
        if again or not self._identified:
            answer = self._transport(self._provider.make_request, "eth_chainId", [])
            found = _quantity(self._result(answer))
            if found != self.chain_id:
                raise Unavailable("chain.wrong_chain", f"the node is chain {found}, not {self.chain_id}")
            self._identified = True

    def call(self, method: str, *params: Any) -> Any:
        """The `result` of one request; null is returned as None, never read as an answer."""
        self.identify()
        return self._result(self._transport(self._provider.make_request, method, list(params)))

    def batch(self, requests_: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        """Results in the order of the requests; the first error is raised."""
        if not requests_:
            return []
        self.identify()
        answers = self._transport(self._provider.make_batch_request, list(requests_))
        by_id = _read(lambda found: {answer["id"]: answer for answer in found}, answers)
        if len(by_id) != len(requests_):
            raise Unavailable("chain.rpc", "the node answered a batch incompletely")
        return [self._result(by_id[each]) for each in sorted(by_id)]

    @staticmethod
    def _result(answer: Any) -> Any:
        if not isinstance(answer, dict) or ("result" not in answer and "error" not in answer):
            raise Unavailable("chain.rpc", "the node's answer is not JSON-RPC")
        if answer.get("error"):
            raise typed_error(answer["error"])
        return answer["result"]

    # -- blocks and transactions ---------------------------------------------------------------
    def head(self) -> BlockNumber:
        """The newest block, for all nodes."""
        found = _quantity(self.call("eth_blockNumber"))
        return BlockNumber(min([found, *(witness.head() for witness in self._witnesses)]))

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """A block that a node does not know (yet), or of which two differ, is None: unknown, not absent."""
        raw = self.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        found = [_read(_header, item) if item else None for item in raw]
        for witness in self._witnesses:
            pairs = zip(found, witness.headers(numbers), strict=True)
            found = [mine if mine and theirs and mine.hash == theirs.hash else None for mine, theirs in pairs]
        return found

    def block_receipts(self, headers: Sequence[Header]) -> list[list[dict[str, Any]]]:
        """All receipts of these blocks, proven complete by each block's receipts root.

        A node that cuts logs short is caught here; Unavailable "chain.incomplete".
        """
        found = self.batch([("eth_getBlockReceipts", [header.hash]) for header in headers])
        for header, receipts in zip(headers, found, strict=True):
            if receipts is None or _read(receipts_root, receipts) != header.receipts_root:
                raise Unavailable("chain.incomplete", f"the node shows block {header.number} incompletely")
        return found

    def receipts(self, tx_hashes: Sequence[str]) -> list[Receipt | None]:
        raw = self.batch([("eth_getTransactionReceipt", [tx_hash]) for tx_hash in tx_hashes])
        return [_read(_receipt, item) if item else None for item in raw]

    def receipt(self, tx_hash: str) -> Receipt | None:
        return self.receipts([tx_hash])[0]

    def knows(self, tx_hash: str) -> bool:
        return self.call("eth_getTransactionByHash", tx_hash) is not None

    def nonce(self, address: str, block: int | str) -> int:
        """Transactions of `address` counted at a block number, or "pending" with the node's pool."""
        tag = block if isinstance(block, str) else hex(block)
        return _quantity(self.call("eth_getTransactionCount", address, tag))

    def code(self, address: str, block: int) -> str:
        return "0x" + _read(unhex, self.call("eth_getCode", address, hex(block))).hex()

    def balance(self, address: str, block: int) -> int:
        return _quantity(self.call("eth_getBalance", address, hex(block)))

    def read_many(self, calls: Sequence[tuple[str, str]], block: int) -> list[str]:
        """What each call (address, data) returns, in one batch."""
        found = self.batch([("eth_call", [{"to": to, "data": data}, hex(block)]) for to, data in calls])
        return ["0x" + _read(unhex, each).hex() for each in found]

    def estimate_gas(self, transaction: dict[str, Any]) -> int:
        return _quantity(self.call("eth_estimateGas", transaction))

    def send_raw(self, raw: bytes) -> str:
        return str(self.call("eth_sendRawTransaction", "0x" + raw.hex()))


def _header(raw: dict[str, Any]) -> Header:
    return Header(
        number=BlockNumber(int(raw["number"], 16)),
        hash=raw["hash"],
        parent=raw["parentHash"],
        timestamp=int(raw["timestamp"], 16),
        base_fee=int(raw.get("baseFeePerGas") or "0x0", 16),
        bloom=int(raw["logsBloom"], 16),
        receipts_root=raw["receiptsRoot"],
    )


def _receipt(raw: dict[str, Any]) -> Receipt:
    return Receipt(
        tx_hash=raw["transactionHash"],
        block_number=BlockNumber(int(raw["blockNumber"], 16)),
        block_hash=raw["blockHash"],
        succeeded=int(raw["status"], 16) == 1,
        gas_used=int(raw["gasUsed"], 16),
        contract=raw.get("contractAddress"),
        logs=tuple(raw["logs"]),
    )


@cache
def client() -> Client:
    """The node of this installation's network."""
    return Client(settings.CHAIN_RPC_URL, settings.CHAIN_ID)
