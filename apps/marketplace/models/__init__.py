from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.orders import BondWithdrawal, Kind, Order, Quote

__all__ = ["BondWithdrawal", "Kind", "Offer", "OfferDevice", "OfferTransition", "Order", "Quote", "owned_by"]
