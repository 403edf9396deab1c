from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by

__all__ = ["Offer", "OfferDevice", "OfferTransition", "owned_by"]
