"""The platform's side of the proof of hardware (protocols 19-20): issue, take the commitment, check rows.

The claim it supports is "this device delivered this compute by the deadline", never "this is that card".
"""

import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from aitbc.accounts import parameters
from aitbc.core import clock
from aitbc.core.errors import Conflict, NotFound
from aitbc.core.outbox import announce
from apps.gpu.agent import challenge as protocol
from apps.gpu.models import Challenge, Device, Miner

# An honest miner needs the planned time for the work it declared itself; three times that is late.
SLACK = 3
GRACE_SECONDS = 10
UNDECLARED_TFLOPS = 0.01


@transaction.atomic
def issue_missing(miner: Miner) -> dict[str, Any] | None:
    """A challenge for each active device that was never verified; returns the miner's next open one."""
    now = clock.database_now()
    for device in miner.devices.select_for_update().filter(active=True, verified=False).order_by("pk"):
        under_way = device.challenges.filter(state__in=("issued", "committed")).first()
        if under_way is not None and under_way.deadline <= now:  # else it would keep a new one away for ever
            _end(under_way, "not answered by the deadline")
            under_way.save()
            under_way = None
        if under_way is None:
            _issue(miner, device)
    return open_for(miner)


def _issue(miner: Miner, device: Device) -> Challenge:
    seconds = parameters.get("challenge_seconds")
    tflops = device.claimed_tflops or UNDECLARED_TFLOPS
    spec = protocol.plan(seed=secrets.token_bytes(32), kind=device.kind, tflops=tflops, seconds=seconds)
    now = clock.database_now()
    return Challenge.objects.create(
        miner=miner,
        device=device,
        **vars(spec) | {"seed": "0x" + spec.seed.hex()},
        issued_at=now,
        deadline=now + timedelta(seconds=SLACK * seconds + GRACE_SECONDS),
    )


def open_for(miner: Miner) -> dict[str, Any] | None:
    """What the miner has to answer next, if anything; its clock starts with the first time it is shown."""
    issued = Challenge.objects.filter(miner=miner, state=Challenge.State.ISSUED)
    found = issued.select_related("device").order_by("pk").first()
    if found is None:
        return None
    return {
        "id": found.pk,
        "device_id": found.device_id,
        "device": found.device.uuid,
        "spec": _spec(found).as_json(),
        "deadline": found.deadline,
    }


@transaction.atomic
def commit(*, key: UUID, challenge: UUID, roots: list[str]) -> dict[str, Any]:
    """Keep the roots and the time they took, then draw the nonce that picks the rows."""
    found = _locked(key, challenge, Challenge.State.ISSUED)
    now = clock.database_now()
    if len(roots) != found.steps:
        raise Conflict("challenge.roots", f"this challenge has {found.steps} steps, one root each")
    found.roots, found.committed_at = roots, now
    found.nonce = "0x" + secrets.token_hex(32)
    found.state = Challenge.State.COMMITTED
    if now > found.deadline:
        _end(found, "the roots came after the deadline")
    found.save()
    return {"nonce": found.nonce, "rows": _places(found) if found.state == "committed" else []}


def open_rows(*, key: UUID, challenge: UUID, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Recompute exactly the rows asked for; the first wrong one fails the device.

    That takes seconds for a large card, so no lock is held meanwhile: of two openings at once the first
    to end decides, as if the other had come later.
    """
    found = _find(Challenge.objects.all(), key, challenge, Challenge.State.COMMITTED)
    reason = protocol.verify_rows(_spec(found), roots=found.roots, rows=rows, wanted=_places(found))
    return _decide(key, challenge, reason)


@transaction.atomic
def _decide(key: UUID, challenge: UUID, reason: str | None) -> dict[str, Any]:
    found = _locked(key, challenge, Challenge.State.COMMITTED)
    assert found.committed_at is not None  # set with the state
    if reason is None:
        seconds = (found.committed_at - found.issued_at).total_seconds()
        found.tflops = _spec(found).operations / seconds / 1e12
        found.state = Challenge.State.PASSED
        Device.objects.filter(pk=found.device_id).update(
            verified=True, tflops=found.tflops, verified_at=found.committed_at, refuted=""
        )
        _announce(found)
    else:
        _end(found, reason)
    found.save()
    return verdict(found)


def verdict(found: Challenge) -> dict[str, Any]:
    """True rows are not all: what was delivered must also be what the claimed model delivers."""
    doubt = found.reason or Device.objects.values_list("doubt", flat=True).get(pk=found.device_id)
    facts = {"passed": not doubt, "tflops": found.tflops, "memory_gbps": found.memory_gbps}
    return facts | {"reason": doubt or None}


def _locked(key: UUID, challenge: UUID, state: str) -> Challenge:
    return _find(Challenge.objects.select_for_update(of=("self",)), key, challenge, state)


def _find(among: QuerySet[Challenge], key: UUID, challenge: UUID, state: str) -> Challenge:
    found = among.filter(pk=challenge, miner__key_id=key).first()
    if found is None:
        raise NotFound("challenge.unknown", "you have no such challenge")
    if found.state != state:
        raise Conflict("challenge.state", f"this challenge is {found.state}")
    return found


def _spec(found: Challenge) -> protocol.Spec:
    return protocol.Spec(bytes.fromhex(found.seed[2:]), found.n, found.rounds, found.steps)


def _places(found: Challenge) -> list[protocol.Place]:
    return protocol.places(bytes.fromhex(found.nonce[2:]), _spec(found))


def _end(found: Challenge, reason: str) -> None:
    found.state, found.reason = Challenge.State.FAILED, reason[:200]
    Device.objects.filter(pk=found.device_id).update(
        verified=False, tflops=None, memory_gbps=None, refuted=found.reason
    )
    _announce(found)


def _announce(found: Challenge) -> None:
    payload = {"miner": str(found.miner_id), "device": str(found.device_id)}
    announce("gpu.device_measured", f"miner:{found.miner_id}", payload)
