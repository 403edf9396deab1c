"""Follows the chain into chain.db, and what is final into PostgreSQL.

A block that the node does not show is unknown: nothing is concluded from it. A node whose head lies
below ours is behind; only another hash at the same height is a reorganisation. One that reaches below
finality is never repaired silently: the network halts (protocols 4).
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import transaction

from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Header, Receipt
from aitbc.chain.models import Block, Deployment, FinalEvent, Log, NetworkStatus
from aitbc.chain.signing import checksum_address, parse_address
from aitbc.core import ports
from aitbc.core.errors import Unavailable

log = structlog.get_logger(__name__)
BATCH: Final = 100


class DeepReorganisation(Exception):
    """The chain contradicts a block that was final."""


def follow(client: Client, *, network: str, final_height: int) -> int:
    """Bring chain.db up to the node's head; returns the last height that both have.

    Rewinding and each batch of blocks with their logs are one transaction each, so that a kill at
    any moment leaves a consistent prefix of one chain.
    """
    head = client.head()
    start, watched = _watched(network)
    if not watched:
        return head
    tip = _rewind(client, head=head, final_height=final_height)
    number = tip.number + 1 if tip else start
    while number <= head:
        stored = _scan(client, range(number, min(head, number + BATCH - 1) + 1), tip, watched)
        if not stored:
            break
        tip, number = stored[-1], stored[-1].number + 1
    return min(head, tip.number) if tip else start - 1


def _watched(network: str) -> tuple[int, dict[str, str]]:
    """(first block worth reading, {address: contract name}) once the deployments are mined."""
    rows = list(Deployment.objects.filter(network=network, block_number__isnull=False))
    return min((row.block_number or 0 for row in rows), default=0), {row.address: row.name for row in rows}


def _rewind(client: Client, *, head: int, final_height: int) -> Block | None:
    """Drop blocks that are no longer the chain's; returns the new tip, None when none is left."""
    if head < final_height:
        raise Unavailable("chain.behind", f"the node ends at {head}, below the final block {final_height}")
    fork = None
    for block, header in _compared(client, head):
        if header is None:
            raise Unavailable("chain.unknown_block", f"the node does not show block {block.number}")
        if header.hash == block.hash:
            break
        if block.number <= final_height:
            raise DeepReorganisation(f"block {block.number} changed although {final_height} was final")
        fork = block.number
    if fork is not None:
        with transaction.atomic(using="chain"):
            Block.objects.filter(number__gte=fork).delete()
        log.warning("chain reorganised", fork=fork, head=head)
    return Block.objects.order_by("-number").first()


def _compared(client: Client, head: int) -> Iterator[tuple[Block, Header | None]]:
    """Held blocks up to the node's head beside what the node has, newest first; one, then many."""
    upper, size = head, 1
    while held := list(Block.objects.filter(number__lte=upper).order_by("-number")[:size]):
        yield from zip(held, client.headers([block.number for block in held]), strict=True)
        upper, size = held[-1].number - 1, BATCH


def _scan(client: Client, numbers: Iterable[int], tip: Block | None, watched: dict[str, str]) -> list[Block]:
    headers = _linked(client.headers(list(numbers)), tip)
    found = client.logs([header.hash for header in headers], list(watched))
    by_tx = _receipts(client, [entry for entries in found for entry in entries])
    blocks = [Block(number=h.number, hash=h.hash, parent=h.parent, timestamp=h.timestamp) for h in headers]
    logs = [
        _log(header, entry, by_tx[entry["transactionHash"]])
        for header, entries in zip(headers, found, strict=True)
        for entry in entries
    ]
    with transaction.atomic(using="chain"):
        Block.objects.bulk_create(blocks)
        Log.objects.bulk_create(logs)
    return blocks


def _linked(headers: list[Header | None], tip: Block | None) -> list[Header]:
    """The leading headers that are known and continue `tip`; a break is looked at in the next round."""
    kept: list[Header] = []
    parent = tip.hash if tip else None
    for header in headers:
        if header is None or (parent is not None and header.parent != parent):
            break
        kept.append(header)
        parent = header.hash
    return kept


def _receipts(client: Client, entries: list[dict[str, Any]]) -> dict[str, Receipt]:
    hashes = list(dict.fromkeys(entry["transactionHash"] for entry in entries))
    found = [receipt for receipt in client.receipts(hashes) if receipt is not None]
    if [receipt.tx_hash for receipt in found] != hashes:
        raise Unavailable("chain.unknown_block", "the node shows a log but not its receipt")
    return dict(zip(hashes, found, strict=True))


def _log(header: Header, entry: dict[str, Any], receipt: Receipt) -> Log:
    if receipt.block_hash != header.hash:
        raise Unavailable("chain.unknown_block", "the chain moved while its logs were read")
    index = int(entry["logIndex"], 16)
    ordinal = [int(each["logIndex"], 16) for each in receipt.logs].index(index)
    return Log(
        block_id=header.number,
        tx_hash=receipt.tx_hash,
        ordinal=ordinal,
        log_index=index,
        address=checksum_address(parse_address(entry["address"])),
        topics=entry["topics"],
        data=entry["data"],
    )


# -- PostgreSQL ----------------------------------------------------------------------------------
def project(status: NetworkStatus, *, height: int) -> int:
    """Write the events of newly final blocks, inside the caller's fenced transaction.

    The chain database must continue exactly the block that PostgreSQL calls final: it may have been
    rebuilt in between. Returns how many events were written.
    """
    status.height = max(height, 0)
    target = height - settings.CHAIN_FINALITY_DEPTH
    if status.final_hash is not None:
        held = Block.objects.filter(number=status.final_height).first()
        if held is None:
            return 0  # still scanning up to where we were
        if held.hash != status.final_hash:
            raise DeepReorganisation(f"block {held.number} is not the one that was final")
    last = Block.objects.filter(number__lte=target).order_by("-number").first()
    if last is None or last.number <= status.final_height:
        return 0
    logs = Log.objects.filter(block_id__gt=status.final_height, block_id__lte=last.number)
    events = _decode(status.network, logs.select_related("block").order_by("block_id", "log_index"))
    FinalEvent.objects.bulk_create(events, ignore_conflicts=True)
    status.final_height, status.final_hash = last.number, last.hash
    return len(events)


def _decode(network: str, logs: Iterable[Log]) -> list[FinalEvent]:
    names = {d.address: d.name for d in Deployment.objects.filter(network=network)}
    events = []
    for entry in logs:
        decoded = interface(names[entry.address]).decode_log(entry.topics, entry.data)
        if decoded is not None:
            events.append(
                FinalEvent(
                    network=network,
                    contract=names[entry.address],
                    name=decoded[0],
                    args=decoded[1],
                    block_number=entry.block_id,
                    block_hash=entry.block.hash,
                    block_time=datetime.fromtimestamp(entry.block.timestamp, UTC),
                    tx_hash=entry.tx_hash,
                    ordinal=entry.ordinal,
                    log_index=entry.log_index,
                )
            )
    return events


def dispatch(status: NetworkStatus, *, limit: int = 200) -> int:
    """Hand final events to their subscribers and advance the cursor, in the caller's transaction.

    Both commit or neither does: a handler's effects happen once per event, also across a kill. An
    event whose handler fails is kept, and all behind it wait: the reason is the status' problem.
    """
    events = FinalEvent.objects.filter(network=status.network, id__gt=status.event_cursor).order_by("id")
    consumed = 0
    for event in events[:limit]:
        try:
            with transaction.atomic():
                for handle in ports.subscribers(f"chain.event:{event.contract}.{event.name}"):
                    handle(event)
        except Exception as error:
            log.exception("final event was not consumed", event_id=event.id, tx_hash=event.tx_hash)
            status.problem = f"event {event.id}: {error}"
            break
        status.event_cursor = event.id
        consumed += 1
    return consumed
