"""A million offers searched over HTTP. `make bench NAME=search`, shorter with `ARGS="--offers 50000 --rounds 5"`.

Ten queries fixed in bench/queries.txt, each with 50 offers on a page, among 1,000 offers and then among a million.
The offers are made by set-based SQL: 24 models, 12 regions, prices that follow the model, facts that are missing here
and there; the seed is fixed. A query's time is one request by one client, the queries mixed. Ends with one JSON line.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import platform
from bench.cycle import quantile
from bench.http import Connection
from bench.results import at_most, under

MODELS = (  # name, kind, GiB, TFLOPS, price per hour, dl_score
    ("NVIDIA H200", "cuda", 141, 67, 3.2, 900), ("NVIDIA H100 80GB HBM3", "cuda", 80, 66, 2.4, 800),
    ("NVIDIA B200", "cuda", 180, 80, 4.5, 1400), ("NVIDIA GH200 480GB", "cuda", 96, 67, 2.6, 850),
    ("NVIDIA A100-SXM4-80GB", "cuda", 80, 19, 1.3, 400), ("NVIDIA A100-SXM4-40GB", "cuda", 40, 19, 0.9, 380),
    ("NVIDIA A100-PCIE-80GB", "cuda", 80, 19, 1.2, 390), ("NVIDIA L40S", "cuda", 45, 91, 0.9, 350),
    ("NVIDIA L40", "cuda", 45, 90, 0.8, 320), ("NVIDIA L4", "cuda", 22, 30, 0.4, 120),
    ("NVIDIA A40", "cuda", 45, 37, 0.4, 200), ("NVIDIA RTX A6000", "cuda", 48, 38, 0.5, 210),
    ("NVIDIA RTX 6000 Ada Generation", "cuda", 48, 91, 0.8, 330), ("NVIDIA RTX A5000", "cuda", 24, 27, 0.25, 150),
    ("NVIDIA RTX A4000", "cuda", 16, 19, 0.15, 100), ("NVIDIA GeForce RTX 5090", "cuda", 32, 104, 0.7, 420),
    ("NVIDIA RTX 4090", "cuda", 24, 82, 0.4, 300), ("NVIDIA GeForce RTX 4080", "cuda", 16, 48, 0.25, 200),
    ("NVIDIA GeForce RTX 3090", "cuda", 24, 35, 0.2, 170), ("NVIDIA GeForce RTX 3080", "cuda", 10, 29, 0.12, 130),
    ("NVIDIA Tesla V100-SXM2-32GB", "cuda", 32, 15, 0.2, 90), ("AMD Instinct MI300X", "rocm", 192, 81, 2.0, 700),
    ("AMD Instinct MI250X", "rocm", 128, 47, 1.0, 300), ("AMD EPYC 9654", "cpu", 64, 2, 0.1, 5),
)  # fmt: skip
REGIONS = ("eu-west", "eu-north", "eu-south", "us-east", "us-west", "us-central", "asia-east", "asia-south", "sa-east",
           "af-south", "oceania", "me-central")  # fmt: skip
KINDS = ("bench.matmul", "onnx.infer", "vision.ocr", "llm.chat", "text.embed", "container.run")
PAGE, DEEP = 50, 40
CLASSES = """
INSERT INTO marketplace_offer_class (model, device_kind, memory_mb, tflops_min, tflops_max, memory_gbps_min,
  memory_gbps_max, dl_score_min, dl_score_max, price_min, price_max)
SELECT lower(name), device, gib * 1024, tflops * 0.9, tflops, tflops * 20, tflops * 20, dl * 0.9, dl,
       floor(hour * 0.6 / 3600 * 1e18), floor(hour * 1.6 / 3600 * 1e18)
  FROM unnest(%(names)s::text[], %(device)s::text[], %(gib)s::int[], %(tflops)s::float8[], %(hour)s::float8[],
         %(dl)s::float8[]) AS t(name, device, gib, tflops, hour, dl) ON CONFLICT DO NOTHING
"""
FILL = """
INSERT INTO marketplace_offer (id, miner_id, model, device_count, memory_mb, price, asset, region, kinds, state, reason,
  verified, available_from, created_at, updated_at, device_kind, cuda, driver, tflops, memory_gbps, dl_score,
  reliability, reliability_low, reliability_high, reliability_samples, concurrency, sandbox, first_party,
  spot_price, class_id)
SELECT uuidv7(), %(miner)s, m.name, (ARRAY[1,1,1,2,2,4,8])[1 + (r.a * 7)::int %% 7], m.gib * 1024, r.price, 'AIT',
  (%(regions)s::text[])[1 + floor(r.b * r.b * 12)::int], (%(kinds)s::text[])[1:1 + floor(r.c * 6)::int],
  CASE WHEN r.d < 0.95 THEN 'listed' ELSE 'paused' END, CASE WHEN r.d < 0.95 THEN '' ELSE 'seller' END,
  r.e < 0.4, now(), now() - r.a * interval '90 days', now(), m.kind,
  CASE WHEN m.kind = 'cuda' THEN 12000 + floor(r.c * 9)::int END,
  '5' || 50 + floor(r.b * 30), CASE WHEN r.e < 0.7 THEN m.tflops * (0.9 + r.f / 10) END, m.tflops * 20,
  CASE WHEN r.e < 0.7 THEN m.dl * (0.9 + r.f / 10) END, x.score, x.score - 0.02, least(1, x.score + 0.01), 1000,
  1, 'bubblewrap', false, CASE WHEN r.c < 0.5 THEN floor(r.price / 2) END,
  (SELECT id FROM marketplace_offer_class c
    WHERE (c.model, c.device_kind, c.memory_mb) = (lower(m.name), m.kind, m.gib * 1024))
  FROM (SELECT i, random() a, random() b, random() c, random() d, random() e, random() f, random() g, random() h
          FROM generate_series(1, %(offers)s) i) q
  JOIN (SELECT row_number() OVER () - 1 AS nth, t.* FROM unnest(%(names)s::text[], %(device)s::text[], %(gib)s::int[],
          %(tflops)s::float8[], %(hour)s::float8[], %(dl)s::float8[]) AS t(name, kind, gib, tflops, hour, dl)) m
    ON m.nth = floor(q.g * %(models)s)::int
  CROSS JOIN LATERAL (SELECT q.*, floor(m.hour * (0.6 + q.h) / 3600 * 1e18)::numeric AS price) r
  CROSS JOIN LATERAL (SELECT CASE WHEN r.f > 0.1 THEN 1 - power(r.a, 4) * 0.4 END AS score) x
"""
DEVICES = """
WITH added AS (
  INSERT INTO gpu_device (id, miner_id, uuid, kind, model, memory_mb, cuda, verified, active, refuted, doubt)
  SELECT uuidv7(), o.miner_id, 'GPU-' || o.id || n, o.device_kind, o.model, o.memory_mb, '12.8', o.verified,
         true, '', ''
    FROM marketplace_offer o CROSS JOIN generate_series(1, o.device_count) n
   WHERE NOT EXISTS (SELECT FROM marketplace_offer_device d WHERE d.offer_id = o.id) RETURNING id, uuid)
INSERT INTO marketplace_offer_device (offer_id, device_id, state)
SELECT o.id, a.id, o.state FROM added a JOIN marketplace_offer o ON o.id = substr(a.uuid, 5, 36)::uuid
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--offers", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=40, help="times that each query is sent")
    options.add_argument("--each", action="store_true", help="print what each query took")
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    from aitbc.core.testing import cast

    miner = cast.seller("bench").miner_id
    few, _ = _measure(miner, 1_000, arguments)
    many, memory = _measure(miner, arguments.offers, arguments)
    rows = [
        under(f"search among {arguments.offers} offers over HTTP, p95", many, "ms", 50),
        at_most("p95 as among 1,000 offers", many, "ms", few, 2),
        under("memory of the web process", round(memory), "MB", 300),
    ]
    print(json.dumps({"name": "search", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


def _measure(miner: Any, offers: int, arguments: argparse.Namespace) -> tuple[float, float]:
    """p95 in milliseconds and the web worker's memory in MB, once there are `offers`."""
    import psutil

    begun = time.perf_counter()
    _fill(miner, offers)
    print(f"{offers} offers after {time.perf_counter() - begun:.0f} s", flush=True)
    with platform.web(1) as (port, server):
        times = asyncio.run(_search(port, arguments.rounds))
        processes = psutil.Process(server.pid).children(recursive=True)
        memory = max(process.memory_info().rss for process in processes) / 1e6
    for (sort, q), taken in times.items() if arguments.each else ():
        print(f"{quantile(taken, 0.5):8.1f} {quantile(taken, 0.95):8.1f} ms  {sort}: {q}", flush=True)
    found = quantile([one for taken in times.values() for one in taken], 0.95)
    assert found is not None
    return found, memory


def _fill(miner: Any, offers: int) -> None:
    import psycopg
    from django.conf import settings

    names, device, gib, tflops, hour, dl = (list(column) for column in zip(*MODELS, strict=True))
    values = {"miner": miner, "regions": list(REGIONS), "kinds": list(KINDS), "models": len(MODELS), "names": names}
    values |= {"device": device, "gib": gib, "tflops": tflops, "hour": hour, "dl": dl}
    with psycopg.connect(settings.DATABASE_OWNER_URL, autocommit=True) as owner:
        (there,) = owner.execute("SELECT count(*) FROM marketplace_offer").fetchone() or (0,)
        owner.execute("SELECT setseed(0.25)")
        owner.execute("SET session_replication_role = replica")  # no triggers row by row: what they would do is here
        owner.execute(CLASSES, values)
        owner.execute(FILL, values | {"offers": offers - there})
        owner.execute(DEVICES)
        owner.execute("VACUUM (ANALYZE) marketplace_offer, marketplace_offer_device, gpu_device")


def queries() -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / "queries.txt").read_text().splitlines()
    return [(line.partition("\t")[0], line.partition("\t")[2]) for line in lines if not line.startswith("#")]


async def _search(port: int, rounds: int) -> dict[tuple[str, str], list[float]]:
    connection = await Connection.open("127.0.0.1", port)
    paths = {query: await _path(connection, *query) for query in queries()}
    assert len(paths) == 10
    order = [query for query in paths for _ in range(rounds)]
    random.Random(1).shuffle(order)
    times: dict[tuple[str, str], list[float]] = {query: [] for query in paths}
    for query in order:
        begun = time.perf_counter()
        await _get(connection, paths[query])
        times[query].append(time.perf_counter() - begun)
    return times


async def _path(connection: Connection, sort: str, q: str) -> str:
    """The query's address; a deep one continues where the fortieth page of 200 ended, or the last before it."""
    deep, sort = sort.startswith("deep "), sort.removeprefix("deep ")
    path = f"/v1/marketplace/offers?{urlencode({'q': q, 'sort': sort, 'limit': PAGE})}"
    cursor = ""
    for _ in range(DEEP if deep else 1):
        page = await _get(connection, path.replace(f"limit={PAGE}", "limit=200") + cursor)
        if not page["next"] or not deep:
            break
        cursor = f"&cursor={page['next']}"
    return path + cursor


async def _get(connection: Connection, path: str) -> Any:
    status, page = await connection.request("GET", path)
    assert status == 200, (path, page)
    return page


if __name__ == "__main__":
    sys.exit(main())
