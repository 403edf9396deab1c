from apps.marketplace.models.auctions import Auction
from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.orders import BondWithdrawal, Kind, Order, Quote
from apps.marketplace.models.reputation import Reputation, Review

__all__ = [
    "Auction",
    "BondWithdrawal",
    "Kind",
    "Offer",
    "OfferDevice",
    "OfferTransition",
    "Order",
    "Quote",
    "Reputation",
    "Review",
    "owned_by",
]
