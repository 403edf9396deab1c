from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.pricing import Price, Region, Rule, Strategy

__all__ = ["Offer", "OfferDevice", "OfferTransition", "Price", "Region", "Rule", "Strategy", "owned_by"]
