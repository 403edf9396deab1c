"""The state of an offer: what stands in the way of listing it, and the one place that changes it.

Whoever changes offers first locks their miner, then the offers by id: a miner's listings never race.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from aitbc.core import db
from aitbc.core.errors import Invalid
from apps.gpu.models import Device, Miner
from apps.marketplace.models import Offer, OfferDevice, OfferTransition
from apps.marketplace.selectors.values import version

RELIABILITY = ("reliability", "reliability_low", "reliability_high", "reliability_samples")
ACCEPTING = (Miner.State.ONLINE, Miner.State.SUSPECT)


def lock_miner(miner_id: UUID) -> Miner:
    db.inside_transaction()
    return Miner.objects.select_for_update(no_key=True).get(pk=miner_id)


def facts(miner: Miner, devices: Sequence[Device]) -> dict[str, object]:
    """What an offer copies from its devices and miner; one offer sells one model."""
    models = sorted({device.model for device in devices})
    if len(models) != 1:
        raise Invalid(
            "request.invalid",
            "the devices of an offer are of one model",
            errors=[{"loc": ["body", "devices"], "msg": f"name devices of one model; these are {models}"}],
        )
    return {
        "model": models[0],
        "device_count": len(devices),
        "memory_mb": min(device.memory_mb for device in devices),
        "region": miner.region,
        "verified": all(device.verified for device in devices),
        "device_kind": devices[0].kind,
        "cuda": _least([version(device.cuda) if device.cuda else None for device in devices]),
        "driver": _least([device.driver for device in devices]),
        "tflops": _least([device.tflops for device in devices]),
        "memory_gbps": _least([device.memory_gbps for device in devices]),
        "dl_score": _least([device.dl_score for device in devices]),
        **{name: getattr(miner, name) for name in RELIABILITY},
        "concurrency": miner.concurrency,
        "sandbox": miner.sandbox,
        "first_party": miner.first_party,
    }


def _least(known: Sequence[Any]) -> Any:
    """None as soon as one of the devices has not got it."""
    return None if None in known else min(known)


def refresh(offer: Offer) -> None:
    """Copy the facts anew; also taken when the seller lists hardware that has changed."""
    current = facts(offer.miner, list(offer.devices.all()))
    stale = [name for name, value in current.items() if getattr(offer, name) != value]
    for name in stale:
        setattr(offer, name, current[name])
    if stale:
        offer.save(update_fields=[*stale, "updated_at"])


def obstacle(offer: Offer) -> Offer.Reason | None:
    """Why this offer cannot be listed now, by its miner and devices as they are."""
    devices = list(offer.devices.all())
    if doubt(devices):
        return Offer.Reason.HARDWARE_DOUBTED
    if absence := absent(offer.miner):
        return absence
    if not all(device.active for device in devices):
        return Offer.Reason.DEVICE_GONE
    if {device.model for device in devices} != {offer.model}:
        return Offer.Reason.HARDWARE_CHANGED
    if not set(offer.kinds) <= set(offer.miner.kinds):
        return Offer.Reason.KINDS_GONE
    if taken(devices, besides=offer.pk):
        return Offer.Reason.DEVICE_TAKEN
    return None


def absent(miner: Miner) -> Offer.Reason | None:
    if miner.state in ACCEPTING:
        return None
    draining = miner.state == Miner.State.DRAINING
    return Offer.Reason.MINER_DRAINING if draining else Offer.Reason.MINER_LEFT


def doubt(devices: Sequence[Device]) -> str:
    """Why one of them is not believed, in words; empty if all are."""
    return next((device.doubt for device in devices if device.doubt), "")


def taken(devices: Sequence[Device], besides: UUID | None = None) -> bool:
    """Is one of these devices in another listed offer? Under the miner's lock the answer lasts."""
    listed = OfferDevice.objects.filter(device__in=devices, state=Offer.State.LISTED)
    return (listed.exclude(offer_id=besides) if besides else listed).exists()


def settle(offer: Offer, obstacle: Offer.Reason | None, by: UUID | None = None) -> None:
    """Listed when nothing stands in the way, else paused for that reason; doubted hardware suspends it."""
    if obstacle is None:
        move(offer, Offer.State.LISTED, by=by)
    elif obstacle == Offer.Reason.HARDWARE_DOUBTED:
        move(offer, Offer.State.SUSPENDED, obstacle, by=by, note=doubt(list(offer.devices.all())))
    else:
        move(offer, Offer.State.PAUSED, obstacle, by=by)


def move(offer: Offer, state: str, reason: str = "", *, by: UUID | None = None, note: str = "") -> None:
    """Change and log the state under the caller's locks; to what it is already: nothing happens."""
    db.inside_transaction()
    if (offer.state, offer.reason) == (state, reason):
        return
    OfferTransition.objects.create(offer=offer, before=offer.state, after=state, reason=reason, by_id=by, note=note)
    offer.state, offer.reason = state, reason
    offer.save(update_fields=["state", "reason", "updated_at"])
