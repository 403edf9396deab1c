"""Disputes decided by doing the work again on unrelated miners, and the appeal against the verdict."""

import hashlib
import math

import pytest

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT
from apps.gpu.runtimes import runtimes
from apps.gpu.runtimes.deviation import numeric
from apps.gpu.services.reexecution import judge
from apps.gpu.tests.steps import fail, pass_time, read, refused, submit
from apps.trading.models import Payment
from apps.trading.services import escrow, ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import books

RIGHT, WRONG = MATMUL_OUTPUT, MATMUL_OUTPUT | {"root": "0x" + "cd" * 32}
OTHER = MATMUL_OUTPUT | {"root": "0x" + "ef" * 32}


@pytest.fixture(autouse=True)
def _sound_in_the_end(db):
    yield
    assert audit() == []


@pytest.fixture
def others():
    """Four unrelated miners."""
    return [cast.seller(f"m{n}", region="us") for n in range(4)]


@pytest.fixture
def treasury(db):
    """Fees that the platform earned before: runs are paid out of them."""
    outside, fees = (
        ledger.account_id(owner=None, kind="external", chain="test"),
        ledger.account_id(owner=None, kind="fees"),
    )
    item = {"id": uuid7(), "action": "transfer", "kind": "deposit", "debit": outside, "credit": fees, "amount": AIT}
    ledger.apply_all([ledger.Item(**item)])


def disputed(client, miner, output=RIGHT) -> Payment:
    job = submit(client)
    (lease,) = miner.poll()
    read(miner.deliver(lease, output))
    payment = Payment.objects.get(job=job["id"])
    escrow.act("dispute", user=client.id, payment=payment.pk, job=payment.job, reason="the product is wrong")
    return payment


def ask(client, payment):
    return client.post(f"/v1/disputes/{payment.pk}/reexecution")


def shown(who, payment):
    return read(who.get(f"/v1/disputes/{payment.pk}"))


def rerun(others, output):
    """The run that is going on, done by the miner that was drawn for it."""
    judge()
    for miner in others:
        if leases := miner.poll():
            assert len(leases) == 1
            read(miner.deliver(leases[0], output))
            judge()
            return miner
    raise AssertionError("nobody was drawn")


def no_window():
    parameters.change(name="appeal_seconds", value=0, by=None)


def test_two_that_agree_with_the_original_uphold_it_and_the_client_pays_the_runs(alice, mike, others, treasury):
    payment = disputed(alice, mike)
    total = payment.released + payment.fee
    read(ask(alice, payment))
    no_window()

    drawn = {rerun(others, RIGHT | {"seconds": 9.0}).miner_id for _ in range(2)}
    assert shown(mike, payment)["verdict"] == "upheld"
    judge()

    payment.refresh_from_db()
    assert len(drawn) == 2
    assert (payment.state, payment.released + payment.fee) == ("partially_released", total)
    document = shown(alice, payment)
    assert [run["state"] for run in document["runs"]] == ["agrees", "agrees"]
    assert document["runs"][0]["measured"]["deviation"] == {"0": 0.0}
    spent = sum(p.released + p.fee for p in Payment.objects.exclude(client_id=alice.id))
    (cost,) = db.rows("SELECT amount FROM trading_transfer WHERE kind = 'rerun.cost'")
    assert int(cost[0]) == min(spent, total)


def test_two_that_agree_against_the_original_refund_the_client(alice, mike, others, treasury):
    payment = disputed(alice, mike, WRONG)
    total = payment.released + payment.fee
    read(ask(alice, payment))
    no_window()

    for output in (RIGHT, RIGHT):
        rerun(others, output)
    judge()

    payment.refresh_from_db()
    assert (payment.state, payment.refunded) == ("refunded", payment.held)
    assert shown(alice, payment)["verdict"] == "refunded"
    assert db.value("SELECT refund FROM trading_dispute") == total
    assert db.value("SELECT count(*) FROM trading_transfer WHERE kind = 'rerun.cost'") == 0
    assert db.value("SELECT state FROM gpu_reexecution") == "closed"


def test_one_liar_among_three_changes_nothing(alice, mike, others, treasury):
    payment = disputed(alice, mike)
    read(ask(alice, payment))
    for output in (WRONG, RIGHT, RIGHT):
        rerun(others, output)
    assert shown(alice, payment)["verdict"] == "upheld"
    assert [run["state"] for run in shown(alice, payment)["runs"]] == ["differs", "agrees", "agrees"]


def test_what_three_runs_do_not_decide_an_operator_does(alice, mike, others, treasury):
    olga = cast.person("olga", role="operator")
    payment = disputed(alice, mike)
    read(ask(alice, payment))
    for output in (WRONG, OTHER, RIGHT):
        rerun(others, output)

    document = shown(alice, payment)
    assert (document["state"], document["verdict"]) == ("operator", None)
    escrow.resolve(operator=olga.id, payment=payment.pk, refund=1, note="a unit, for the trouble")
    assert judge()["closed"] == 1
    assert shown(alice, payment)["state"] == "resolved"


def test_either_party_appeals_within_the_window(alice, mike, others, treasury):
    payment = disputed(alice, mike)
    path = f"/v1/disputes/{payment.pk}/appeal"
    read(ask(alice, payment))
    refused(alice.post(path, {"reason": "too early"}), 409, "reexecution.no_appeal")
    for _ in range(2):
        rerun(others, RIGHT)
    judge()
    payment.refresh_from_db()
    assert payment.state == "disputed"  # the window is open

    document = read(alice.post(path, {"reason": "they are all wrong"}))

    assert (document["state"], document["verdict"]) == ("operator", "upheld")
    parameters.change(name="appeal_seconds", value=0, by=None)
    judge()
    payment.refresh_from_db()
    assert payment.state == "disputed"
    refused(mike.post(path, {"reason": "again"}), 409, "reexecution.no_appeal")


def test_runs_go_to_unrelated_miners_only_elsewhere_first(alice, mike, treasury):
    second = cast.seller("second")  # mike's region
    db.rows("UPDATE gpu_miner SET owner_id = %s WHERE id = %s", (mike.id, second.miner_id))
    near, far = cast.seller("near"), cast.seller("far", region="us")
    cast.fund(near.id, AIT)
    db.rows("UPDATE gpu_miner SET state = 'offline' WHERE name = 'nora'")
    payment = disputed(alice, mike)
    read(ask(alice, payment))

    assert rerun([mike, second, near, far], RIGHT) is far
    assert rerun([mike, second, near, far], WRONG) is near
    judge()
    assert shown(alice, payment)["state"] == "operator"
    assert "no unrelated miner" in shown(alice, payment)["operator_because"]


def test_a_run_that_nobody_finishes_is_no_vote(alice, mike, others, treasury):
    payment = disputed(alice, mike)
    read(ask(alice, payment))
    judge()
    job = db.value("SELECT job FROM gpu_rerun")
    pass_time(job, 10_000)
    db.rows("SELECT gpu_expire_queued(10)")

    judge()

    assert [run["state"] for run in shown(alice, payment)["runs"]] == ["nothing", "running"]


def test_only_the_client_consents_and_once_and_with_a_deposit(alice, mike, mallory, others):
    payment = disputed(alice, mike)
    before = books()
    refused(ask(mallory, payment), 404, "dispute.unknown")
    refused(ask(mike, payment), 403, "reexecution.client_only")
    refused(mallory.get(f"/v1/disputes/{payment.pk}"), 404, "dispute.unknown")
    assert books() == before
    read(ask(alice, payment))
    refused(ask(alice, payment), 409, "reexecution.exists")


def test_without_the_deposit_nothing_starts(mike, others):
    poor = cast.person("poor")
    cast.fund(poor.id, 10**16)
    payment = disputed(poor, mike)
    spare = db.value("SELECT posted - held FROM trading_account WHERE owner_id = %s AND kind = 'available'", (poor.id,))
    submit(poor, max_price={"amount": f"0.{int(spare):018d}", "asset": "AIT"})
    before = books()
    refused(ask(poor, payment), 409, "payment.insufficient_funds")
    assert books() == before


def test_without_an_unrelated_miner_or_money_an_operator_decides(alice, mike):
    payment = disputed(alice, mike)
    read(ask(alice, payment))
    assert judge() == {"operator": 1}
    assert shown(alice, payment)["state"] == "operator"


def test_a_kind_whose_machines_may_differ_is_left_to_an_operator(alice):
    miner = cast.seller("ocr", kinds=("vision.ocr",))
    job = submit(alice, kind="vision.ocr", input={"image": "aGVsbG8gd29ybGQh" * 8})
    (lease,) = miner.poll()
    read(miner.deliver(lease, {"lines": []}))
    payment = Payment.objects.get(job=job["id"])
    escrow.act("dispute", user=alice.id, payment=payment.pk, job=payment.job, reason="there are words")
    refused(ask(alice, payment), 409, "reexecution.not_reproducible")


def test_both_parties_show_artifacts_and_the_other_may_read_them(alice, mike, mallory, artifacts_dir):
    payment = disputed(alice, mike)
    path = f"/v1/disputes/{payment.pk}/evidence"
    for who, other, content in ((alice, mike, b"the true product"), (mike, alice, b"my log")):
        sha = hashlib.sha256(content).hexdigest()
        refused(who.post(path, {"artifact": sha}), 404, "artifact.unknown")
        who.put(f"/v1/artifacts/{sha}", content)
        document = read(who.post(path, {"artifact": sha, "note": "see"}))
        assert document["evidence"][-1]["artifact"] == sha
        assert b"".join(other.get(f"/v1/artifacts/{sha}").streaming_content) == content
        refused(mallory.get(f"/v1/artifacts/{sha}"), 404, "artifact.unknown")
    assert [e["party"] for e in document["evidence"]] == [str(alice.id), str(mike.id)]


def test_a_miner_that_blames_the_input_casts_no_vote(alice, mike, others, treasury):
    payment = disputed(alice, mike)
    read(ask(alice, payment))
    judge()
    for miner in others:
        for lease in miner.poll():
            assert fail(miner, lease, "runtime.memory").status_code == 200
    judge()
    (first, *_) = shown(alice, payment)["runs"]
    assert (first["state"], first["measured"]["code"]) == ("nothing", "runtime.memory")


@pytest.mark.parametrize(
    ("a", "b", "deviation"),
    [
        ({"x": [1.0, 2]}, {"x": [1.0, 2.5]}, 0.2),
        ({"x": [1e-9]}, {"x": [0]}, 1e-9),
        ({"x": [1]}, {"x": [1, 1]}, math.inf),
        ({"x": 1}, {"y": 1}, math.inf),
        ({"x": True}, {"x": 1}, math.inf),
        ("a", "b", math.inf),
        ([], [], 0),
        (None, None, 0),
    ],
)
def test_deviation_is_relative_and_infinite_for_another_structure(a, b, deviation):
    assert numeric(a, b) == pytest.approx(deviation)


def test_which_kinds_are_reproducible():
    declared = {kind: runtime.tolerance for kind, runtime in runtimes().items() if runtime.deviation}

    assert declared == {"bench.matmul": 0, "onnx.infer": 1e-3, "text.embed": 1e-3}
    deviation = runtimes()["bench.matmul"].deviation
    assert deviation(RIGHT, RIGHT | {"tflops": 99.0}) == 0
    assert deviation(RIGHT, WRONG) == math.inf
