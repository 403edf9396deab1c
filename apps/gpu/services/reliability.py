"""The reliability score and the log behind it; the formula is in docs/reliability.md and sql/reliability.sql."""

from collections.abc import Iterator
from math import isclose
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction

from aitbc.accounts import audit
from aitbc.chain import merkle, signing
from aitbc.chain.signing import keccak
from aitbc.core import db
from aitbc.core.errors import DomainError
from apps.gpu import statements
from apps.gpu.models import Heartbeat, HeartbeatRoot, Miner


def refresh() -> int:
    """Seal the days that are over and bring all scores up to a minute ago, when all was written -> how many moved."""
    while seal_day():
        pass
    return int(db.value("SELECT gpu_refresh_reliability(clock_timestamp() - interval '1 minute')"))


@transaction.atomic
def seal_day() -> HeartbeatRoot | None:
    """Put a root over a day's heartbeats, in a table and in the audit log, whose heads every settlement anchors."""
    leaves = db.rows("SELECT day, leaf FROM gpu_seal_heartbeats()")
    if not leaves:
        return None
    day, root = leaves[0][0], "0x" + merkle.root([bytes(leaf) for _, leaf in leaves]).hex()
    audit.note("gpu.heartbeats_sealed", f"day:{day}", {"root": root, "miners": len(leaves)})
    return HeartbeatRoot.objects.create(day=day, root=root, miners=len(leaves))


def findings(*, miner: UUID | None = None) -> Iterator[dict[str, Any]]:
    """Each miner with its stored score, the one that the log gives, and in `fault` what is wrong, if anything."""
    for found, stored, computed in db.rows("SELECT * FROM gpu_recompute_reliability(%s::uuid)", (miner,)):
        same = all(a is b or isclose(a, b, abs_tol=1e-9) for a, b in zip(stored, computed, strict=True) if a != b)
        fault = broken(found) or ("" if same else "the stored score is not the one of the log")
        yield {"miner": str(found), "stored": stored, "computed": computed, "fault": fault}


def broken(miner: UUID) -> str:
    """The first fault of a miner's log: its chain, its hashes, its signatures, its sealed days; empty if sound."""
    head, sequence = "0x" + statements.GENESIS.hex(), 0
    for beat in Heartbeat.objects.filter(miner=miner).order_by("sequence").iterator():
        if (beat.sequence, beat.previous) != (sequence + 1, head):
            return f"heartbeat {beat.sequence} does not follow heartbeat {sequence}"
        if fault := _fault(beat):
            return f"heartbeat {beat.sequence}: {fault}"
        head, sequence = beat.head, beat.sequence
    if Miner.objects.filter(pk=miner).exclude(sequence=sequence, head=head).exists():
        return f"the log ends with heartbeat {sequence}, which is not the miner's last"
    changed = db.value("SELECT gpu_changed_day(%s)", (miner,))
    return f"the heartbeats of {changed} are not those that were sealed" if changed else ""


def _fault(beat: Heartbeat) -> str:
    if beat.body is None:
        return "its body was not kept"
    hashes = {name: statements.hex32(getattr(beat, name)) for name in ("previous", "body")}
    struct = statements.HEARTBEAT.hash(hashes | {"miner": statements.uuid32(beat.miner_id), "sequence": beat.sequence})
    if beat.head != "0x" + struct.hex():
        return "its head is not the hash of what it says"
    digest = keccak(b"\x19\x01" + statements.domain(settings.CHAIN_ID).separator + struct)
    try:
        own = not beat.signature or signing.recover(digest, beat.signature) == beat.signer
    except DomainError:
        own = False
    return "" if own else "the signature is not its signer's"
