import hashlib

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apps.gpu import demo
from apps.gpu.demo import make_model
from apps.gpu.runtimes import onnx_infer, onnx_model
from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure


@pytest.fixture
def given(tmp_path):
    """Stores bytes as an artifact and returns its SHA-256; `given.context()` knows all of them."""

    class Given:
        artifacts = {}

        def __call__(self, content):
            sha256 = hashlib.sha256(content).hexdigest()
            self.artifacts[sha256] = tmp_path / sha256
            self.artifacts[sha256].write_bytes(content)
            return sha256

        def context(self):
            return Context(tmp_path, self.artifacts, threads=1)

    Given.artifacts = {}
    return Given()


def tensor(values, dtype="float32"):
    array = np.asarray(values, dtype)
    return {"dtype": dtype, "shape": list(array.shape), "data": array.ravel().tolist()}


def model(nodes, *, inputs=(("x", TensorProto.FLOAT, ["n"]),), outputs=(("y", TensorProto.FLOAT, None),),
          initializers=(), opsets=(("", 17),)):  # fmt: skip
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        list(initializers),
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets])
    made.ir_version = 8
    return made


def run(given, content, inputs):
    job = {"model": given(content), "inputs": inputs}
    jsonschema.validate(job, onnx_infer.RUNTIME.input_schema)
    output, metrics = onnx_infer.run(job, given.context())
    jsonschema.validate(output, onnx_infer.RUNTIME.output_schema)
    return output["outputs"], metrics


def refusal(given, content, inputs=None):
    with pytest.raises(RuntimeFailure) as caught:
        run(given, content, {"x": tensor([1.0])} if inputs is None else inputs)
    return caught.value.code, caught.value.message


IDENTITY = helper.make_node("Identity", ["x"], ["y"])


def test_the_demo_model_gives_what_numpy_computes_from_its_weights(given):
    x = np.random.default_rng(3).normal(size=(5, 16)).astype(np.float32)

    outputs, metrics = run(given, demo.MODEL_PATH.read_bytes(), {"x": tensor(x)})

    got = np.array(outputs["probabilities"]["data"]).reshape(outputs["probabilities"]["shape"])
    assert np.allclose(got, demo.mlp_reference(x), atol=1e-6)
    assert outputs["probabilities"]["dtype"] == "float32"
    assert metrics == {"provider": "CPUExecutionProvider", "nodes": 4}


def test_the_committed_demo_model_is_what_its_script_makes():
    assert demo.MODEL_PATH.read_bytes() == make_model.build()
    assert demo.MODEL_PATH.stat().st_size < 50_000


def test_a_tensor_may_come_as_an_artifact_of_raw_bytes(given):
    x = np.linspace(-1, 1, 32, dtype="<f4").reshape(2, 16)
    inline, _ = run(given, demo.MODEL_PATH.read_bytes(), {"x": tensor(x)})

    raw = {"dtype": "float32", "shape": [2, 16], "data": given(x.tobytes())}
    outputs, _ = run(given, demo.MODEL_PATH.read_bytes(), {"x": raw})

    assert outputs == inline
    job = {"model": "m", "inputs": {"x": raw, "y": tensor([1.0])}}
    assert onnx_infer.artifacts(job) == ("m", raw["data"])


@pytest.mark.parametrize("dtype", onnx_infer.DTYPES)
def test_every_dtype_goes_in_and_out_unchanged(given, dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = model([IDENTITY], inputs=[("x", kind, [3])], outputs=[("y", kind, [3])])

    outputs, _ = run(given, made.SerializeToString(), {"x": tensor([0, 1, 1], dtype)})

    assert outputs["y"] == tensor([0, 1, 1], dtype)


def test_external_data_is_refused(given, tmp_path):
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weights])
    made.graph.initializer[0].ClearField("raw_data")
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = made.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"

    code, message = refusal(given, made.SerializeToString())

    assert (code, "external data" in message) == (Code.INVALID_MODEL, True)


def test_external_data_inside_a_nested_graph_is_refused(given):
    inner_tensor = numpy_helper.from_array(np.ones(1, np.float32), "c")
    inner_tensor.data_location = TensorProto.EXTERNAL
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["o"], value=inner_tensor)], "b", [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    made = model([node], inputs=[("x", TensorProto.BOOL, [])])

    assert "external data" in refusal(given, made.SerializeToString())[1]


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.preview.training", "mine"])
def test_operators_outside_the_standard_are_refused(given, domain):
    made = model([helper.make_node("Gelu", ["x"], ["y"], domain=domain)], opsets=[("", 17), (domain, 1)])

    code, message = refusal(given, made.SerializeToString())

    assert (code, domain in message) == (Code.INVALID_MODEL, True)


def test_a_domain_used_by_a_node_without_an_import_is_refused(given):
    made = model([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")])

    assert "com.microsoft" in refusal(given, made.SerializeToString())[1]


def test_too_many_nodes_are_refused(given, monkeypatch):
    monkeypatch.setattr(onnx_model, "MAX_NODES", 2)

    assert "more than 2 nodes" in refusal(given, demo.MODEL_PATH.read_bytes(), {"x": tensor([[0.0] * 16])})[1]


def test_a_tensor_declared_larger_than_the_cap_is_refused(given):
    weights = TensorProto(name="w", dims=[1 << 15, 1 << 15], data_type=TensorProto.FLOAT)
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weights])

    assert "elements" in refusal(given, made.SerializeToString())[1]


def test_graphs_nested_too_deep_are_refused(given):
    graph = helper.make_graph([IDENTITY], "leaf", [], [])
    for _ in range(onnx_model.MAX_DEPTH + 1):
        graph = helper.make_graph([helper.make_node("Loop", [], ["y"], body=graph)], "g", [], [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])

    assert "nested" in refusal(given, made.SerializeToString())[1]


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x00" * 100, b"\xff" * 40, b"\x3a\x04\x0b"])
def test_bytes_that_are_no_model_are_refused(given, content):
    assert refusal(given, content)[0] == Code.INVALID_MODEL


def test_every_truncation_of_a_model_is_refused_without_a_crash(given):
    content = demo.MODEL_PATH.read_bytes()

    for length in range(0, len(content), 97):
        assert refusal(given, content[:length], {"x": tensor([[0.0] * 16])})[0] == Code.INVALID_MODEL


def test_a_model_onnxruntime_cannot_build_is_the_clients_fault(given):
    code, message = refusal(given, model([helper.make_node("NoSuchOperator", ["x"], ["y"])]).SerializeToString())

    assert code == Code.INVALID_MODEL
    assert "onnxruntime does not load the model" in message


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"z": tensor([1.0])}, "the model takes the inputs ['x'], not ['z']"),
        ({}, "the model takes the inputs ['x'], not []"),
        ({"x": {"dtype": "float32", "shape": [3], "data": [1.0]}}, "has 1 values, its shape [3] asks for 3"),
        ({"x": {"dtype": "float32", "shape": [1], "data": ["1.0"]}}, "is not a list of float32"),
        ({"x": {"dtype": "float32", "shape": [1], "data": [[1.0]]}}, "is not a list of float32"),
        ({"x": {"dtype": "int8", "shape": [1], "data": [300]}}, "is not a list of int8"),
        ({"x": {"dtype": "int64", "shape": [1], "data": [1.5]}}, "is not a list of int64"),
        ({"x": {"dtype": "uint8", "shape": [1], "data": [-1]}}, "is not a list of uint8"),
        ({"x": {"dtype": "bool", "shape": [1], "data": [1]}}, "is not a list of bool"),
        ({"x": {"dtype": "float32", "shape": [1 << 13, 1 << 13], "data": []}}, "more than 16777216 elements"),
        ({"x": {"dtype": "float32", "shape": [1], "data": "ab" * 32}}, "was not given to this job"),
        ({"x": tensor([1], "int64")}, "does not run on these inputs"),
    ],
)
def test_wrong_inputs_are_named(given, inputs, reason):
    code, message = refusal(given, model([IDENTITY]).SerializeToString(), inputs)

    assert code == Code.INVALID_INPUT
    assert reason in message


@pytest.mark.parametrize(
    ("node", "inputs", "reason"),
    [
        (helper.make_node("Log", ["x"], ["y"]), {"x": tensor([-1.0])}, "NaN or infinity"),
        (helper.make_node("Log", ["x"], ["y"]), {"x": tensor([0.0])}, "NaN or infinity"),
    ],
)
def test_outputs_that_json_cannot_carry_are_refused(given, node, inputs, reason):
    code, message = refusal(given, model([node]).SerializeToString(), inputs)

    assert (code, reason in message) == (Code.INVALID_MODEL, True)


@pytest.mark.parametrize("value", [2**53, -(2**53), -(2**63)])
def test_integers_that_json_readers_round_are_refused(given, value):
    made = model([IDENTITY], inputs=[("x", TensorProto.INT64, [1])], outputs=[("y", TensorProto.INT64, [1])])

    assert "2**53 - 1" in refusal(given, made.SerializeToString(), {"x": tensor([value], "int64")})[1]


@pytest.mark.parametrize(
    "job",
    [
        {"inputs": {}},
        {"model": "ab" * 31, "inputs": {}},
        {"model": "AB" * 32, "inputs": {}},
        {"model": "ab" * 32, "inputs": {"x": {"dtype": "complex64", "shape": [1], "data": [1]}}},
        {"model": "ab" * 32, "inputs": {"x": {"dtype": "float32", "shape": [-1], "data": [1]}}},
        {"model": "ab" * 32, "inputs": {"x": {"dtype": "float32", "shape": [1], "data": "passwd"}}},
        {"model": "ab" * 32, "inputs": {"x": {"dtype": "float32", "shape": [1]}}},
        {"model": "ab" * 32, "inputs": {}, "providers": ["x"]},
    ],
)
def test_the_schema_refuses_what_the_runtime_does_not_take(job):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, onnx_infer.RUNTIME.input_schema)


def test_the_walk_counts_what_the_onnx_package_counts():
    structure = onnx_model.inspect(demo.MODEL_PATH)
    parsed = onnx.load(demo.MODEL_PATH)

    assert structure.nodes == len(parsed.graph.node)
    assert structure.graphs == 1
