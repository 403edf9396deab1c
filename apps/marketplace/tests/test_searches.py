"""Saved searches: whose they are, what they are told of, once; and the command that searches."""

from uuid import uuid4

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from aitbc.core import db
from aitbc.core.models import OutboxEvent
from aitbc.core.outbox import relay_once
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.webhooks.models import Delivery
from apps.marketplace.services import searches
from apps.marketplace.tasks import sweep
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.marketplace.tests.test_search import PLAIN, insert

pytestmark = pytest.mark.django_db
SEARCHES = "/v1/marketplace/searches"


@pytest.fixture
def bob(db):
    return cast.person("bob")


def keep(person, q, *, alert=True, name="cheap"):
    return read(person.post(SEARCHES, {"name": name, "q": q, "alert": alert}), 201)


def matches(person, search):
    return [item["offer"]["id"] for item in read(person.get(f"{SEARCHES}/{search['id']}/matches"))["items"]]


def test_a_search_is_kept_shown_and_forgotten_by_its_owner_only(alice, bob):
    kept = keep(alice, "price < 0.002", alert=False)

    assert kept == {k: kept[k] for k in ("id", "name", "q", "alert", "created_at")}
    assert (kept["name"], kept["q"], kept["alert"]) == ("cheap", "price < 0.002", False)
    assert read(alice.get(SEARCHES)) == {"items": [kept], "next": None}
    assert read(bob.get(SEARCHES)) == {"items": [], "next": None}
    for path in (f"{SEARCHES}/{kept['id']}/matches", f"{SEARCHES}/{uuid4()}/matches"):
        assert read(bob.get(path), 404)["code"] == "search.unknown"
    assert read(bob.delete(f"{SEARCHES}/{kept['id']}"), 404)["code"] == "search.unknown"
    assert db.value("SELECT count(*) FROM marketplace_search") == 1

    assert read(alice.delete(f"{SEARCHES}/{kept['id']}")) == kept
    assert read(alice.get(SEARCHES))["items"] == []
    assert read(Client().get(SEARCHES), 401)["code"] == "auth.required"


def test_a_search_that_is_not_understood_or_one_too_many_is_refused(alice):
    wrong = read(alice.post(SEARCHES, {"name": "x", "q": "prize < 1"}), 422)
    assert (wrong["code"], wrong["hint"]) == ("filter.unknown_field", "did you mean price?")
    for i in range(20):
        keep(alice, "verified", name=str(i))

    assert read(alice.post(SEARCHES, {"name": "x", "q": "verified"}), 409)["code"] == "search.too_many"
    assert db.value("SELECT count(*) FROM marketplace_search") == 20


def test_an_alert_tells_once_of_what_newly_matches(alice, bob, mike, nora, offer_of):
    read(alice.post("/v1/webhooks", {"url": "https://example.com/hook"}), 403)  # no scope for it: she only looks
    read(bob.post("/v1/webhooks", {"url": "https://example.com/hook", "events": ["search.matched"]}), 201)
    before = offer_of(mike, "0.0005")
    hers, his = keep(alice, "price < 0.001"), keep(bob, "price < 0.001 and region = us", name="west")
    silent = keep(bob, "price < 1", alert=False)
    dear = offer_of(nora, "0.01")

    assert sweep()["told"] == 0

    cheap = read(nora.patch(f"{OFFERS}/{dear['id']}", {"price": price("0.0002")}))
    read(mike.patch(f"{OFFERS}/{before['id']}", {"price": price("0.0004")}))  # it matched all the time
    assert sweep()["told"] == 2
    assert sweep()["told"] == 0

    assert matches(alice, hers) == matches(bob, his) == [cheap["id"]]
    assert matches(bob, silent) == []
    relay_once()
    (delivery,) = Delivery.objects.filter(event="search.matched")
    assert orjson.loads(delivery.body)["data"] == {"search": {"id": his["id"], "name": "west"}, "offer": cheap}

    for amount in ("0.01", "0.0002"):  # away and back again: told already
        read(nora.patch(f"{OFFERS}/{dear['id']}", {"price": price(amount)}))
        assert sweep()["told"] == 0
    assert db.value("SELECT count(*) FROM marketplace_search_match") == 2


def test_what_is_paused_and_listed_again_matches_newly(alice, mike, offer_of):
    offer = offer_of(mike)
    read(mike.patch(f"{OFFERS}/{offer['id']}", {"state": "paused"}))
    search = keep(alice, "model = H200")

    read(mike.patch(f"{OFFERS}/{offer['id']}", {"state": "listed"}))

    assert sweep()["told"] == 1
    assert matches(alice, search) == [offer["id"]]


def test_without_an_alert_nothing_is_written_down(alice, mike):
    keep(alice, "verified", alert=False)
    insert(mike.miner_id, [{}])

    assert db.value("SELECT count(*) FROM marketplace_offer_change") == 0


def test_many_changes_are_told_in_batches_and_paged(alice, mike):
    search = keep(alice, "price < 1")
    offers = insert(mike.miner_id, [{}] * 7 + [{"price": 2 * AIT}] * 2)

    assert [searches.match_changed(limit=4) for _ in range(4)] == [4, 3, 0, 0]

    found, cursor = [], ""
    while cursor is not None:
        page = read(alice.get(f"{SEARCHES}/{search['id']}/matches?limit=3{f'&cursor={cursor}' if cursor else ''}"))
        found += [item["offer"]["id"] for item in page["items"]]
        cursor = page["next"]
    assert sorted(found) == sorted(str(offer.pk) for offer in offers[:7])
    assert not OutboxEvent.objects.filter(event="search.matched").exists()  # nobody listens


def test_a_search_that_is_not_understood_any_more_does_not_stop_the_others(alice, mike):
    old, good = keep(alice, "verified"), keep(alice, "price < 1")
    db.rows("UPDATE marketplace_search SET q = 'bygone = 1' WHERE id = %s", (old["id"],))
    (offer,) = insert(mike.miner_id, [{}])

    assert sweep()["told"] == 1
    assert matches(alice, good) == [str(offer.pk)]


def test_the_command_searches_as_the_api_does(mike, capsys):
    cheap, dear = insert(mike.miner_id, [{}, {"price": AIT}])

    call_command("offers", "price < 1", "--json")
    page = orjson.loads(capsys.readouterr().out)
    assert [item["id"] for item in page["items"]] == [str(cheap.pk)]
    assert page["total"] == 1

    call_command("offers", "region = eu and verified", "--explain")
    told = capsys.readouterr().out
    assert told.splitlines() == ["region = eu: 2 fit it alone, 0 all others", "verified: 0 fit it alone, 2 all others"]

    call_command("offers", "--sort=-price", "--limit=1")
    assert capsys.readouterr().out == f"{dear.pk}  1 AIT/s  0.0  1 x {PLAIN['model']}, 80 GB, eu\n"

    with pytest.raises(CommandError, match="did you mean price"):
        call_command("offers", "prise < 1")
