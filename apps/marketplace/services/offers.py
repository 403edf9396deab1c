"""Listing, changing and withdrawing offers; each only by the seller of its miner, or by the platform."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from aitbc.core import clock, money
from aitbc.core.errors import Conflict, Invalid, NotFound
from aitbc.core.principal import Principal
from apps.gpu.models import Device, Miner
from apps.marketplace.models import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.services import states
from apps.trading.services.escrow import call

FURTHEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Terms:
    """None leaves what is, 0 takes it away; `spot_price` in smallest units per device second."""

    spot_price: int | None = None
    reserved_discount_bps: int | None = None
    min_seconds: int | None = None
    max_seconds: int | None = None
    available_from: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewOffer:
    """`price` is a decimal string per device second. Without devices or kinds: all that the miner has.
    `sla`: promised availability in basis points, and whether it is sold with it only."""

    price: str
    terms: Terms = Terms()
    miner_id: UUID | None = None
    devices: Sequence[UUID] = ()
    kinds: Sequence[str] = ()
    sla: tuple[int, bool] | None = None


@dataclass(frozen=True, slots=True)
class OfferChange:
    """None leaves a value as it is; `state` is listed or paused."""

    price: str | None = None
    terms: Terms = Terms()
    kinds: Sequence[str] | None = None
    state: str | None = None
    sla: tuple[int, bool] | None = None


def seed(database: str) -> None:
    """Strategies' numbers, and what a rule of the market may be about; existing rows stay."""
    connections[database].cursor().execute("SELECT market_seed(), market_rule_seed()")


@transaction.atomic
def list_offer(*, seller: Principal, offer: NewOffer) -> Offer:
    """Put devices of the seller's miner on the market. Forbidden "reputation.too_low" below the limit."""
    call("reputation_require", seller.user_id, "sell")
    miner = states.lock_miner(_own_miner(seller, offer.miner_id))
    devices = _devices(miner, offer.devices)
    listed = Offer(
        miner=miner,
        price=0,
        kinds=_kinds(miner, offer.kinds or miner.kinds),
        available_from=clock.database_now(),
        sla_bps=offer.sla[0] if offer.sla else None,
        sla_only=bool(offer.sla and offer.sla[1]),
        **states.facts(miner, devices),
    )
    _agree(listed, offer.price, offer.terms)
    if absence := states.absent(miner):
        raise _obstructed(absence)
    if states.doubt(devices):
        raise _obstructed(Offer.Reason.HARDWARE_DOUBTED)
    if states.taken(devices):
        raise _obstructed(Offer.Reason.DEVICE_TAKEN)
    listed.save(force_insert=True)
    OfferDevice.objects.bulk_create(OfferDevice(offer=listed, device=device) for device in devices)
    OfferTransition.objects.create(offer=listed, after=listed.state, by_id=seller.user_id)
    call("offer_check", listed.pk)
    return listed


@transaction.atomic
def change_offer(*, seller: Principal, offer_id: UUID, change: OfferChange) -> Offer:
    """Price and times hold for jobs submitted from now on: a queued job keeps the price it saw."""
    offer = _locked(offer_id, seller)
    if offer.state in (Offer.State.DELISTED, Offer.State.SUSPENDED):
        raise Conflict(f"offer.{offer.state}", f"this offer is {offer.state} and cannot be changed")
    changed = _agree(offer, change.price, change.terms)
    if change.kinds is not None:
        offer.kinds = _kinds(offer.miner, change.kinds)
    if change.sla is not None:
        offer.sla_bps, offer.sla_only = change.sla
    offer.save(update_fields=[*changed, "kinds", "sla_bps", "sla_only", "updated_at"])
    if change.state == Offer.State.PAUSED:
        states.move(offer, Offer.State.PAUSED, Offer.Reason.SELLER, by=seller.user_id)
    elif change.state == Offer.State.LISTED:
        _relist(offer, seller.user_id)
    call("offer_check", offer.pk)
    return offer


@transaction.atomic
def delist_offer(*, seller: Principal, offer_id: UUID) -> Offer:
    """Withdraw for good; a repeat changes nothing. Jobs already submitted under it go on."""
    offer = _locked(offer_id, seller)
    if offer.state != Offer.State.DELISTED:
        states.move(offer, Offer.State.DELISTED, Offer.Reason.SELLER, by=seller.user_id)
    return offer


@transaction.atomic
def suspend_offer(*, offer_id: UUID, by: UUID | None, note: str) -> Offer:
    """The platform takes it off the market until it lifts the suspension; `note` says why, for the log."""
    offer = _locked(offer_id)
    if offer.state == Offer.State.DELISTED:
        raise Conflict("offer.delisted", "this offer is delisted already")
    states.move(offer, Offer.State.SUSPENDED, Offer.Reason.PLATFORM, by=by, note=note)
    return offer


@transaction.atomic
def lift_suspension(*, offer_id: UUID, by: UUID) -> Offer:
    """Listed again, or paused for what stands in the way now."""
    offer = _locked(offer_id)
    if offer.state != Offer.State.SUSPENDED:
        raise Conflict("offer.not_suspended", f"this offer is {offer.state}")
    states.settle(offer, states.obstacle(offer), by=by)
    return offer


def _relist(offer: Offer, by: UUID) -> None:
    """The seller's word for the hardware as it is now: a changed model is listed under its new name."""
    states.refresh(offer)
    if obstacle := states.obstacle(offer):
        raise _obstructed(obstacle)
    states.move(offer, Offer.State.LISTED, by=by)


def _obstructed(reason: Offer.Reason) -> Conflict:
    return Conflict(f"offer.{reason.value}", f"the offer cannot be listed: {reason.label}")


def _locked(offer_id: UUID, seller: Principal | None = None) -> Offer:
    """The offer under its miner's lock; another seller's does not exist for this one."""
    found = Offer.objects.filter(owned_by(seller, "miner__") if seller else Q())
    miner_id = found.filter(pk=offer_id).values_list("miner_id", flat=True).first()
    if miner_id is None:
        raise NotFound("offer.unknown", "there is no such offer of yours")
    miner = states.lock_miner(miner_id)
    offer = Offer.objects.select_for_update().get(pk=offer_id)
    offer.miner = miner
    return offer


def _own_miner(seller: Principal, miner_id: UUID | None) -> UUID:
    """The miner named, else that of this very key, else the only one of the key's owner."""
    mine = dict(Miner.objects.filter(owned_by(seller)).values_list("pk", "key_id"))
    by_key = [pk for pk, key in mine.items() if key == seller.key_id]
    found = ([miner_id] if miner_id in mine else []) if miner_id else by_key or list(mine)
    if len(found) != 1:
        raise NotFound("miner.unknown", "name a registered miner of yours as miner_id")
    return found[0]


def _devices(miner: Miner, wanted: Sequence[UUID]) -> list[Device]:
    active = list(miner.devices.filter(active=True).order_by("pk"))
    chosen = [device for device in active if not wanted or device.pk in wanted]
    if not chosen or len(chosen) < len(set(wanted)):
        raise Invalid.field("devices", "each must be an active device of the miner")
    return chosen


def _kinds(miner: Miner, wanted: Sequence[str]) -> list[str]:
    if missing := sorted(set(wanted) - set(miner.kinds)):
        raise Invalid.field("kinds", f"the miner does not run {', '.join(missing)}")
    return sorted(set(wanted))


def _agree(offer: Offer, price: str | None, terms: Terms) -> list[str]:
    """Put what the seller said into the offer -> the names of what he said."""
    said = {name: value for name, value in asdict(terms).items() if value is not None}
    if price is not None:
        said["price"] = money.units(price, 18)
    now = clock.database_now()
    for name, value in said.items():
        if isinstance(value, datetime) and value > now + FURTHEST:
            raise Invalid.field(name, "lies more than a year ahead")
        setattr(offer, name, max(value, now) if name == "available_from" else value or None)
    _check(offer, now)
    return list(said)


def _check(offer: Offer, now: datetime) -> None:
    end, price = offer.expires_at, offer.price or 0
    for wrong, name, message in (
        (not 0 < price <= money.MAX_UNITS, "price", "must be more than nothing"),
        ((offer.spot_price or 0) > price, "price", "spot costs no more than on demand"),
        ((offer.min_seconds or 0) > (offer.max_seconds or math.inf), "max_seconds", "is less than min_seconds"),
        (end is not None and end <= max(now, offer.available_from), "expires_at", "lies before the offer begins"),
    ):
        if wrong:
            raise Invalid.field(name, message)
