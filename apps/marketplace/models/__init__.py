from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.searches import Search, SearchMatch

__all__ = ["Offer", "OfferDevice", "OfferTransition", "Search", "SearchMatch", "owned_by"]
