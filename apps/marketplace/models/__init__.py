from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.reputation import Reputation, Review

__all__ = ["Offer", "OfferDevice", "OfferTransition", "Reputation", "Review", "owned_by"]
