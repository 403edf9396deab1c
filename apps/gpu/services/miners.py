"""Registration and life of miners."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from aitbc.accounts import parameters
from aitbc.chain import signing
from aitbc.core import clock, db, money
from aitbc.core.errors import Conflict, Invalid, NotFound
from aitbc.core.outbox import announce
from aitbc.core.principal import Principal
from apps.gpu import statements
from apps.gpu.models import Challenge, Device, Miner, Nonce
from apps.gpu.runtimes import runtimes

NONCE_MINUTES = 10
_DEVICE = ("uuid", "kind", "model", "memory_mb", "verified", "tflops", "memory_gbps")
_JUDGED = ("verified_model", "dl_score", "doubt")


@dataclass(frozen=True, slots=True)
class DeviceClaim:
    """What a miner says of one device; `cuda` is a version such as 12.4."""

    uuid: str
    kind: str
    model: str
    memory_mb: int
    cuda: str | None = None
    driver: str | None = None
    tflops: float | None = None
    memory_gbps: float | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    name: str
    region: str
    concurrency: int
    kinds: tuple[str, ...]
    models: tuple[str, ...]
    devices: tuple[DeviceClaim, ...]
    price: str
    address: str
    proof: str
    nonce: str | None = None  # the key's newest one
    sandbox: str = "process"


def make_nonce(*, key: UUID) -> str:
    nonce = Nonce.objects.create(value="0x" + secrets.token_hex(32), key_id=key)
    return nonce.value


@transaction.atomic
def register(*, caller: Principal, registration: Registration) -> tuple[Miner, bool]:
    """Create the caller's miner, or bring it up to date -> (miner, whether it is new). Leases go on."""
    kinds, price = _kinds(registration.kinds, registration.sandbox), _price(registration.price)
    _check_devices(registration.devices)
    _check_proof(caller, registration)
    _lock_devices(registration.devices)
    db.rows("SELECT pg_advisory_xact_lock(hashtextextended(%s, 13))", (str(caller.key_id),))
    facts = {
        "owner_id": caller.user_id,
        "name": registration.name,
        "region": registration.region,
        "concurrency": registration.concurrency,
        "kinds": kinds,
        "model_names": sorted(set(registration.models)),
        "price": price,
        "address": registration.address,
        "sandbox": registration.sandbox,
        "last_seen_at": clock.database_now(),
    }
    miner, created = Miner.objects.update_or_create(
        key_id=caller.key_id, defaults=facts, create_defaults=facts | {"head": statements.GENESIS}
    )
    Miner.objects.filter(pk=miner.pk).exclude(state=Miner.State.SUSPENDED).update(state=Miner.State.ONLINE)
    miner.refresh_from_db()
    _keep_devices(miner, registration.devices)
    announce("gpu.miner_registered", f"miner:{miner.pk}", {"miner": str(miner.pk)})
    return miner, created


def _check_devices(claims: tuple[DeviceClaim, ...]) -> None:
    if not claims:
        raise Invalid.field("devices", "a miner has at least one device")
    if len({claim.uuid for claim in claims}) < len(claims):
        raise Invalid.field("devices", "two devices have one uuid")


def _kinds(kinds: Iterable[str], sandbox: str) -> list[str]:
    """Production lets a client's code and models run only where the sandbox isolates them (protocols 32)."""
    if unknown := [kind for kind in kinds if kind not in runtimes()]:
        raise Invalid.field("kinds", f"unknown kinds: {', '.join(unknown)}")
    client_code = [kind for kind in kinds if runtimes()[kind].runs_client_code]
    if client_code and sandbox == "process" and not settings.DEVELOPMENT:
        raise Invalid.field("kinds", f"{', '.join(client_code)} need a sandbox that isolates a client's code")
    return sorted(set(kinds))


def _price(amount: str) -> int:
    price = money.units(amount, 18)
    if not 0 < price <= money.MAX_UNITS:
        raise Invalid.field("price", "must be more than nothing")
    return price


def _check_proof(caller: Principal, registration: Registration) -> None:
    """The address signed the key's prefix and a nonce of ours that nobody used before."""
    fresh = Nonce.objects.filter(
        key_id=caller.key_id, used_at=None, created_at__gt=Now() - timedelta(minutes=NONCE_MINUTES)
    )
    if registration.nonce is not None:
        fresh = fresh.filter(value=registration.nonce)
    nonce = fresh.order_by("-created_at").values_list("value", flat=True).first()
    # The update decides: of two registrations with one nonce the second finds it used.
    if nonce is None or not fresh.filter(value=nonce).update(used_at=Now()):
        raise Invalid("miner.nonce", "ask POST /v1/miners/nonce for a fresh nonce and sign that")
    values = {"prefix": caller.prefix, "nonce": nonce, "address": registration.address}
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.MINER_REGISTRATION, values)
    if signing.recover(digest, registration.proof).lower() != registration.address.lower():
        raise Invalid("miner.proof", "the proof was not signed by this address")


def _lock_devices(claims: tuple[DeviceClaim, ...]) -> None:
    """Two miners that claim one uuid at once take turns; the second then sees the first."""
    for uuid in sorted(claim.uuid for claim in claims):
        db.rows("SELECT pg_advisory_xact_lock(hashtextextended(%s, 17))", (uuid,))


def _keep_devices(miner: Miner, claims: tuple[DeviceClaim, ...]) -> None:
    """An active uuid is unique; one left behind by a miner that is gone may be taken over."""
    uuids = [claim.uuid for claim in claims]
    rivals = Device.objects.select_for_update().filter(uuid__in=uuids, active=True).exclude(miner=miner)
    for rival in rivals.select_related("miner").order_by("pk"):
        if rival.miner.state not in (Miner.State.OFFLINE, Miner.State.DEAD):
            raise Conflict("device.taken", f"device {rival.uuid} is active at another miner", uuid=rival.uuid)
        Device.objects.filter(pk=rival.pk).update(active=False)
    miner.devices.exclude(uuid__in=uuids).update(active=False)
    for claim in claims:
        _keep_device(miner, claim)


def _keep_device(miner: Miner, claim: DeviceClaim) -> None:
    facts = {name: getattr(claim, name) for name in ("kind", "model", "memory_mb", "cuda", "driver")}
    claims = {"claimed_tflops": claim.tflops, "claimed_memory_gbps": claim.memory_gbps, "active": True}
    same = miner.devices.filter(uuid=claim.uuid).first()
    if same is None:
        miner.devices.create(uuid=claim.uuid, **facts, **claims)
        return
    changed = any(getattr(same, name) != value for name, value in facts.items())
    if changed:  # what was measured, was measured on something else
        claims |= {"verified": False, "tflops": None, "memory_gbps": None, "verified_at": None}
    miner.devices.filter(pk=same.pk).update(**facts, **claims)


def of_key(key: UUID) -> Miner:
    miner = Miner.objects.filter(key_id=key).first()
    if miner is None:
        raise NotFound("miner.unregistered", "this key has not registered a miner")
    return miner


@transaction.atomic
def drain(*, key: UUID) -> Miner:
    """Finish what it holds, take no more."""
    miner = of_key(key)
    Miner.objects.filter(pk=miner.pk, state__in=("online", "suspect")).update(state=Miner.State.DRAINING)
    announce("gpu.miner_draining", f"miner:{miner.pk}", {"miner": str(miner.pk)})
    return of_key(key)


@transaction.atomic
def sign_off(*, key: UUID) -> Miner:
    """Leave: leases go back to the queue, devices become free. Silence after a farewell is no failure, but the
    farewell is of who still speaks."""
    miner = Miner.objects.select_for_update(no_key=True).filter(key_id=key).first() or of_key(key)
    heard = Now() - timedelta(seconds=parameters.get("dead_seconds"))
    miner.heartbeats.filter(sequence=miner.sequence, received_at__gt=heard).update(farewell=True)
    leave(miner, Miner.State.OFFLINE, "miner.signed_off", "the miner signed off")
    return of_key(key)


def leave(miner: Miner, state: str, code: str, message: str) -> int:
    """Take a miner out inside the caller's transaction; returns how many leases went back."""
    db.inside_transaction()
    # Signing off and registering again must not end a suspension.
    Miner.objects.filter(pk=miner.pk).exclude(state=Miner.State.SUSPENDED).update(state=state)
    if state == Miner.State.OFFLINE:
        miner.devices.update(active=False)
        # Who comes back gets one of its own: the clock of the old one has run on meanwhile.
        asked = miner.challenges.filter(state__in=Challenge.OPEN)
        miner.devices.filter(pk__in=asked.values("device")).update(verified=False)  # nobody leaves to be believed
        asked.update(state="failed", reason="the miner signed off")
    returned: int = db.value(
        """SELECT gpu_end_attempt(coalesce(array_agg(id), '{}'), %s::text, %s::text, 'provider', true)
             FROM gpu_job WHERE miner_id = %s AND state IN ('leased', 'running')""",
        (code, message, miner.pk),
    )
    announce("gpu.miner_left", f"miner:{miner.pk}", {"miner": str(miner.pk), "state": state})
    return returned


@transaction.atomic
def update_capabilities(
    *, key: UUID, kinds: list[str] | None, models: list[str] | None, price: str | None, concurrency: int | None
) -> Miner:
    miner = Miner.objects.select_for_update(no_key=True).filter(key_id=key).first() or of_key(key)
    if kinds is not None:
        miner.kinds = _kinds(kinds, miner.sandbox)
    if models is not None:
        miner.model_names = sorted(set(models))
    if price is not None:
        miner.price = _price(price)
    if concurrency is not None:
        miner.concurrency = concurrency
    miner.save(update_fields=["kinds", "model_names", "price", "concurrency"])
    announce("gpu.miner_registered", f"miner:{miner.pk}", {"miner": str(miner.pk)})
    return miner


def document(miner: Miner) -> dict[str, Any]:
    """The miner as `/v1/miners/me` shows it."""
    return {
        "id": miner.pk,
        "name": miner.name,
        "region": miner.region,
        "state": miner.state,
        "concurrency": miner.concurrency,
        "kinds": miner.kinds,
        "models": miner.model_names,
        "price": {"amount": money.show(miner.price, 18), "asset": miner.asset},
        "address": miner.address,
        "sandbox": miner.sandbox,
        "last_seen_at": miner.last_seen_at,
        "sequence": miner.sequence,
        "head": miner.head,
        "devices": list(miner.devices.filter(active=True).order_by("pk").values("id", *_DEVICE, *_JUDGED)),
        "heartbeat_seconds": parameters.get("heartbeat_seconds"),
    }
