"""Follows the chain into chain.db, and what is final into PostgreSQL.

A block that the node does not show is unknown: nothing is concluded from it. A node whose head lies
below ours is behind; only another hash at the same height is a reorganisation. One that reaches below
finality is never repaired silently: the network halts (protocols 4).
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Header
from aitbc.chain.models import Block, Deployment, FinalEvent, Log, NetworkStatus
from aitbc.chain.proofs import bloom_bits
from aitbc.chain.signing import parse_address
from aitbc.core import db, ports
from aitbc.core.errors import Unavailable

log = structlog.get_logger(__name__)
BATCH: Final = 100
RECEIPT_BLOCKS: Final = 10  # whose receipts are asked for at once
_INSERT_EVENTS: Final = """
    INSERT INTO chain_finalevent (network, contract, name, args, block_number, block_hash, block_time,
                                  tx_hash, ordinal, log_index)
    SELECT %s::text, * FROM unnest(%s::text[], %s::text[], %s::jsonb[], %s::bigint[], %s::bytea[],
                      %s::timestamptz[], %s::bytea[], %s::int[], %s::int[]) ON CONFLICT DO NOTHING"""
PROJECT_BLOCKS: Final = 50  # that become final in one transaction
DISPATCH_EVENTS: Final = 200  # that are handed on in one transaction


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
            client.identify(again=True)  # another chain behind the same URL contradicts nothing
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
    logs = _logs(client, headers, {address.lower(): address for address in watched})
    blocks = [Block(number=h.number, hash=h.hash, parent=h.parent, timestamp=h.timestamp) for h in headers]
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


def _logs(client: Client, headers: Sequence[Header], watched: dict[str, str]) -> list[Log]:
    """Our contracts' logs in these blocks; a block whose bloom has none of them is not asked for."""
    bits = [bloom_bits(parse_address(address)) for address in watched]
    wanted = [header for header in headers if any(header.bloom & each == each for each in bits)]
    found: list[Log] = []
    for start in range(0, len(wanted), RECEIPT_BLOCKS):
        chunk = wanted[start : start + RECEIPT_BLOCKS]
        for header, receipts in zip(chunk, client.block_receipts(chunk), strict=True):
            found += _ours(header, receipts, watched)
    return found


def _ours(header: Header, receipts: list[dict[str, Any]], watched: dict[str, str]) -> Iterator[Log]:
    counted = itertools.count()
    for receipt in receipts:
        for ordinal, entry in enumerate(receipt["logs"]):
            log_index, address = next(counted), watched.get(entry["address"].lower())
            if address is not None:
                place = {"block_id": header.number, "tx_hash": receipt["transactionHash"], "ordinal": ordinal}
                content = {"address": address, "topics": entry["topics"], "data": entry["data"]}
                yield Log(**place, **content, log_index=log_index)


# -- PostgreSQL ----------------------------------------------------------------------------------
def project(status: NetworkStatus, *, height: int) -> bool:
    """Write the events of the next blocks that became final, inside the caller's fenced transaction.

    The chain database must continue exactly the block that PostgreSQL calls final: it may have been
    rebuilt in between. Returns whether there may be more.
    """
    status.height = max(height, 0)
    if status.final_hash is not None:
        held = Block.objects.filter(number=status.final_height).first()
        if held is None:
            return False  # still scanning up to where we were
        if held.hash != status.final_hash:
            raise DeepReorganisation(f"block {held.number} is not the one that was final")
    target = height - settings.CHAIN_FINALITY_DEPTH
    final = Block.objects.filter(number__gt=status.final_height, number__lte=target).order_by("number")
    blocks = {block.number: block for block in final[:PROJECT_BLOCKS]}
    if not blocks:
        return False
    last = blocks[max(blocks)]
    logs = Log.objects.filter(block_id__gt=status.final_height, block_id__lte=last.number)
    events = _decode(status.network, logs.order_by("block_id", "log_index"), blocks)
    if events:
        db.rows(_INSERT_EVENTS, [status.network, *map(list, zip(*events, strict=True))])
    status.final_height, status.final_hash = last.number, last.hash
    return len(blocks) == PROJECT_BLOCKS


def _decode(network: str, logs: QuerySet[Log], blocks: dict[int, Block]) -> list[tuple[Any, ...]]:
    """Rows of `_INSERT_EVENTS`; the ORM would take longer for them than all else that is done to a log."""
    names = {d.address: d.name for d in Deployment.objects.filter(network=network)}
    times = {number: datetime.fromtimestamp(block.timestamp, UTC) for number, block in blocks.items()}
    hashes = {number: bytes.fromhex(block.hash[2:]) for number, block in blocks.items()}
    events = []
    columns = ("block_id", "address", "topics", "data", "tx_hash", "ordinal", "log_index")
    for number, address, topics, data, tx_hash, *place in logs.values_list(*columns):
        decoded = interface(names[address]).decode_log(topics, data)
        if decoded is not None:
            what = (names[address], decoded[0], json.dumps(decoded[1]))
            where = (number, hashes[number], times[number], bytes.fromhex(tx_hash[2:]))
            events.append((*what, *where, *place))
    return events


def dispatch(status: NetworkStatus) -> bool:
    """Hand final events to their subscribers and advance the cursor, in the caller's transaction.

    Both commit or neither does: a handler's effects happen once per event, also across a kill. An
    event whose handler fails is kept, and all behind it wait: the reason is the status' problem.
    Returns whether there may be more.
    """
    status.problem = ""
    waiting = FinalEvent.objects.filter(network=status.network, id__gt=status.event_cursor).order_by("id")
    events = list(waiting[:DISPATCH_EVENTS])
    more = len(events) == DISPATCH_EVENTS
    if more:  # not between a transaction's logs: reserves are compared at any moment in between
        events += waiting.filter(id__gt=events[-1].id, tx_hash=events[-1].tx_hash)
    for event in events:
        try:
            with transaction.atomic():
                for handle in ports.subscribers(f"chain.event:{event.contract}.{event.name}"):
                    handle(event)
        except Exception as error:
            log.exception("final event was not consumed", event_id=event.id, tx_hash=event.tx_hash)
            status.problem = f"event {event.id}: {error}"
            return False
        status.event_cursor = event.id
    return more
