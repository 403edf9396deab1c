"""Claims from queues of a thousand and of a million jobs. `make bench NAME=claims`.

Each shape of the queue is filled by set-based SQL, then two miners take turns in claiming one job, each claim in a
transaction of its own, timed at the caller. Shapes: all jobs match (many classes and clients); all but a few do not
match and rank before those that do, by their class or by a budget below the miner's price; one client has 99 % of
the queue. Ends with one JSON line. ARGS="--jobs 20000 --claims 200" is a short form.
"""

import argparse
import itertools
import json
import sys
import time
from typing import Any

from bench import platform

SMALL = 1000
MINERS = 2
CLASSES = 50
_CLEAR = "TRUNCATE gpu_job, gpu_job_queue, gpu_job_class, gpu_queue_client CASCADE; UPDATE gpu_miner SET vtime = 0"
# One statement: jobs and queue rows agree, clients and classes by the number of the job.
_FILL = """
WITH class AS MATERIALIZED (
  SELECT n, gpu_class_id('bench.matmul', {model}, NULL, NULL, NULL, ARRAY['m' || n], NULL, NULL, NULL, {budget}) AS id
    FROM generate_series(0, {classes} - 1) n),
job AS (
  INSERT INTO gpu_job (id, client_id, kind, state, priority, job_class_id, input, artifacts, digest, salt, max_price,
                       surcharge_bps, created_at, expires_at, attempts, rank)
  SELECT uuidv7(), md5('client' || {client})::uuid, 'bench.matmul', 'queued', 0, class.id, '{{"n": 8}}', '{{}}',
         '\\xab', '\\xcd', {budget}, 0, clock_timestamp(), clock_timestamp() + interval '1 day', 0, {rank}
    FROM generate_series(1, {count}) i JOIN class ON class.n = mod(i, {classes})
  RETURNING *)
INSERT INTO gpu_job_queue (job_id, client_id, priority, job_class_id, rank, since, max_price, expires_at)
SELECT id, client_id, 0, job_class_id, rank, created_at, max_price, expires_at FROM job
"""
_MATCHING: dict[str, Any] = {
    "model": "NULL", "budget": "10000000000000000::numeric", "classes": CLASSES,
    "client": "mod(i, 1000)", "rank": "1000000000 + i * 1000::bigint",
}  # fmt: skip
_AHEAD = {"rank": "i"}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=1_000_000)
    options.add_argument("--claims", type=int, default=500)
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    from bench.results import at_most, under

    keys = _miners()
    rows = []
    for what, parts in _shapes(arguments.jobs).items():
        (half, few), (median, many) = (
            _claims(parts(count), keys, arguments.claims) for count in (SMALL, arguments.jobs)
        )
        print(
            json.dumps({"what": what, SMALL: {"p50": half, "p95": few}, "all": {"p50": median, "p95": many}}),
            flush=True,
        )
        rows.append(under(f"claim p95, {arguments.jobs} jobs queued: {what}", many, "ms", 10))
        rows.append(at_most(f"the same beside {SMALL} jobs", many, "ms", few, 2))
    print(json.dumps({"name": "claims", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


def _shapes(jobs: int) -> dict[str, Any]:
    """What is in the queue -> for a number of jobs, the fillings that make it."""
    few = _MATCHING | {"count": SMALL, "client": "'few' || mod(i, 20)"}
    return {
        "all match": lambda n: [_MATCHING | {"count": n}],
        "those at the head ask for another model": lambda n: [_MATCHING | _AHEAD | {"model": "'x'", "count": n}, few],
        "those at the head pay too little": lambda n: [_MATCHING | _AHEAD | {"budget": "1::numeric", "count": n}, few],
        "one client has 99 %": lambda n: [
            _MATCHING | {"client": "'hog'", "classes": 1, "count": n - n // 100},
            _MATCHING | {"classes": 1, "count": n // 100},
        ],
    }


def _miners() -> list[Any]:
    from aitbc.core.testing import cast

    models = tuple(f"m{n}" for n in range(CLASSES))
    found = [cast.seller(f"m{n}", price="0.0001", concurrency=1000, models=models) for n in range(MINERS)]
    return [seller.principal.key_id for seller in found]


def _claims(parts: list[dict[str, Any]], keys: list[Any], claims: int) -> tuple[float, float]:
    """Milliseconds of a claim: median and 95th percentile. No more than half of the smallest queue is claimed."""
    from django.db import connections

    with connections["owner"].cursor() as owner:
        owner.execute(_CLEAR)
        for part in parts:
            owner.execute(_FILL.format(**part))
        owner.execute("VACUUM ANALYZE gpu_job_queue, gpu_job, gpu_job_class")  # what autovacuum does within a minute
    times = sorted(_claim(key) for key in itertools.islice(itertools.cycle(keys), min(claims, SMALL // 2)))
    return round(times[len(times) // 2] * 1000, 3), round(times[int(len(times) * 0.95)] * 1000, 3)


def _claim(key: Any) -> float:
    """Seconds of a claim, which must lease exactly one job."""
    from apps.gpu.services import leases

    begun = time.perf_counter()
    found = leases.claim(key=key, most=1, kinds=None)
    took = time.perf_counter() - begun
    if len(json.loads(found)) != 1:
        raise RuntimeError(f"a claim leased no job: {found[:200]}")
    return took


if __name__ == "__main__":
    sys.exit(main())
