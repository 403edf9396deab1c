"""The platform's side of the proof of hardware (protocols 19-20): issue, take the commitment, check rows.

The claim it supports is "this device delivered this compute by the deadline", never "this is that card".
"""

import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models import QuerySet

from aitbc.accounts import parameters
from aitbc.core import clock, db
from aitbc.core.errors import Conflict, NotFound
from aitbc.core.outbox import announce
from apps.gpu.agent import challenge as protocol
from apps.gpu.agent import memory
from apps.gpu.models import Challenge, Device, Miner

# An honest miner needs the planned time for the work it declared itself; three times that is late.
SLACK = 3
GRACE_SECONDS = 10
UNDECLARED_TFLOPS, UNDECLARED_GBPS = 0.01, 1.0
FILLING = 6  # how many times as long as a product the filling and hashing of a memory may take


@transaction.atomic
def issue_missing(miner: Miner) -> dict[str, Any] | None:
    """A challenge for each active device that was never verified; returns the miner's next open one."""
    now = clock.database_now()
    for device in miner.devices.select_for_update().filter(active=True, verified=False).order_by("pk"):
        under_way = device.challenges.filter(state__in=Challenge.OPEN).first()
        if under_way is not None and under_way.deadline <= now:  # else it would keep a new one away for ever
            end(under_way, "not answered by the deadline")
            under_way.save()
            under_way = None
        if under_way is None:
            _issue(miner, device)
    return next(iter(open_for(miner)), None)


def _issue(miner: Miner, device: Device, proof: str = "compute") -> Challenge:
    seconds = parameters.get("challenge_seconds")
    facts: dict[str, Any] = {"seed": secrets.token_bytes(32), "kind": device.kind}
    if proof == "memory":
        gbps = (device.claimed_memory_gbps or UNDECLARED_GBPS) / 4  # of a copy, which does nothing else
        spec = memory.plan(**facts, memory_mb=device.memory_mb, gbps=gbps, seconds=seconds / 4)
        seconds *= FILLING
    else:
        spec = protocol.plan(**facts, tflops=device.claimed_tflops or UNDECLARED_TFLOPS, seconds=seconds)
    now = clock.database_now()
    return Challenge.objects.create(
        miner=miner,
        device=device,
        proof=proof,
        **vars(spec) | {"seed": "0x" + spec.seed.hex()},
        issued_at=now,
        deadline=now + timedelta(seconds=SLACK * seconds + GRACE_SECONDS),
    )


def open_for(miner: Miner) -> list[dict[str, Any]]:
    """All that the miner has to answer, at once; its clock starts now, when it hears of them (sql/challenges.sql)."""
    found: list[dict[str, Any]] = orjson.loads(db.value("SELECT gpu_open_challenges(%s)", (miner.pk,)))
    return found


def draw() -> int:
    """End what is overdue; then ask by chance: all devices of an owner, of a signing key, or of a region at the
    same time, also while they work, and those that are not verified anew each hour -> how many devices."""
    db.rows("SELECT gpu_end_overdue_challenges()")
    asked = 0
    for hours, devices in db.rows("SELECT * FROM gpu_challenge_groups()"):
        if secrets.randbelow(60 * hours or 1) == 0:  # we are called each minute
            asked += ask_together(devices, proof=secrets.choice(("compute", "memory")))
    return asked


@transaction.atomic
def ask_together(devices: list[UUID], *, proof: str) -> int:
    """Memory is filled only where nothing runs and speed was shown before; a device has one open challenge."""
    found = Device.objects.select_for_update(of=("self",)).filter(pk__in=devices, active=True).order_by("pk")
    free = [x for x in found.select_related("miner") if not x.challenges.filter(state__in=Challenge.OPEN).exists()]
    for device in free:
        ready = device.verified and not _works(device)
        _issue(device.miner, device, proof if ready else "compute")
    return len(free)


def _works(device: Device) -> bool:
    return bool(db.value("SELECT gpu_device_works(%s)", (device.pk,)))


@transaction.atomic
def commit(*, key: UUID, challenge: UUID, roots: list[str]) -> dict[str, Any]:
    """Keep the roots and the time they took, then draw the nonce that picks the rows."""
    found = locked(key, challenge, Challenge.State.ISSUED)
    now = clock.database_now()
    if len(roots) != found.steps:
        raise Conflict("challenge.roots", f"this challenge has {found.steps} steps, one root each")
    found.roots, found.committed_at = roots, now
    found.nonce = "0x" + secrets.token_hex(32)
    found.state = Challenge.State.COMMITTED
    if now > found.deadline:
        end(found, "the roots came after the deadline")
    found.save()
    return {"nonce": found.nonce, "rows": _places(found) if found.state == "committed" else []}


def open_rows(*, key: UUID, challenge: UUID, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Recompute exactly the rows asked for; the first wrong one fails the device.

    That takes seconds for a large card, so no lock is held meanwhile: of two openings at once the first
    to end decides, as if the other had come later.
    """
    found = _find(Challenge.objects.all(), key, challenge, Challenge.State.COMMITTED)
    reason = protocol.verify_rows(spec_of(found), roots=found.roots, rows=rows, wanted=_places(found))
    return _decide(key, challenge, reason)


@transaction.atomic
def _decide(key: UUID, challenge: UUID, reason: str | None) -> dict[str, Any]:
    found = locked(key, challenge, Challenge.State.COMMITTED)
    assert found.committed_at is not None  # set with the state
    if reason is None:
        seconds = (found.committed_at - found.issued_at).total_seconds()
        found.tflops = spec_of(found).operations / seconds / 1e12
        passed(found, tflops=found.tflops, verified_at=found.committed_at)
    else:
        end(found, reason)
    found.save()
    return verdict(found)


def verdict(found: Challenge) -> dict[str, Any]:
    """True rows are not all: what was delivered must also be what the claimed model delivers."""
    doubt = found.reason or Device.objects.values_list("doubt", flat=True).get(pk=found.device_id)
    facts = {"passed": not doubt, "tflops": found.tflops, "memory_gbps": found.memory_gbps}
    return facts | {"reason": doubt or None}


def passed(found: Challenge, **measured: Any) -> None:
    """A device that works meanwhile may be slower than it is: it only shows that it is there."""
    found.state = Challenge.State.PASSED
    kept = {} if found.device.verified and _works(found.device) else measured
    Device.objects.filter(pk=found.device_id).update(verified=True, refuted="", **kept)
    _announce(found)


def locked(key: UUID, challenge: UUID, *states: str, proof: str = "compute") -> Challenge:
    return _find(Challenge.objects.select_for_update(of=("self",)).filter(proof=proof), key, challenge, *states)


def _find(among: QuerySet[Challenge], key: UUID, challenge: UUID, *states: str) -> Challenge:
    found = among.filter(pk=challenge, miner__key_id=key).first()
    if found is None:
        raise NotFound("challenge.unknown", "you have no such challenge")
    if found.state not in states:
        raise Conflict("challenge.state", f"this challenge is {found.state}")
    return found


def spec_of(found: Challenge) -> protocol.Spec:
    return protocol.Spec(bytes.fromhex(found.seed[2:]), found.n, found.rounds, found.steps)


def _places(found: Challenge) -> list[protocol.Place]:
    return protocol.places(bytes.fromhex(found.nonce[2:]), spec_of(found))


def end(found: Challenge, reason: str) -> None:
    found.state, found.reason = Challenge.State.FAILED, reason[:200]
    Device.objects.filter(pk=found.device_id).update(
        verified=False, tflops=None, memory_gbps=None, refuted=found.reason
    )
    _announce(found)


def _announce(found: Challenge) -> None:
    payload = {"miner": str(found.miner_id), "device": str(found.device_id)}
    announce("gpu.device_measured", f"miner:{found.miner_id}", payload)
