from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.reputation import Review

__all__ = ["Offer", "OfferDevice", "OfferTransition", "Review", "owned_by"]
