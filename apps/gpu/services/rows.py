"""Rows of a finished `bench.matmul` under the root that its miner reported.

Miners keep no product, and none can be called: but the seed gives the whole product to anybody, so the
platform computes it again and proves a row of it under the miner's own root, or finds that it cannot.
"""

import threading
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

import orjson

from aitbc.chain import merkle
from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid, NotFound, TooMany
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.bench_matmul import seed_bytes
from apps.gpu.selectors.jobs import result_document

MOST_N: Final = 2048  # 17 GFLOP: below a second of a processor
_one_at_a_time = threading.Lock()


def row(*, client: UUID, job: UUID, index: int) -> dict[str, Any]:
    """`{job_id, index, row, leaf, proof, root}`; 404 `rows.gone` above `MOST_N`, 409 `rows.mismatch`."""
    given, root = _matmul(client, job)
    if index >= given["n"]:
        error = {"loc": ["query", "index"], "msg": f"the matrix has {given['n']} rows"}
        raise Invalid("rows.index", "no such row", errors=[error])
    if given["n"] > MOST_N:
        raise NotFound("rows.gone", f"rows of products above {MOST_N} x {MOST_N} are not kept")
    if not _one_at_a_time.acquire(blocking=False):
        raise TooMany("rows.busy", "another product is being computed; try again", retry_after=1)
    try:
        seed = seed_bytes(given["seed"])
        tree = _tree(seed, given["n"])
        values = matrices.product_rows(seed, given["n"], 1, [(0, index)])[0]
    finally:
        _one_at_a_time.release()
    leaf, proof = matrices.leaf(0, index, values), tree.proof(index)
    if not merkle.verify(leaf, proof, bytes.fromhex(root[2:])):
        raise Conflict("rows.mismatch", "the miner's root is not that of the product of these matrices")
    shown = {"leaf": "0x" + leaf.hex(), "proof": ["0x" + node.hex() for node in proof], "root": root}
    return {"job_id": job, "index": index, "row": values.tolist(), **shown}


def _matmul(client: UUID, job: UUID) -> tuple[dict[str, Any], str]:
    """Input and root; refuses as the job's result would. Uploaded inputs and outputs are not read: nobody
    checked what they hold."""
    output = orjson.loads(result_document(client=client, job=job))["output"]
    kind, given = db.rows("SELECT kind, input FROM gpu_job WHERE id = %s", (job,))[0]
    if kind != "bench.matmul":
        raise Conflict("rows.kind", f"{kind} has no rows")
    if given is None or output is None:
        raise NotFound("rows.gone", "input or output of this job is an artifact")
    return orjson.loads(given), output["root"]


@lru_cache(maxsize=8)
def _tree(seed: bytes, n: int) -> merkle.Tree:
    return merkle.Tree(matrices.leaves(0, matrices.Multiplier(seed, n).product(0)))
