"""A model is verified by running it: real ONNX files, the platform's runtime, a miner of somebody else."""

import pytest
from onnx import TensorProto, helper

from aitbc.core import db
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.runtimes import onnx_infer
from apps.gpu.runtimes.contract import Context, RuntimeFailure
from apps.gpu.services.artifacts import path_of
from apps.gpu.services.reexecution import judge
from apps.gpu.tests.conftest import artifacts_dir  # noqa: F401 - fixture
from apps.gpu.tests.steps import fail, read, refused, start
from apps.marketplace.tests.test_licences import ASSETS, plan, publish
from apps.trading.services.audit import audit

pytestmark = pytest.mark.usefixtures("artifacts_dir")


def onnx(op="Relu") -> bytes:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString(deterministic=True)


def reference(*values, **more):
    given = {"dtype": "float32", "shape": [2], "data": [-1.0, 2.0]}
    return {
        "input": {"inputs": {"x": given}},
        "expected": {"outputs": {"y": {"dtype": "float32", "shape": [2], "data": list(values)}}},
    } | more


@pytest.fixture
def oscar(db):
    oscar = cast.person("oscar")
    cast.fund(oscar.id, AIT)
    return oscar


@pytest.fixture
def mike(db):
    return cast.seller("mike", kinds=("onnx.infer",))


def asset_of(oscar, content, expected):
    return read(publish(oscar, content, [plan()], reference=expected))["id"]


def ask(who, asset):
    return who.post(f"{ASSETS}/{asset}/checks")


def work(miner, tmp_path):
    """What the miner's daemon does with a job: run it, deliver the output or say why there is none."""
    (lease,) = miner.poll()
    start(miner, lease)
    sha = lease["input"]["model"]
    why = None
    try:
        output, _ = onnx_infer.run(lease["input"], Context(tmp_path, {sha: path_of(sha)}))
    except RuntimeFailure as failure:
        why = str(failure.code)
    response = fail(miner, lease, why) if why else miner.deliver(lease, output)
    assert response.status_code == 200
    judge()


def verification(who, asset):
    (found,) = [a["verification"] for a in read(who.get(ASSETS))["items"] if a["id"] == asset]
    return found


def test_a_model_that_computes_what_its_owner_says_is_verified(oscar, mike, tmp_path):
    asset = asset_of(oscar, onnx(), reference(0.0, 2.0))
    assert verification(oscar, asset) is None

    assert read(ask(oscar, asset))["verification"]["state"] == "running"
    refused(ask(oscar, asset), 409, "asset.checking")
    work(mike, tmp_path)

    found = verification(oscar, asset)
    assert found["state"] == "verified"
    assert found["measured"]["deviation"] == {"0": 0.0}
    assert found["measured"]["metrics"] == {}
    assert found["measured"]["ms"] >= 0
    assert audit() == []


def test_a_model_that_computes_something_else_fails_and_the_badge_follows_each_check(oscar, mike, tmp_path):
    asset = asset_of(oscar, onnx("Neg"), reference(0.0, 2.0))
    ask(oscar, asset)
    work(mike, tmp_path)

    found = verification(oscar, asset)
    assert found["state"] == "failed"
    assert found["measured"]["deviation"]["0"] == pytest.approx(2.0)

    ask(oscar, asset)
    assert verification(oscar, asset)["state"] == "running"
    work(mike, tmp_path)
    assert verification(oscar, asset)["state"] == "failed"
    assert db.value("SELECT count(*) FROM gpu_rerun") == 2


def test_a_small_deviation_is_within_the_tolerance(oscar, mike, tmp_path):
    close = asset_of(oscar, onnx(), reference(0.0005, 2.0))
    ask(oscar, close)
    work(mike, tmp_path)
    assert verification(oscar, close)["state"] == "verified"

    strict = asset_of(oscar, onnx(), reference(0.0005, 2.0, tolerance=1e-6))
    ask(oscar, strict)
    work(mike, tmp_path)
    assert verification(oscar, strict)["state"] == "failed"


def test_bytes_that_are_no_model_fail_with_the_parsers_word(oscar, mike, tmp_path):
    asset = asset_of(oscar, b"not a model", reference(0.0, 2.0))
    ask(oscar, asset)
    work(mike, tmp_path)

    found = verification(oscar, asset)
    assert found["state"] == "failed"
    assert found["measured"]["code"] == "runtime.invalid_model"
    assert audit() == []


def test_a_miners_crash_says_nothing_of_the_model(oscar, mike):
    asset = asset_of(oscar, onnx(), reference(0.0, 2.0))
    ask(oscar, asset)
    for _ in range(3):
        (lease,) = mike.poll()
        fail(mike, lease, "runtime.crashed", retryable=True)
    judge()
    assert verification(oscar, asset)["state"] == "inconclusive"


def test_nobody_verifies_his_own_or_anothers_model_or_without_a_reference(oscar, mike):
    cast.fund(mike.id, AIT)
    own = asset_of(mike, onnx(), reference(0.0, 2.0))
    refused(ask(mike, own), 409, "rerun.no_miner")
    refused(ask(oscar, own), 404, "asset.unknown")
    bare = read(publish(oscar))["id"]
    refused(ask(oscar, bare), 422, "asset.no_reference")
    assert db.value("SELECT count(*) FROM gpu_rerun") == 0


def test_a_reference_must_be_an_input_and_an_output_of_the_kind(oscar):
    wrong = reference(0.0, 2.0) | {"input": {"inputs": {"x": 1}}}
    refused(publish(oscar, onnx(), [plan()], reference=wrong), 422, "request.invalid")
    assert db.value("SELECT count(*) FROM marketplace_asset") == 0
