"""What a job needs to know of the offer and the artifacts that it names: the ports of the marketplace."""

from dataclasses import dataclass
from uuid import UUID

from aitbc.core import db
from aitbc.core.errors import Conflict, NotFound
from apps.marketplace.models import Offer
from apps.trading.services.escrow import call


@dataclass(frozen=True, slots=True)
class Terms:
    """`unit_price` in smallest units per device second; only `miner_id` may run the job."""

    miner_id: UUID
    unit_price: int
    kinds: tuple[str, ...]


def offer_terms(offer_id: UUID) -> Terms:
    """The terms at this moment, or NotFound `offer.unknown`, or Conflict `offer.not_available` and why.

    The miner's own state is read too: events tell the offer of it only a moment later.
    """
    found = db.row(
        """SELECT o.miner_id, o.price, o.kinds, o.state, o.reason, o.available_from <= clock_timestamp()
                  AND o.expires_at > clock_timestamp() IS NOT FALSE,
                  m.state IN ('online', 'suspect')
             FROM marketplace_offer o JOIN gpu_miner m ON m.id = o.miner_id WHERE o.id = %s""",
        (offer_id,),
    )
    if found is None:
        raise NotFound("offer.unknown", "there is no such offer")
    miner, price, kinds, state, reason, begun, accepting = found
    if state != Offer.State.LISTED:
        raise _not_available(f"the offer is {state}: {Offer.Reason(reason).label}")
    if not begun:
        raise _not_available("the offer begins later or is over, see its available_from and expires_at")
    if not accepting:
        raise _not_available(f"the offer's miner takes no work now: {Offer.Reason.MINER_LEFT.label}")
    return Terms(miner, int(price), tuple(kinds))


def _not_available(message: str) -> Conflict:
    return Conflict("offer.not_available", message)


def licensed(*, user: UUID, hashes: list[str], purpose: str) -> list[str]:
    """Those that a licence of his allows for this purpose; Forbidden "licence.required" for one that takes one."""
    return list(call("licence_cover", user, hashes, purpose))
