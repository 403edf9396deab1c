"""What happens to offers when their miner comes, drains, leaves or changes."""

from uuid import UUID

from django.db import transaction

from apps.marketplace.models import Offer
from apps.marketplace.services import states


@transaction.atomic
def follow_miner(*, miner_id: UUID) -> int:
    """Bring the miner's offers in line with what it is now -> how many changed their state.

    It reads the present and not the event, so running it twice, or late, is harmless. What the seller
    or the platform paused stays paused; what was paused for a passing reason comes back without it.
    """
    miner = states.lock_miner(miner_id)
    offers = Offer.objects.select_for_update().filter(miner=miner).exclude(state=Offer.State.DELISTED)
    return sum(_follow(offer) for offer in offers.order_by("pk"))


def _follow(offer: Offer) -> bool:
    before = (offer.state, offer.reason)
    obstacle = states.obstacle(offer)
    if obstacle in (None, Offer.Reason.HARDWARE_DOUBTED):
        states.refresh(offer)
    if offer.state == Offer.State.LISTED or offer.reason in Offer.PASSING:
        states.settle(offer, obstacle)
    return before != (offer.state, offer.reason)
