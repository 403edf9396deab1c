"""What the platform adds to a job of ten seconds: `make bench NAME=runtime`; `ARGS="--seconds 2"` for a short form.

A real miner's worker, over HTTP, runs one `bench.matmul` after another in its sandbox. Overhead is the wall
time from the poll to the accepted result less the runtime's own seconds, over ten seconds. Ends with one
JSON line.
"""

import argparse
import contextlib
import json
import statistics
import time
from typing import Any

from bench import platform
from bench.results import under

JOB_SECONDS = 10.0
BAR_PERCENT = 1.0
N = 1024


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=JOB_SECONDS, help="length of each job")
    options.add_argument("--jobs", type=int, default=5)
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    with platform.web(1) as (port, _):
        added = _measure(port, arguments.seconds, arguments.jobs)
    percent = [100 * seconds / JOB_SECONDS for seconds in added]
    print(json.dumps({"what": "seconds added", "each": [round(s, 4) for s in added]}), flush=True)
    results = [under("platform overhead on a 10 s job, worst", round(max(percent), 3), "%", BAR_PERCENT)]
    results.append(under("the same, median", round(statistics.median(percent), 3), "%", BAR_PERCENT))
    print(json.dumps({"name": "runtime", "results": results}))
    return 0 if all(r["ok"] for r in results) else 1


def _measure(port: int, seconds: float, jobs: int) -> list[float]:
    """Seconds that were not the runtime's, for each job after a first one that warms all up."""
    from django.conf import settings

    from aitbc.chain.signing import address_of
    from aitbc.core.testing import cast
    from apps.gpu.agent.identity import Identity
    from apps.gpu.agent.sandbox import MIB, Sandbox, Slot
    from apps.gpu.agent.transport import HttpTransport
    from apps.gpu.agent.work import Lease, Worker

    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, 1000 * cast.AIT)
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(contextlib.closing(Sandbox(threads=1)))
        web = stack.enter_context(contextlib.closing(HttpTransport(f"http://127.0.0.1:{port}", mike.token)))
        worker = Worker(web, Identity(address_of(mike.private_key), mike.private_key), sandbox, 1024 * MIB)

        def one(repeats: int) -> tuple[float, float]:
            job = _submit(alice, repeats)
            begun = time.perf_counter()
            (lease,) = web.poll(max_jobs=1, wait_seconds=0, kinds=["bench.matmul"])
            ended = worker.perform(Lease(lease), Slot(), chain_id=settings.CHAIN_ID)
            wall = time.perf_counter() - begun
            if ended != "completed":
                raise RuntimeError(f"the job {ended}")
            own = json.loads(alice.get(f"/v1/jobs/{job}/result").content)["metrics"]["runtime_seconds"]
            return wall, own

        _, own = one(20)
        repeats = max(1, min(1000, round(20 * seconds / own)))
        print(json.dumps({"what": "calibrated", "repeats": repeats, "sandbox": sandbox.tier}), flush=True)
        return [wall - own for wall, own in (one(repeats) for _ in range(jobs))]


def _submit(client: Any, repeats: int) -> str:
    given = {"n": N, "seed": 1, "dtype": "float32", "repeats": repeats}
    body = {"kind": "bench.matmul", "input": given, "max_price": {"amount": "1", "asset": "AIT"}}
    return str(json.loads(client.post("/v1/jobs", body).content)["id"])


if __name__ == "__main__":
    raise SystemExit(main())
