"""Real commits on several connections: one device is listed once, whoever comes first."""

import pytest

from aitbc.core.errors import Conflict, DomainError
from aitbc.core.testing import cast
from apps.gpu.services import miners
from apps.marketplace.models import Offer
from apps.marketplace.services.following import follow_miner
from apps.marketplace.services.offers import NewOffer, OfferChange, change_offer, list_offer
from apps.marketplace.tests.conftest import card

pytestmark = pytest.mark.usefixtures("committed_db")


def test_eight_listings_of_one_device_at_once_are_one_offer(in_threads):
    mike = cast.seller("mike", device=card())

    def attempt(index: int) -> str:
        try:
            return str(list_offer(seller=mike.principal, offer=NewOffer(price="0.001")).pk)
        except Conflict as refused:
            return refused.code

    answers = in_threads(attempt, 8)

    assert sorted(answers)[1:] == ["offer.device_taken"] * 7
    assert [str(pk) for pk in Offer.objects.values_list("pk", flat=True)] == sorted(answers)[:1]


def test_two_paused_offers_of_one_device_cannot_both_return(in_threads):
    mike = cast.seller("mike", device=card())
    offers = []
    for amount in ("0.001", "0.002"):
        offers.append(list_offer(seller=mike.principal, offer=NewOffer(price=amount)).pk)
        change_offer(seller=mike.principal, offer_id=offers[-1], change=OfferChange(state="paused"))

    def attempt(index: int) -> str:
        try:
            change = OfferChange(state="listed")
            return change_offer(seller=mike.principal, offer_id=offers[index], change=change).state
        except Conflict as refused:
            return refused.code

    assert sorted(in_threads(attempt, 2)) == ["listed", "offer.device_taken"]
    assert Offer.objects.filter(state="listed").count() == 1


def test_listing_while_the_miner_leaves_never_ends_listed(in_threads):
    """Either the listing was first and the event pauses it, or it is refused."""
    mike = cast.seller("mike", device=card())

    def attempt(index: int) -> str:
        if index:
            return miners.sign_off(key=mike.principal.key_id).state
        try:
            return list_offer(seller=mike.principal, offer=NewOffer(price="0.001")).state
        except DomainError as refused:
            return refused.code

    listing, leaving = in_threads(attempt, 2)
    follow_miner(miner_id=mike.miner_id)

    assert leaving == "offline"
    assert listing in ("listed", "offer.miner_left", "request.invalid")  # the devices may be gone first
    assert Offer.objects.filter(state="listed").count() == 0
