"""Reverse auctions, open and sealed. Their rules, money and documents (JSON text) are in `sql/auctions.sql`.

What is refused is refused before the database gets the price, so that a sealed one is in no log before bidding is over.
"""

from uuid import UUID

from aitbc.core.schema import MoneyIn
from apps.trading.services.escrow import call


def bid(*, bidder: UUID, auction: UUID, offer: UUID, price: MoneyIn | None, sealed: str | None) -> str:
    """At a price per second for all devices, or sealed: the commitment, "0x" and hex."""
    call("auction_takes", auction, price is not None, sealed is not None)
    return str(call("auction_bid", bidder, auction, offer, price and price.units, sealed))


def reveal(*, bidder: UUID, auction: UUID, bid: UUID, price: MoneyIn, salt: str) -> str:
    """The price, written as in the commitment, and the salt ("0x" and hex) that it was made with."""
    call("auction_reveals", bidder, auction, bid)
    return str(call("auction_reveal", bidder, auction, bid, price.amount, price.units, salt))
