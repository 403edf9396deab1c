"""The steps of an auction's story; `market.py` has those of the order that it ends in."""

import hashlib
from datetime import timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, Seller
from apps.marketplace.tests.conftest import read
from apps.marketplace.tests.market import age, run

AUCTIONS = "/v1/marketplace/auctions"
SALT = "0x" + "5a" * 32


def wish(**changes: Any) -> dict[str, Any]:
    """A hundred seconds at 0.001 AIT each at most, closing in a minute, for a deposit of 0.002 AIT."""
    terms = {"constraints": {}, "seconds": 100, "ceiling": {"amount": "0.001"}, "deposit": {"amount": "0.002"}}
    return terms | {"closes_at": timezone.now() + timedelta(seconds=60)} | changes


def tender(client: Person, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = read(client.post(AUCTIONS, wish(**changes)), 201)
    return found


def commitment(auction: dict[str, Any], bidder: Person, price: str, salt: str = SALT) -> str:
    said = f"{auction['id']}{bidder.id}{price}".encode() + bytes.fromhex(salt[2:])
    return "0x" + hashlib.sha256(said).hexdigest()


def offered(auction: dict[str, Any], bidder: Person, offer: dict[str, Any], price: str) -> dict[str, Any]:
    """What a bid sends: in a sealed auction its commitment."""
    if auction["sealed"]:
        return {"offer_id": offer["id"], "commitment": commitment(auction, bidder, price)}
    return {"offer_id": offer["id"], "price": {"amount": price}}


def bid(bidder: Person, auction: dict[str, Any], offer: dict[str, Any], price: str = "0.0008") -> dict[str, Any]:
    path = f"{AUCTIONS}/{auction['id']}/bids"
    found: dict[str, Any] = read(
        bidder.post(path, offered(auction, bidder, offer, price), idempotency_key=str(uuid7())), 201
    )
    return found


def try_to(who: Person, auction: dict[str, Any], action: str, made: dict[str, Any] | None = None, **body: Any) -> Any:
    path = f"{AUCTIONS}/{auction['id']}" + (f"/bids/{made['id']}" if made else "")
    return who.post(f"{path}/{action}", body, idempotency_key=str(uuid7()))


def act(who: Person, auction: dict[str, Any], action: str, made: dict[str, Any] | None = None, **body: Any) -> Any:
    return read(try_to(who, auction, action, made, **body))


def reveal(bidder: Seller, auction: dict[str, Any], made: dict[str, Any], price: str, salt: str = SALT) -> Any:
    return act(bidder, auction, "reveal", made, price={"amount": price}, salt=salt)


def close(auction: dict[str, Any], seconds: float = 61) -> dict[str, int]:
    """Let its time pass -> what the timer did."""
    age(seconds, auction["id"])
    return run()


def shown(auction: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(Client().get(f"{AUCTIONS}/{auction['id']}"))
    return found


def states(auction: dict[str, Any]) -> dict[str, str]:
    return {made["id"]: made["state"] for made in shown(auction)["bids"]}
