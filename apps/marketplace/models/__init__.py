from apps.marketplace.models.auctions import Auction
from apps.marketplace.models.offers import Offer, OfferDevice, OfferTransition, owned_by
from apps.marketplace.models.orders import BondWithdrawal, Kind, Order, Quote
from apps.marketplace.models.pricing import Price, Region, Rule, Strategy
from apps.marketplace.models.reputation import Review

__all__ = [
    "Auction",
    "BondWithdrawal",
    "Kind",
    "Offer",
    "OfferDevice",
    "OfferTransition",
    "Order",
    "Price",
    "Quote",
    "Region",
    "Review",
    "Rule",
    "Strategy",
    "owned_by",
]
