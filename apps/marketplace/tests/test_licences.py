"""Models and data with licences: money split to the last unit, rights checked when a job names the bytes."""

import hashlib
from uuid import UUID, uuid4

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Job
from apps.gpu.tests.conftest import artifacts_dir  # noqa: F401 - fixture
from apps.gpu.tests.steps import read, refused
from apps.marketplace.tests.test_reputation import at_score
from apps.trading.services.audit import audit
from apps.trading.tests.books import books

BYTES = b"the weights of a model"
SHA = hashlib.sha256(BYTES).hexdigest()
ASSETS, LICENCES = "/v1/marketplace/assets", "/v1/marketplace/licences"
pytestmark = pytest.mark.usefixtures("artifacts_dir")


def ait(units: int) -> dict[str, str]:
    whole, rest = divmod(units, AIT)
    return {"amount": f"{whole}.{rest:018d}", "asset": "AIT"}


def plan(kind="commercial", units=1000, **more):
    return {"type": kind, "price": ait(units)} | more


def publish(owner, content=BYTES, plans=None, **more):
    sha = hashlib.sha256(content).hexdigest()
    assert owner.put(f"/v1/artifacts/{sha}", content).status_code == 201
    body = {"artifact": sha, "name": "net", "kind": "model", "plans": plans or [plan()]} | more
    return owner.post(ASSETS, body)


def buy(who, item, number=None):
    return who.post(LICENCES, {"id": number or uuid7(), "item": item})


def infer(who, sha=SHA, **more):
    tensor = {"dtype": "float32", "shape": [1], "data": [1.0]}
    body = {"kind": "onnx.infer", "input": {"model": sha, "inputs": {"x": tensor}}, "max_price": ait(AIT // 100)}
    return who.post("/v1/jobs", body | more)


def balance(user) -> int:
    query = "SELECT coalesce(sum(posted), 0)::int8 FROM trading_account WHERE owner_id = %s AND kind = 'available'"
    return int(db.value(query, (user.id,)))


@pytest.fixture
def alice(db):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    return alice


@pytest.fixture
def oscar(db):
    return cast.person("oscar")


@pytest.fixture
def rita(db):
    return cast.person("rita")


@pytest.fixture
def ravi(db):
    return cast.person("ravi")


# -- money -----------------------------------------------------------------------------------------


@given(st.integers(0, 10**30), st.lists(st.integers(0, 10**20), min_size=1, max_size=8))
def test_a_split_is_exact_and_off_by_less_than_a_unit(django_db_setup, django_db_blocker, total, weights):
    with django_db_blocker.unblock():
        found = db.value("SELECT split_exactly(%s::numeric, %s::numeric[])", (total, [str(w) for w in weights]))
    whole = sum(weights)
    assert sum(map(int, found)) == total
    for part, weight in zip(found, weights, strict=True):
        assert abs(int(part) * (whole or len(weights)) - total * (weight if whole else 1)) < (whole or len(weights))


def test_a_sale_pays_fee_royalties_and_owner_to_the_last_unit(alice, oscar, rita, ravi):
    royalties = [
        {"tier": "primary", "payee": rita.id, "bps": 3333},
        {"tier": "secondary", "payee": ravi.id, "bps": 3333},
    ]
    asset = read(publish(oscar, plans=[plan(units=1000)], royalties=royalties))
    number = uuid7()

    sale = read(buy(alice, asset["plans"][0]["id"], number))

    # 1000: a fee of 25, then 975 by 3333 : 3333 : 3334 = 324.9675, 324.9675, 325.065
    assert sale["fee"] == {"amount": "0.000000000000000025", "asset": "AIT"}
    assert (balance(rita), balance(ravi), balance(oscar), balance(alice)) == (325, 325, 325, AIT - 1000)
    assert [share["tier"] for share in sale["shares"]] == ["", "primary", "secondary"]
    before = books()
    assert read(buy(alice, asset["plans"][0]["id"], number)) == sale
    assert books() == before
    assert audit() == []


def test_one_transaction_id_pays_for_one_thing(alice, oscar, rita):
    asset = read(publish(oscar, plans=[plan(), plan("research", 10)]))
    cast.fund(rita.id, AIT)
    number = uuid7()
    assert buy(alice, asset["plans"][0]["id"], number).status_code == 201
    before = books()
    refused(buy(alice, asset["plans"][1]["id"], number), 409, "sale.exists")
    refused(buy(rita, asset["plans"][0]["id"], number), 409, "sale.exists")
    assert books() == before


def test_of_many_at_once_with_one_id_one_pays(committed_db, in_threads, artifacts_dir):  # noqa: F811
    alice, oscar = cast.person("alice"), cast.person("oscar")
    cast.fund(alice.id, 10_000)
    item, number = read(publish(oscar))["plans"][0]["id"], uuid7()

    assert in_threads(lambda _: buy(alice, item, number).status_code, 4) == [201] * 4

    assert (balance(alice), balance(oscar)) == (9000, 975)
    assert audit() == []


def test_more_than_all_cannot_be_promised(oscar, rita, ravi):
    royalties = [{"tier": "a", "payee": rita.id, "bps": 6000}, {"tier": "b", "payee": ravi.id, "bps": 4001}]
    refused(publish(oscar, royalties=royalties), 422, "royalty.too_much")
    assert db.value("SELECT count(*) FROM marketplace_asset") == 0
    royalties[1]["bps"] = 4000
    assert publish(oscar, royalties=royalties).status_code == 201


def test_who_buys_pays_no_royalty_to_himself(alice, oscar):
    asset = read(publish(oscar, royalties=[{"tier": "a", "payee": alice.id, "bps": 5000}]))
    read(buy(alice, asset["plans"][0]["id"]))
    assert (balance(alice), balance(oscar)) == (AIT - 25 - 488, 488)
    assert audit() == []


def test_a_bundle_is_split_by_the_prices_of_its_plans(alice, oscar, rita):
    first = read(publish(oscar, plans=[plan(units=100)], royalties=[{"tier": "a", "payee": rita.id, "bps": 10_000}]))
    second = read(publish(oscar, b"other", plans=[plan(units=200)]))
    items = [asset["plans"][0]["id"] for asset in (first, second)]
    bundle = read(oscar.post("/v1/marketplace/bundles", {"name": "both", "price": ait(200), "plans": items}))

    sale = read(buy(alice, bundle["id"]))

    assert (balance(rita), balance(oscar)) == (65, 130)  # 195 by 1 : 2
    assert len(sale["licences"]) == 2
    refused(alice.post("/v1/marketplace/bundles", {"name": "x", "price": ait(1), "plans": items}), 422, "bundle.plans")
    assert audit() == []


def test_who_cannot_pay_gets_no_licence(oscar, rita):
    asset = read(publish(oscar))
    cast.fund(rita.id, 999)
    before = books()
    refused(buy(rita, asset["plans"][0]["id"]), 409, "payment.insufficient_funds")
    assert books() == before
    assert db.value("SELECT count(*) FROM marketplace_sale") == 0


def test_a_master_pays_the_discounted_fee_and_low_scores_buy_nothing_expensive(committed_db, artifacts_dir):  # noqa: F811
    alice, oscar = cast.person("alice"), cast.person("oscar")
    cast.fund(alice.id, 200 * AIT)
    at_score(oscar, 900)
    at_score(alice, 299)
    item = read(publish(oscar, plans=[plan(units=100 * AIT)]))["plans"][0]["id"]

    problem = refused(buy(alice, item), 403, "reputation.too_low")
    assert "299" in problem["detail"]
    parameters.change(name="reputation_to_buy", value=200, by=None)
    assert read(buy(alice, item))["fee"]["amount"] == "2"


# -- rights ----------------------------------------------------------------------------------------


def test_a_job_without_a_licence_is_denied(alice, oscar):
    publish(oscar)
    before = books()
    refused(infer(alice), 403, "licence.required")
    refused(infer(alice, "ab" * 32), 404, "artifact.unknown")
    assert Job.objects.count() == 0
    assert books() == before
    cast.fund(oscar.id, AIT)
    assert infer(oscar).status_code == 201


def test_a_licence_lets_jobs_use_the_bytes_and_nobody_download_them(alice, oscar):
    asset = read(publish(oscar))
    buy(alice, asset["plans"][0]["id"])
    miner = cast.seller("mike", kinds=("onnx.infer",))

    assert infer(alice).status_code == 201
    refused(alice.get(f"/v1/artifacts/{SHA}"), 404, "artifact.unknown")
    refused(miner.get(f"/v1/artifacts/{SHA}"), 404, "artifact.unknown")
    (lease,) = miner.poll()
    assert lease["input"]["model"] == SHA
    assert b"".join(miner.get(f"/v1/artifacts/{SHA}").streaming_content) == BYTES


@pytest.mark.parametrize(
    ("kind", "rights", "allowed"),
    [
        ("commercial", [], {"commercial", "research", "education"}),
        ("research", [], {"research"}),
        ("educational", [], {"education"}),
        ("custom", ["research", "education"], {"research", "education"}),
    ],
)
def test_each_type_allows_its_purposes(kind, rights, allowed, alice, oscar):
    asset = read(publish(oscar, plans=[plan(kind, rights=rights)]))
    buy(alice, asset["plans"][0]["id"])

    for purpose in ("commercial", "research", "education"):
        response = infer(alice, purpose=purpose)
        if purpose in allowed:
            assert response.status_code == 201
        else:
            refused(response, 403, "licence.required")


def test_revocation_works_at_once(alice, oscar, rita):
    asset = read(publish(oscar))
    licence = read(buy(alice, asset["plans"][0]["id"]))["licences"][0]
    job = read(infer(alice))
    path = f"{LICENCES}/{licence['id']}/revoke"
    refused(rita.post(path, {"reason": "no"}), 404, "licence.unknown")

    assert read(oscar.post(path, {"reason": "resold the outputs"}))["valid"] is False

    refused(infer(alice), 403, "licence.required")
    assert Job.objects.get(pk=job["id"]).state == "canceled"
    assert balance(alice) == AIT - 1000
    assert read(alice.get(LICENCES))["items"][0]["revoked_at"] is not None
    assert audit() == []


def test_a_licence_expires(committed_db, artifacts_dir):  # noqa: F811
    alice, oscar = cast.person("alice"), cast.person("oscar")
    cast.fund(alice.id, AIT)
    asset = read(publish(oscar, plans=[plan(days=1)]))
    read(buy(alice, asset["plans"][0]["id"]))
    assert infer(alice).status_code == 201
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE marketplace_licence SET expires_at = now() - interval '1 second'")
    refused(infer(alice), 403, "licence.required")


def test_only_who_uploaded_the_bytes_publishes_them(alice, oscar):
    publish(oscar)
    body = {"artifact": SHA, "name": "mine", "kind": "model", "plans": [plan()]}
    refused(alice.post(ASSETS, body), 404, "artifact.unknown")


def test_a_withdrawn_asset_is_not_sold_and_its_licences_go_on(alice, oscar, rita):
    asset = read(publish(oscar))
    buy(alice, asset["plans"][0]["id"])
    refused(alice.delete(f"{ASSETS}/{asset['id']}"), 404, "asset.unknown")
    assert read(oscar.delete(f"{ASSETS}/{asset['id']}"))["listed"] is False

    refused(buy(rita, asset["plans"][0]["id"]), 404, "plan.unknown")
    assert infer(alice).status_code == 201
    assert read(alice.get(ASSETS))["items"] == []


def test_own_assets_need_no_licence(oscar):
    asset = read(publish(oscar))
    refused(buy(oscar, asset["plans"][0]["id"]), 422, "licence.own")
    refused(buy(oscar, uuid4()), 404, "plan.unknown")
    assert UUID(asset["id"])


def test_a_repeat_of_a_job_answers_after_its_licence_is_gone(alice, oscar):
    licence = read(buy(alice, read(publish(oscar))["plans"][0]["id"]))["licences"][0]
    number = uuid7()
    first = read(infer(alice, id=number))
    oscar.post(f"{LICENCES}/{licence['id']}/revoke", {"reason": "over"})

    again = infer(alice, id=number)

    assert (again.status_code, read(again)["id"]) == (200, first["id"])
    refused(infer(alice, id=uuid7()), 403, "licence.required")
