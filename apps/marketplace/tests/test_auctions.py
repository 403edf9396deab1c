"""Reverse auctions and sealed bids: who wins, what each refusal leaves, and money to the unit."""

import random
import time
from contextlib import suppress
from datetime import timedelta

import orjson
import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from aitbc.core import db as database
from aitbc.core.clock import database_now
from aitbc.core.errors import Conflict, DomainError, Invalid, NotFound
from aitbc.core.models import OutboxEvent
from aitbc.core.schema import MoneyIn
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from aitbc.webhooks.models import Endpoint
from apps.gpu.models import Occupancy
from apps.marketplace.api.auctions import AuctionOut, BidOut
from apps.marketplace.models import Auction, Offer, Order
from apps.marketplace.services import auctions, orders
from apps.marketplace.tests import market, tenders
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.market import MILLI, age, money, no, run, running, seen, set_parameters, start, terms, units
from apps.marketplace.tests.tenders import (
    AUCTIONS,
    SALT,
    act,
    bid,
    close,
    commitment,
    reveal,
    shown,
    states,
    tender,
    try_to,
    wish,
)
from apps.trading.services.escrow import call

HELD = 100 * MILLI  # what the client, and each bidder of a sealed auction, holds
DEPOSIT = 2 * MILLI


@pytest.fixture
def sound(db):
    market.learn_to_age()
    yield
    market.assert_sound()


@pytest.fixture
def sellers(sound):
    """Mike and Nora, with a card and 1 AIT each."""
    found = [cast.seller(name, device=card()) for name in ("mike", "nora")]
    for one in found:
        cast.fund(one.id, AIT)
    return found


@pytest.fixture
def offers(sellers):
    return [read(one.post(OFFERS, {"price": price("0.001")}), 201) for one in sellers]


def post_bid(who, auction, body):
    return who.post(f"{AUCTIONS}/{auction['id']}/bids", body)


def test_the_lowest_bid_becomes_an_order_at_its_price(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice)
    assert (auction["state"], units(auction["total"]), units(auction["hold"])) == ("open", HELD, DEPOSIT)
    assert money(alice.id) == (AIT, HELD)
    dear, cheap = bid(mike, auction, offers[0], "0.0009"), bid(nora, auction, offers[1], "0.0008")
    assert [units(made["price"]) for made in shown(auction)["bids"]] == [800 * MILLI // 1000, 900 * MILLI // 1000]
    assert (money(mike.id), money(nora.id)) == ((AIT, DEPOSIT), (AIT, DEPOSIT))

    assert close(auction) == {"auction_awarded": 1, "auction_settled": 1}
    assert states(auction) == {dear["id"]: "lost", cheap["id"]: "won"}
    placed = seen(alice, {"id": shown(auction)["order_id"]})
    assert (placed["type"], placed["offer_id"], placed["state"]) == ("auction", offers[1]["id"], "accepted")
    assert (units(placed["rate"]), units(placed["total"]), placed["seconds"]) == (800 * MILLI // 1000, 80 * MILLI, 100)
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT, 80 * MILLI), (AIT, 0), (AIT, 0)]
    assert Occupancy.objects.get().holder == Order.objects.get().pk

    start(nora, placed)
    age(101)
    assert run() == {"completed": 1}
    assert [money(one.id) for one in (alice, nora)] == [(AIT - 80 * MILLI, 0), (AIT + 78 * MILLI, 0)]
    assert run() == {}


def test_of_two_equal_bids_the_earlier_wins(alice, sellers, offers):
    auction = tender(alice)
    first = bid(sellers[1], auction, offers[1])
    bid(sellers[0], auction, offers[0])
    close(auction)
    assert states(auction)[first["id"]] == "won"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"closes_at": timezone.now() - timedelta(seconds=1)}, 422, "auction.closes_at"),
        ({"closes_at": timezone.now() + timedelta(days=31)}, 422, "auction.closes_at"),
        ({"closes_at": "0001-01-01T00:00:00+23:59"}, 422, "auction.closes_at"),
        ({"sealed": True, "reveal_seconds": None}, 422, "auction.reveal_seconds"),
        ({"ceiling": {"amount": "0"}}, 422, "auction.ceiling"),
        ({"deposit": {"amount": "0"}}, 422, "auction.deposit"),
        ({"deposit": {"amount": "0.100000000000000001"}}, 422, "auction.deposit"),
        ({"ceiling": {"amount": "0.02"}}, 409, "payment.insufficient_funds"),
        ({"ceiling": {"amount": "99999999999999999999"}, "seconds": 31_622_400}, 409, "payment.insufficient_funds"),
    ],
)
def test_terms_that_cannot_be_are_refused(alice, sound, changes, status, code):
    with nothing_changes():
        no(alice.post(AUCTIONS, wish(**changes)), status, code)


def test_answers_are_the_documented_ones(alice, sellers, offers):
    for sealed in (False, True):
        auction = tender(alice, sealed=sealed, constraints={"max_price": {"amount": "0.001"}, "min_vram_gb": 0.5})
        made = bid(sellers[0], auction, offers[0])
        BidOut.model_validate(made)
        AuctionOut.model_validate(shown(auction))
        close(auction)
        if sealed:
            BidOut.model_validate(reveal(sellers[0], auction, made, "0.0008"))
        AuctionOut.model_validate(shown(auction))
    assert set(auction) == set(AuctionOut.model_fields)
    assert set(made) == set(BidOut.model_fields)


def test_a_client_has_so_many_auctions(alice, sound):
    set_parameters(quotes_open=1)
    tender(alice)
    with nothing_changes():
        no(alice.post(AUCTIONS, wish()), 409, "auction.too_many")


def test_a_bid_that_does_not_fit_is_refused(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice, constraints={"model": "NVIDIA H200", "max_price": {"amount": "0.0007"}})
    other, sealed = tender(alice, constraints={"model": "NVIDIA B200"}), tender(alice, sealed=True)
    own = tender(mike)
    fits = {"offer_id": offers[0]["id"], "price": {"amount": "0.0007"}}
    poor = cast.seller("poor", device=card())
    theirs = read(poor.post(OFFERS, {"price": price("0.001")}), 201)
    with nothing_changes():
        for amount in ("0", "0.000700000000000001", "0.001"):
            no(post_bid(mike, auction, fits | {"price": {"amount": amount}}), 422, "bid.price")
        no(post_bid(mike, auction, fits | {"offer_id": offers[1]["id"]}), 404, "offer.unknown")
        no(post_bid(mike, {"id": offers[0]["id"]}, fits), 404, "auction.unknown")
        assert "model" in no(post_bid(mike, other, fits), 409, "bid.unmet")["detail"]
        assert "own" in no(post_bid(mike, own, fits), 409, "bid.unmet")["detail"]
        no(post_bid(mike, auction, {"offer_id": offers[0]["id"]}), 422, "bid.open")
        no(post_bid(mike, auction, fits | {"commitment": SALT}), 422, "bid.open")
        no(post_bid(mike, sealed, fits), 422, "bid.sealed")
        no(post_bid(mike, sealed, fits | {"commitment": SALT}), 422, "bid.sealed")
        no(post_bid(poor, auction, fits | {"offer_id": theirs["id"]}), 409, "payment.insufficient_funds")
    bid(mike, auction, offers[0], "0.0007")
    terms(offers[1], state="paused", reason="seller")
    with nothing_changes():
        no(post_bid(mike, auction, fits | {"price": {"amount": "0.0001"}}), 409, "bid.exists")
        assert "listed" in no(post_bid(nora, auction, fits | {"offer_id": offers[1]["id"]}), 409, "bid.unmet")["detail"]
    age(61)
    with nothing_changes():  # the timer has not come by yet
        no(post_bid(mike, other, fits), 409, "auction.closed")


def test_a_bid_is_withdrawn_before_closing_only(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice)
    made = bid(mike, auction, offers[0])
    with nothing_changes():
        no(try_to(nora, auction, "withdraw", made), 404, "bid.unknown")
    gone = act(mike, auction, "withdraw", made)
    assert (gone["state"], money(mike.id), shown(auction)["bid_count"]) == ("withdrawn", (AIT, 0), 0)
    assert act(mike, auction, "withdraw", made) == gone
    again = bid(mike, auction, offers[0], "0.0007")
    age(61)
    with nothing_changes():
        no(try_to(mike, auction, "withdraw", again), 409, "auction.closed")
    run()
    assert states(auction) == {again["id"]: "won"}


def test_a_client_cancels_while_no_price_is_known(alice, sellers, offers):
    mike, _ = sellers
    auction, sealed = tender(alice), tender(alice, sealed=True)
    for one in (auction, sealed):
        bid(mike, one, offers[0])
    assert money(mike.id) == (AIT, HELD + DEPOSIT)
    with nothing_changes():
        no(try_to(alice, auction, "cancel"), 409, "auction.has_bids")
        no(try_to(mike, sealed, "cancel"), 403, "auction.client_only")
    ended = act(alice, sealed, "cancel")
    assert (ended["state"], ended["reason"]) == ("void", "canceled by its client")
    assert [money(one.id) for one in (alice, mike)] == [(AIT, HELD), (AIT, DEPOSIT)]
    assert act(alice, sealed, "cancel") == ended
    late = tender(alice, sealed=True)
    bid(mike, late, offers[0])
    age(61)
    with nothing_changes():
        no(try_to(alice, late, "cancel"), 409, "auction.reveal")


def test_the_platform_cancels_until_the_award(alice, sellers, offers):
    auction = tender(alice, award="manual")
    bid(sellers[0], auction, offers[0])
    close(auction)
    ended = orjson.loads(call("auction_cancel", None, auction["id"]))
    assert (ended["state"], money(alice.id), money(sellers[0].id)) == ("void", (AIT, 0), (AIT, 0))


def test_a_client_awards_to_whom_he_likes_and_once(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice, award="manual")
    dear, cheap = bid(mike, auction, offers[0], "0.001"), bid(nora, auction, offers[1], "0.0001")
    with nothing_changes():
        no(try_to(alice, auction, "award", dear), 409, "auction.open")
    assert close(auction) == {"auction_award": 1}
    with nothing_changes():
        no(try_to(mike, auction, "award", dear), 403, "auction.client_only")
        no(try_to(alice, auction, "award", auction), 404, "bid.unknown")
    won = act(alice, auction, "award", dear)
    assert (won["state"], won["order_id"]) == ("won", auction["id"])
    with nothing_changes():
        for made in (dear, cheap):
            no(try_to(alice, auction, "award", made), 409, "auction.awarded")
    assert run() == {"auction_settled": 1}
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT, HELD), (AIT, 0), (AIT, 0)]


def test_the_lowest_wins_by_itself_and_not_by_hand(alice, sellers, offers):
    auction = tender(alice)
    made = bid(sellers[0], auction, offers[0])
    age(61)
    with nothing_changes():
        no(try_to(alice, auction, "award", made), 409, "auction.automatic")
    close(auction)


def test_what_is_not_awarded_in_time_is_void(alice, sellers, offers):
    auction = tender(alice, award="manual")
    bid(sellers[0], auction, offers[0])
    close(auction)
    until = shown(auction)["award_until"]
    assert close(auction, 3600) == {"auction_settled": 1}
    ended = shown(auction)
    assert (ended["state"], ended["reason"]) == ("void", "its client awarded it to nobody in time")
    assert until > auction["closes_at"]
    assert [money(one.id) for one in (alice, sellers[0])] == [(AIT, 0), (AIT, 0)]


def test_without_bids_it_is_void_at_closing(alice, sound):
    auction = tender(alice)
    assert close(auction) == {"auction_settled": 1}
    assert (shown(auction)["reason"], money(alice.id)) == ("nobody bid", (AIT, 0))


def test_a_winner_whose_offer_is_gone_forfeits_his_deposit_and_the_next_one_wins(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice)
    gone, next_best = bid(mike, auction, offers[0], "0.0001"), bid(nora, auction, offers[1], "0.0009")
    read(mike.patch(f"{OFFERS}/{offers[0]['id']}", {"state": "paused"}))
    assert close(auction) == {"bid_failed": 1, "auction_settled": 2, "auction_awarded": 1}
    assert states(auction) == {gone["id"]: "forfeited", next_best["id"]: "won"}
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT + DEPOSIT, 90 * MILLI), (AIT - DEPOSIT, 0), (AIT, 0)]


def test_devices_that_somebody_else_has_cost_no_deposit(alice, sellers, offers):
    """Else a client could take them himself, by another account, and collect deposits."""
    bob = cast.person("bob")
    cast.fund(bob.id, AIT)
    auction = tender(alice, award="manual")
    made = bid(sellers[0], auction, offers[0])
    running(bob, sellers[0], offer_id=offers[0]["id"])
    close(auction)
    before = money(sellers[0].id)
    assert act(alice, auction, "award", made)["state"] == "failed"
    assert run() == {"auction_settled": 1}
    assert money(sellers[0].id) == (before[0], 0)
    ended = shown(auction)
    assert (ended["state"], ended["reason"], money(alice.id)) == ("void", "no bid could be delivered", (AIT, 0))


def test_a_provider_without_the_bond_that_his_offer_needs_is_passed_over(alice, sellers, offers):
    terms(offers[0], sla_bps=9900, sla_only=True)
    auction = tender(alice)
    made = bid(sellers[0], auction, offers[0])
    close(auction)
    assert (states(auction)[made["id"]], Order.objects.count(), money(alice.id)) == ("failed", 0, (AIT, 0))


def test_an_order_won_in_an_auction_takes_the_devices_of_a_spot_lease(alice, sellers, offers):
    bob = cast.person("bob")
    cast.fund(bob.id, AIT)
    terms(offers[0], spot_price=MILLI // 2)
    victim = running(bob, sellers[0], offer_id=offers[0]["id"], seconds=1000, **market.bid("0.0006"))
    auction = tender(alice)
    bid(sellers[0], auction, offers[0])
    close(auction)
    placed = seen(alice, {"id": auction["id"]})
    assert (seen(bob, victim)["state"], placed["state"]) == ("notice", "accepted")
    assert placed["starts_at"] >= seen(bob, victim)["ends_at"]


def test_an_order_won_in_an_auction_goes_on_elsewhere(alice, sellers, offers):
    auction = tender(alice, ceiling={"amount": "0.002"}, failover=True)
    bid(sellers[0], auction, offers[0], "0.0015")
    close(auction)
    age(121)
    assert run() == {"missed": 1, "moved": 1}
    moved = seen(alice, {"id": seen(alice, {"id": auction["id"]})["moved_to"]})
    assert (moved["type"], moved["offer_id"]) == ("on_demand", offers[1]["id"])


def test_sealed_bids_are_revealed_and_the_lowest_of_them_wins(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice, sealed=True)
    dear, cheap = bid(mike, auction, offers[0], "0.0009"), bid(nora, auction, offers[1], "0.00080")
    assert (money(mike.id), money(nora.id)) == ((AIT, HELD), (AIT, HELD))
    assert [made["price"] for made in shown(auction)["bids"]] == [None, None]
    assert close(auction) == {"auction_reveal": 1}
    with nothing_changes():
        for said, salt in (("0.0008", SALT), ("0.00081", SALT), ("0.00080", "0x" + "00" * 32)):
            no(try_to(nora, auction, "reveal", cheap, price={"amount": said}, salt=salt), 422, "bid.mismatch")
        no(try_to(nora, auction, "reveal", dear, price={"amount": "0.0009"}, salt=SALT), 404, "bid.unknown")
    assert units(reveal(nora, auction, cheap, "0.00080")["price"]) == 800 * MILLI // 1000
    reveal(mike, auction, dear, "0.0009")
    with nothing_changes():
        no(try_to(nora, auction, "reveal", cheap, price={"amount": "0.00080"}, salt=SALT), 409, "bid.revealed")
    assert close(auction, 600) == {"auction_awarded": 1, "auction_settled": 1}
    assert states(auction) == {dear["id"]: "lost", cheap["id"]: "won"}
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT, 80 * MILLI), (AIT, 0), (AIT, 0)]


def test_reveals_come_between_closing_and_the_end_of_the_window(alice, sellers, offers):
    mike, _ = sellers
    auction = tender(alice, sealed=True, reveal_seconds=10)
    made = bid(mike, auction, offers[0])
    said = {"price": {"amount": "0.0008"}, "salt": SALT}
    with nothing_changes():
        no(try_to(mike, auction, "reveal", made, **said), 409, "auction.open")
    age(71)
    with nothing_changes():
        no(try_to(mike, auction, "reveal", made, **said), 409, "auction.void")
    assert run() == {"auction_settled": 1}
    ended = shown(auction)
    assert (ended["state"], ended["reason"]) == ("void", "nobody revealed a bid")
    assert [money(one.id) for one in (alice, mike)] == [(AIT + DEPOSIT, 0), (AIT - DEPOSIT, 0)]


def test_a_sealed_price_above_the_ceiling_cannot_be_revealed(alice, sellers, offers):
    mike, _ = sellers
    auction = tender(alice, sealed=True)
    made = bid(mike, auction, offers[0], "0.0011")
    close(auction)
    with nothing_changes():
        no(try_to(mike, auction, "reveal", made, price={"amount": "0.0011"}, salt=SALT), 422, "bid.price")
    close(auction, 600)
    assert (states(auction)[made["id"]], money(alice.id)) == ("forfeited", (AIT + DEPOSIT, 0))


def test_a_commitment_of_anothers_is_worth_nothing(alice, sellers, offers):
    mike, nora = sellers
    auction = tender(alice, sealed=True)
    stolen = {"offer_id": offers[1]["id"], "commitment": commitment(auction, mike, "0.0008")}
    made = read(post_bid(nora, auction, stolen), 201)
    close(auction)
    with nothing_changes():
        no(try_to(nora, auction, "reveal", made, price={"amount": "0.0008"}, salt=SALT), 422, "bid.mismatch")


def test_an_outage_of_the_platform_gives_the_window_again(alice, sellers, offers):
    mike, _ = sellers
    auction = tender(alice, sealed=True)
    made = bid(mike, auction, offers[0])
    age(661, auction["id"])
    database.rows(
        """INSERT INTO core_platform_outage (process, began_at, ended_at)
           SELECT 'relay', t - interval '90 seconds', t - interval '9 seconds' FROM clock_timestamp() t"""
    )
    assert run() == {"auction_reveal": 1}
    reveal(mike, auction, made, "0.0008")
    assert close(auction, 592)["auction_awarded"] == 1


def test_bidders_and_client_hear_of_closing_and_award_without_a_price(alice, sellers, offers):
    mike, nora = sellers
    for one in (alice, mike):
        Endpoint.objects.create(
            owner=one.user, url="https://a.example/hook", events=[], nonce=b"x" * 16, created_at=database_now()
        )
    auction, empty = tender(alice, sealed=True), tender(alice)
    made = bid(mike, auction, offers[0])
    bid(nora, auction, offers[1])
    close(auction)
    reveal(mike, auction, made, "0.0008")
    close(auction, 600)
    close(empty)
    told = {event.event: event.payload for event in OutboxEvent.objects.filter(event__startswith="auction.")}
    assert set(told) == {"auction.closed", "auction.awarded", "auction.void"}
    assert sorted(told["auction.closed"]["owners"]) == sorted(str(one.id) for one in (alice, mike, nora))
    assert told["auction.awarded"]["data"]["winner"] == made["id"]
    assert told["auction.void"]["data"]["reason"] == "nobody bid"
    assert "price" not in orjson.dumps(told).decode()


def test_anybody_finds_auctions_by_state_model_and_parties(alice, sellers, offers):
    first, second = tender(alice, constraints={"model": "NVIDIA H200", "min_vram_gb": 24}), tender(alice)
    third = tender(sellers[0])
    bid(sellers[0], first, offers[0])
    act(alice, second, "cancel")

    def found(query=""):
        return read(cast.Person.get(sellers[1], AUCTIONS + query))

    assert [row["id"] for row in found()["items"]] == [third["id"], second["id"], first["id"]]
    assert [row["id"] for row in found("?state=open&model=nvidia h200")["items"]] == [first["id"]]
    assert [row["id"] for row in found(f"?client={alice.id}&state=void")["items"]] == [second["id"]]
    assert [row["id"] for row in found(f"?bidder={sellers[0].id}")["items"]] == [first["id"]]
    page = found("?limit=2")
    assert (page["next"], page["items"][0]["bids"]) == (second["id"], None)
    rest = found(f"?limit=2&cursor={page['next']}")
    assert ([row["id"] for row in rest["items"]], rest["next"]) == ([first["id"]], None)
    assert (rest["items"][0]["constraints"]["min_vram_gb"], rest["items"][0]["bid_count"]) == (24, 1)
    no(alice.get(f"{AUCTIONS}/{offers[0]['id']}"), 404, "auction.unknown")


def test_not_even_raw_sql_changes_terms_or_ends(alice, sellers, offers):
    auction, sealed = tender(alice), tender(alice, sealed=True)
    bid(sellers[0], auction, offers[0])
    bid(sellers[0], sealed, offers[0])
    for statement in (
        "UPDATE marketplace_auction SET ceiling = ceiling + 1",
        "UPDATE marketplace_auction SET closes_at = closes_at + interval '1 hour'",
        "UPDATE marketplace_auction SET state = 'awarded'",
        "UPDATE marketplace_bid SET price = price + 1 WHERE NOT sealed",
        "UPDATE marketplace_bid SET price = 5 WHERE sealed",
        "UPDATE marketplace_bid SET price = ceiling + 1, salt = commitment, state = 'revealed' WHERE sealed",
        "UPDATE marketplace_bid SET settled_at = now()",
        "UPDATE marketplace_bid SET commitment = NULL WHERE sealed",
    ):
        with nothing_changes(), pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)


def people():
    """Alice and two sellers with their offers, committed."""
    market.learn_to_age()
    alice, sellers = cast.person("alice"), [cast.seller(name, device=card()) for name in ("mike", "nora")]
    for one in (alice, *sellers):
        cast.fund(one.id, AIT)
    return alice, sellers, [read(one.post(OFFERS, {"price": price("0.001")}), 201) for one in sellers]


def outcome(function, *args, **names):
    try:
        return function(*args, **names)
    except DomainError as error:
        return error.code


def test_of_two_awards_at_once_one_wins(committed_db, in_threads):
    alice, sellers, offers = people()
    auction = tender(alice, award="manual")
    made = [bid(one, auction, offer) for one, offer in zip(sellers, offers, strict=True)]
    close(auction)
    found = in_threads(lambda n: outcome(call, "auction_award", alice.id, auction["id"], made[n % 2]["id"]), 4)
    assert sorted(answer == "auction.awarded" for answer in found) == [False, True, True, True]
    run()
    assert (Order.objects.count(), sorted(states(auction).values())) == (1, ["lost", "won"])
    assert [money(one.id) for one in (alice, *sellers)] == [(AIT, 80 * MILLI), (AIT, 0), (AIT, 0)]
    market.assert_sound()


def test_of_two_auctions_that_want_one_device_one_gets_it(committed_db, in_threads):
    alice, (mike, _), (offer, _) = people()
    wanted = [tender(alice, award="manual") for _ in range(2)]
    made = [bid(mike, auction, offer) for auction in wanted]
    age(61)
    found = in_threads(lambda n: call("auction_award", alice.id, wanted[n]["id"], made[n]["id"]), 2)
    assert sorted(orjson.loads(answer)["state"] for answer in found) == ["failed", "won"]
    run()
    assert (Order.objects.count(), money(alice.id), money(mike.id)) == (1, (AIT, 80 * MILLI), (AIT, 0))
    market.assert_sound()


@pytest.mark.parametrize("ahead", [-2, 0, 2])
@pytest.mark.parametrize("what", ["withdraw", "reveal"])
def test_at_the_deadline_one_of_two_holds(committed_db, in_threads, what, ahead):
    """Withdrawn or bound by closing, revealed or forfeited by the window's end; never both."""
    alice, (mike, _), (offer, _) = people()
    auction = tender(alice, sealed=True, reveal_seconds=60)
    made = bid(mike, auction, offer)
    age(59.7 if what == "withdraw" else 119.7, auction["id"])
    name = "closes_at" if what == "withdraw" else "reveal_until"
    left = float(database.value(f"SELECT extract(epoch FROM {name} - clock_timestamp()) FROM marketplace_auction"))

    def rival(n):
        time.sleep(max(0, left + (ahead / 1000 if n else 0)))
        if n == 0:
            return orders.run_due()
        if what == "withdraw":
            return outcome(call, "auction_withdraw", mike.id, auction["id"], made["id"])
        said = {"price": MoneyIn(amount="0.0008"), "salt": SALT}
        return outcome(auctions.reveal, bidder=mike.id, auction=auction["id"], bid=made["id"], **said)

    _, answer = in_threads(rival, 2)
    time.sleep(0.01)
    run()
    state = database.value("SELECT state FROM marketplace_bid")
    if what == "withdraw":
        assert (state, answer[:1]) in {("withdrawn", "{"), ("open", "a")}
        assert money(mike.id) == (AIT, 0 if state == "withdrawn" else HELD)
    else:
        assert (state, answer[:1]) in {("won", "{"), ("forfeited", "a")}
        assert money(mike.id) == ((AIT, 0) if state == "won" else (AIT - DEPOSIT, 0))
    market.assert_sound()


def test_timers_share_the_work_and_none_is_done_twice(committed_db, in_threads):
    alice, (mike, nora), (offer, other) = people()
    for _ in range(3):
        auction = tender(alice)
        bid(mike, auction, offer)
        bid(nora, auction, other)
    age(61)
    in_threads(lambda n: orders.run_due(), 4)
    run()
    assert Order.objects.count() == 2
    assert sorted(Auction.objects.values_list("state", flat=True)) == ["awarded", "awarded", "void"]
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT, 160 * MILLI), (AIT, 0), (AIT, 0)]
    market.assert_sound()


class Walk:
    """Two clients, two sellers of one card each, and a die."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sellers = [cast.seller(name, device=card()) for name in ("mike", "nora")]
        self.clients = [cast.person(name) for name in ("alice", "bob")]
        for person in self.sellers + self.clients:
            cast.fund(person.id, AIT)
        self.offers = [read(one.post(OFFERS, {"price": price("0.001")}), 201) for one in self.sellers]
        self.auctions, self.bids = [], []

    def step(self):
        action = self.random.choice(
            [self.open] * 3 + [self.bid] * 6 + [self.reveal] * 4 + [self.award] * 2 + [self.wait] * 4
            + [self.withdraw, self.cancel, self.pause, self.order]
        )  # fmt: skip
        with suppress(Conflict, Invalid, NotFound):  # what is refused is left as it was
            action()

    def open(self):
        client, sealed = self.random.choice(self.clients), self.random.random() < 0.5
        body = wish(sealed=sealed, award=self.random.choice(("lowest", "manual")), seconds=self.random.randint(20, 200))
        answer = client.post(AUCTIONS, body)
        if answer.status_code == 201:
            self.auctions.append((client, orjson.loads(answer.content)))

    def bid(self):
        if self.auctions:
            (_, auction), which = self.random.choice(self.auctions[-3:]), self.random.randrange(2)
            said = f"0.000{self.random.randint(1, 9)}"
            body = tenders.offered(auction, self.sellers[which], self.offers[which], said)
            answer = post_bid(self.sellers[which], auction, body)
            if answer.status_code == 201:
                self.bids.append((self.sellers[which], auction, orjson.loads(answer.content)["id"], said))

    def reveal(self):
        if self.bids:
            seller, auction, made, said = self.random.choice(self.bids[-4:])
            amount = MoneyIn(amount=said)
            auctions.reveal(bidder=seller.id, auction=auction["id"], bid=made, price=amount, salt=SALT)

    def award(self):
        if self.bids:
            _, auction, made, _ = self.random.choice(self.bids[-4:])
            call("auction_award", auction["client"], auction["id"], made)

    def withdraw(self):
        if self.bids:
            seller, auction, made, _ = self.random.choice(self.bids[-4:])
            call("auction_withdraw", seller.id, auction["id"], made)

    def cancel(self):
        if self.auctions:
            _, auction = self.random.choice(self.auctions)
            call("auction_cancel", self.random.choice((auction["client"], None)), auction["id"])

    def pause(self):
        offer = self.random.choice(self.offers)
        paused = Offer.objects.get(pk=offer["id"]).state == "paused"
        terms(offer, **({"state": "listed", "reason": ""} if paused else {"state": "paused", "reason": "seller"}))

    def order(self):
        ask = {"seconds": 30, "type": "on_demand", "wants": {}, "failover": False}
        client = self.random.choice(self.clients)
        orders.accept(client=client.id, quote=orjson.loads(orders.quote(client=client.id, ask=ask))["id"])

    def wait(self):
        age(self.random.choice((5, 61, 300, 700)))
        run()


def walk(seed, steps):
    market.learn_to_age()
    walked = Walk(seed)
    for number in range(steps):
        walked.step()
        if number % 20 == 0:
            market.assert_sound()
    for _ in range(6):
        age(5000)
        run()
    market.assert_sound()
    assert {*Auction.objects.values_list("state", flat=True)} <= {"awarded", "void"}
    everyone = walked.sellers + walked.clients
    fees = database.value("SELECT coalesce(sum(posted), 0) FROM trading_account WHERE kind = 'fees'")
    assert sum(money(one.id)[0] for one in everyone) + fees == 4 * AIT
    assert [money(one.id)[1] for one in everyone] == [0] * 4


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_walk_conserves_money(db, seed):
    walk(seed, 100)
    assert Auction.objects.count() > 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 106))
def test_long_random_walks(db, seed):
    walk(seed, 400)
    assert {*Auction.objects.values_list("state", flat=True)} == {"awarded", "void"}
