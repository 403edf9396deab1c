"""Rows of a matrix product: they verify against the root that the miner reported, or are refused."""

import hashlib

import orjson
import pytest

from aitbc.chain import merkle
from aitbc.chain.signing import keccak
from aitbc.core.testing import cast
from aitbc.core.testing.cast import MATMUL, MATMUL_OUTPUT
from apps.gpu.runtimes import bench_matmul
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import rows
from apps.gpu.tests.steps import lease_of, read, refused, start, submit

pytestmark = pytest.mark.django_db


def deliver(client, miner, tmp_path, given=MATMUL, **changes):
    """A job whose result is what the runtime really computes."""
    lease = lease_of(client, miner, **({"input": given} | changes))
    start(miner, lease)
    output, _ = bench_matmul.run(given, Context(tmp_path, {}))
    assert miner.deliver(lease, output).status_code == 200
    return lease["id"], output


def row(client, job, index):
    return client.get(f"/v1/jobs/{job}/rows?index={index}")


@pytest.mark.parametrize("n", [8, 33])
def test_every_row_verifies_under_the_root_of_the_result(alice, mike, tmp_path, n):
    job, output = deliver(alice, mike, tmp_path, {"n": n, "seed": 2**53 - 1, "dtype": "bfloat16"})
    for index in range(n):
        found = read(row(alice, job, index))

        # As a client does it, from the documentation alone.
        content = b"".join(value.to_bytes(4, "little", signed=True) for value in found["row"])
        leaf = keccak(bytes(4) + index.to_bytes(4, "big") + hashlib.sha256(content).digest())
        proof = [bytes.fromhex(node[2:]) for node in found["proof"]]
        assert merkle.verify(leaf, proof, bytes.fromhex(output["root"][2:]))
        assert found["leaf"] == "0x" + leaf.hex()
        assert (found["job_id"], found["index"], found["root"]) == (job, index, output["root"])
        assert len(found["row"]) == n


def test_an_uploaded_input_is_not_read(alice, mike, tmp_path, artifacts_dir):
    content = orjson.dumps(MATMUL)
    sha256 = hashlib.sha256(content).hexdigest()
    assert alice.put(f"/v1/artifacts/{sha256}", content).status_code == 201
    job, _ = deliver(alice, mike, tmp_path, input=None, input_artifact=sha256)

    refused(row(alice, job, 7), 404, "rows.gone")


def test_a_root_that_is_not_of_the_product_is_a_mismatch(alice, mike):
    lease = lease_of(alice, mike)
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    refused(row(alice, lease["id"], 0), 409, "rows.mismatch")


def test_a_large_product_is_gone_and_never_computed(alice, mike, monkeypatch):
    lease = lease_of(alice, mike, input=MATMUL | {"n": rows.MOST_N + 1})
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    monkeypatch.setattr(rows, "_tree", None)

    refused(row(alice, lease["id"], 0), 404, "rows.gone")


def test_an_index_outside_the_matrix_is_refused(alice, mike, tmp_path):
    job, _ = deliver(alice, mike, tmp_path)

    problem = refused(row(alice, job, 8), 422, "rows.index")
    assert problem["errors"] == [{"loc": ["query", "index"], "msg": "the matrix has 8 rows"}]
    for wrong in (-1, 16384, "x", ""):
        refused(row(alice, job, wrong), 422, "request.invalid")


def test_there_are_no_rows_before_the_end_of_others_or_of_other_kinds(alice, mallory, mike, tmp_path):
    job, _ = deliver(alice, mike, tmp_path)
    refused(row(mallory, job, 0), 404, "job.unknown")
    refused(row(alice, submit(alice)["id"], 0), 425, "job.not_ready")

    reader = cast.seller("olga", kinds=("text.embed",))
    lease = lease_of(alice, reader, kind="text.embed", input={"texts": ["a"]})
    delivered = reader.deliver(lease, {"dim": 384, "vectors": [[0.5] * 384]})
    assert delivered.status_code == 200, delivered.content
    refused(row(alice, lease["id"], 0), 409, "rows.kind")


def test_one_product_is_computed_at_a_time(alice, mike, tmp_path):
    job, _ = deliver(alice, mike, tmp_path)
    with rows._one_at_a_time:
        response = row(alice, job, 0)

    refused(response, 429, "rows.busy")
    assert response["Retry-After"] == "1"
    assert row(alice, job, 0).status_code == 200
