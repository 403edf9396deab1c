"""Deposits, payouts, settlements and reserves over HTTP."""

import pytest

from aitbc.chain.addresses import bytes32
from aitbc.chain.signing import keccak
from aitbc.chain.testing import AIT, Actor
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, person
from apps.trading.models import DepositAddress, PayoutTarget, ReserveCheck
from apps.trading.services.payouts import seal_payouts
from apps.trading.services.settlement import push_leaf, seal_batch

SCOPES = ("money:read", "money:write")


@pytest.fixture
def alice(net) -> Person:
    return person("alice", scopes=SCOPES)


@pytest.fixture
def bob(net) -> Person:
    return person("bob", scopes=SCOPES)


def test_a_deposit_address_is_ones_own_and_stable(net, alice, bob):
    first = alice.get("/v1/deposits/address").json()
    assert first == {
        "asset": "AIT",
        "chain": "ait-devnet",
        "address": alice.get("/v1/deposits/address?asset=AIT&chain=ait-devnet").json()["address"],
    }
    assert bob.get("/v1/deposits/address").json()["address"] != first["address"]
    assert first["address"].lower() == net.settlement.read("depositAddress", bytes32(alice.id))


@pytest.mark.parametrize(("query", "field"), [("asset=BTC", "asset"), ("chain=ait-mainnet", "chain")])
def test_what_this_network_does_not_take_is_named(alice, query, field):
    response = alice.get(f"/v1/deposits/address?{query}")
    assert response.status_code == 422
    assert response.json()["code"] == "deposit.unsupported"
    assert response.json()["errors"][0]["loc"] == ["query", field]
    assert DepositAddress.objects.count() == 0


def test_deposits_are_listed_page_by_page_to_their_owner_only(net, alice, bob):
    address = alice.get("/v1/deposits/address").json()["address"]
    for amount in (1, 2, 3):
        net.mint(address, amount * AIT)
    net.settle()

    first = alice.get("/v1/deposits?limit=2").json()
    rest = alice.get(f"/v1/deposits?limit=2&cursor={first['next']}").json()
    assert [item["amount"] for item in first["items"] + rest["items"]] == ["3", "2", "1"]
    assert rest["next"] is None
    assert first["items"][0]["address"] == address
    assert bob.get("/v1/deposits").json() == {"items": [], "next": None}


def test_without_contracts_there_is_no_address(db_of_chain):
    who = person("carol", scopes=SCOPES)
    response = who.get("/v1/deposits/address")
    assert (response.status_code, response.json()["code"]) == (503, "chain.not_deployed")


def test_settlements_are_shown_from_sealed_to_final(net, alice):
    for _ in range(2):
        job = uuid7()
        push_leaf(job_id=job, leaf=keccak(job.bytes))
    batch = seal_batch(limit=2)
    shown = alice.get(f"/v1/settlements/{batch.pk}").json()
    assert (shown["state"], shown["tx_hash"], shown["receipts"]) == ("sealed", None, 2)

    net.settle()

    shown = alice.get("/v1/settlements").json()["items"][0]
    assert (shown["state"], shown["root"], shown["id"]) == ("final", batch.root, str(batch.pk))
    assert net.client.receipt(shown["tx_hash"]).gas_used == shown["gas_used"]
    assert alice.get(f"/v1/settlements/{uuid7()}").status_code == 404


def test_a_provider_sets_his_address_and_claims_with_what_the_api_gives_him(net, alice, bob):
    wallet = Actor(net.client)
    net.mint(alice.get("/v1/deposits/address").json()["address"], 9 * AIT)
    net.settle()
    assert alice.get("/v1/payouts/target").json()["address"] is None

    response = alice.call("PUT", "/v1/payouts/target", {"address": wallet.address.lower()})
    assert response.json()["address"] == wallet.address
    seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=10**30)
    assert alice.get("/v1/payouts").json()["items"][0]["claim"] is None
    net.settle()

    item = alice.get("/v1/payouts").json()["items"][0]
    assert (item["amount"], item["state"]) == ("9", "final")
    net.settlement.send(wallet, "claim", *item["claim"].values())
    net.settle()
    item = alice.get("/v1/payouts").json()["items"][0]
    assert (item["state"], item["claim"]) == ("claimed", None)
    assert net.balance(wallet.address) == 9 * AIT
    assert bob.get("/v1/payouts").json() == {"items": [], "next": None}


@pytest.mark.parametrize("address", ["0x12", "nobody", "0x" + "zz" * 20])
def test_a_wrong_payout_address_changes_nothing(alice, address):
    response = alice.call("PUT", "/v1/payouts/target", {"address": address})
    assert (response.status_code, response.json()["code"]) == (422, "signing.address")
    assert PayoutTarget.objects.count() == 0


def test_reserves_are_public_and_unknown_before_the_first_comparison(net, client):
    response = client.get("/v1/reserves")
    assert (response.status_code, response.json()["code"]) == (503, "reserves.unchecked")
    assert client.get("/v1/reserves?asset=BTC").status_code == 404
    ReserveCheck.objects.create(
        network="ait-devnet",
        asset="AIT",
        block_number=7,
        block_hash="0x" + "01" * 32,
        contract=5 * AIT,
        unswept=AIT,
        liabilities=6 * AIT,
        pending=0,
        difference=0,
    )
    shown = client.get("/v1/reserves").json()
    assert (shown["onchain"], shown["ledger_liabilities"], shown["difference"]) == ("6", "6", "0")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/deposits/address"),
        ("GET", "/v1/deposits"),
        ("GET", "/v1/settlements"),
        ("GET", "/v1/payouts"),
        ("GET", "/v1/payouts/target"),
        ("PUT", "/v1/payouts/target"),
    ],
)
def test_without_the_scope_nothing_is_shown_or_set(net, client, method, path):
    stranger = person("mallory", scopes=("jobs:read",))
    assert stranger.call(method, path, {"address": None}).status_code == 403
    assert client.generic(method, path).status_code == 401


def test_reading_is_not_setting(net):
    reader = person("rita", scopes=("money:read",))
    assert reader.call("PUT", "/v1/payouts/target", {"address": "0x" + "12" * 20}).status_code == 403
    assert PayoutTarget.objects.count() == 0
