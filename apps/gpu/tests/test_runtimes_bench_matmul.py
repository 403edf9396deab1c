from importlib.util import find_spec

import jsonschema
import numpy as np
import pytest

from aitbc.chain import merkle
from apps.gpu.runtimes import bench_matmul, matrices
from apps.gpu.runtimes.contract import Context

SEED = bench_matmul.seed_bytes(7)
PUBLISHED = [
    [6, 1, -1, 0, 5, 2, 5, 7, 3, -6, 1, -8, -8, -6, -4, 2, -2, -2, -4, -7],
    [6, -6, -5, 0, -2, -3, -5, -6, 4, -5, 0, -4, 3, 6, 7, -8, 6, 0, -4, -8],
]


@pytest.fixture
def context(tmp_path):
    return Context(tmp_path, {}, threads=2)


def test_the_generator_gives_the_published_numbers():
    # Fixed values: platform and miners of different releases must agree on the matrices of a seed.
    assert matrices.entries(SEED, "B", [0, 1], 20).tolist() == PUBLISHED


def test_entries_are_uniform_four_bit_integers():
    values, counts = np.unique(matrices.right(SEED, 512), return_counts=True)

    assert values.tolist() == list(range(-8, 8))
    assert counts.min() > 0.98 * 512 * 512 / 16
    assert np.linalg.matrix_rank(matrices.right(SEED, 512).astype(float)) == 512


def test_single_rows_are_the_rows_of_the_whole_matrix():
    whole = matrices.left(SEED, 3, range(100), 100)

    assert np.array_equal(matrices.left(SEED, 3, [0, 99, 42], 100), whole[[0, 99, 42]])
    assert not np.array_equal(matrices.left(SEED, 4, range(100), 100), whole)


@pytest.mark.parametrize("rounds", [1, 3])
def test_products_are_exact_integers(rounds):
    n = 200
    expected = matrices.left(SEED, 1, range(n), n).astype(np.int64)
    b = matrices.right(SEED, n).astype(np.int64)
    for number in range(rounds):
        expected = (expected if number == 0 else (expected & 15) - 8) @ b

    product = matrices.Multiplier(SEED, n).product(1, rounds)

    assert product.dtype == np.int32
    assert np.array_equal(product, expected)
    assert np.array_equal(matrices.product_rows(SEED, n, rounds, [(1, 5), (1, 199)]), expected[[5, 199]])


def test_a_leaf_says_where_its_row_sits():
    row = np.arange(16, dtype=np.int32)
    same = {matrices.leaf(0, 0, row), matrices.leaf(0, 1, row), matrices.leaf(1, 0, row)}

    assert len(same) == 3


def test_the_output_matches_its_schema_and_anchors_the_rows(context):
    output, metrics = bench_matmul.run({"n": 64, "seed": 7, "dtype": "float32", "repeats": 3}, context)

    jsonschema.validate(output, bench_matmul.RUNTIME.output_schema)
    rows = matrices.leaves(0, matrices.Multiplier(SEED, 64).product(0))
    assert output["root"] == "0x" + merkle.root(rows).hex()
    assert output["n"] == 64
    assert output["tflops"] == pytest.approx(2 * 64**3 * 3 / output["seconds"] / 1e12)
    assert metrics == {"computed_in": "float32"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_dtype_gives_the_same_product(context, dtype):
    job = {"n": 64, "seed": 7}

    roots = {bench_matmul.run({**job, "dtype": name}, context)[0]["root"] for name in ("float32", dtype)}

    assert len(roots) == 1


@pytest.mark.parametrize(
    "job",
    [
        {"n": matrices.MIN_N - 1, "seed": 1, "dtype": "float32"},
        {"n": 10**5, "seed": 1, "dtype": "float32"},
        {"n": 64, "seed": -1, "dtype": "float32"},
        {"n": 64, "seed": 1, "dtype": "float64"},
        {"n": 64, "seed": 1, "dtype": "float32", "repeats": 0},
        {"n": 64, "seed": 1, "dtype": "float32", "more": 1},
        {"n": 64, "seed": 1},
    ],
)
def test_the_schema_refuses_what_the_runtime_does_not_take(job):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, bench_matmul.RUNTIME.input_schema)


def test_an_accelerator_without_torch_is_not_advertised():
    assert bench_matmul.available("cpu") is None
    assert bench_matmul.available("cuda") == (None if find_spec("torch") else "not installed: torch")
