"""Order operations through the whole platform over HTTP. `make bench NAME=market`.

Sixteen clients and sixteen providers; each pair asks for a quote, accepts it, starts it and cancels it, with an
Idempotency-Key each: four writes a round, all with money. The bar is 500 a second for 60 seconds, none lost, a burst
that Akash asks of its next chain as a requirement. Afterwards every acknowledged operation is looked up.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import uvloop

from bench import platform
from bench.cycle import quantile
from bench.http import Connection
from bench.results import at_least, under

PAIRS, REFERENCE = 16, 500
PRICE = {"on_demand": {"amount": "0.001", "asset": "AIT"}}


@dataclass
class Seen:
    """Acknowledged operations by name, their times in seconds, and the orders' last known states."""

    times: dict[str, list[float]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def operations(self) -> int:
        return sum(map(len, self.times.values()))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--processes", type=int, default=2)
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    pairs = _pairs()
    with platform.web(arguments.processes) as (port, _):
        uvloop.run(_trade(port, pairs, 2))
        seen = uvloop.run(_trade(port, pairs, arguments.seconds))
    lost = _lost(seen)
    rate = round(seen.operations / arguments.seconds, 1)
    for name, times in seen.times.items():
        print(
            json.dumps({"what": name, "n": len(times), "p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99)})
        )
    if seen.refusals:
        print(json.dumps({"refused": dict(seen.refusals)}))
    results = [at_least("order operations", rate, "1/s", REFERENCE, 1), under("operations lost", lost, "operations", 1)]
    print(json.dumps({"name": "market", "results": results}))
    return 0 if all(r["ok"] for r in results) else 1


def _pairs() -> list[tuple[str, str, str]]:
    """(client's token, miner's token, offer id) of each pair."""
    from aitbc.core.testing import cast
    from apps.gpu.services.miners import DeviceClaim
    from apps.marketplace.services import offers
    from apps.marketplace.services.offers import NewOffer

    found = []
    for number in range(PAIRS):
        client = cast.person(f"client{number}")
        cast.fund(client.id, 10**9 * cast.AIT)
        card = DeviceClaim(uuid=f"GPU-{uuid4()}", kind="cuda", model="NVIDIA H200", memory_mb=143_771, cuda="12.8")
        seller = cast.seller(f"miner{number}", device=card)
        listed = offers.list_offer(seller=seller.principal, offer=NewOffer(price="0.001"))
        found.append((client.token, seller.token, str(listed.pk)))
    return found


async def _trade(port: int, pairs: list[tuple[str, str, str]], seconds: float) -> Seen:
    seen, end = Seen(), time.perf_counter() + seconds
    await asyncio.gather(*(_rounds(port, *pair, end, seen) for pair in pairs))
    return seen


async def _rounds(port: int, client: str, miner: str, offer: str, end: float, seen: Seen) -> None:
    connection = await Connection.open("127.0.0.1", port)

    async def call(name: str, token: str, path: str, body: Any = None) -> Any:
        begun = time.perf_counter()
        key = f"idempotency-key: {uuid4()}\r\n"
        status, answer = await connection.request("POST", path, token, {} if body is None else body, key)
        if status not in (200, 201):
            seen.refusals[f"{name}: {answer['code']}"] += 1
            raise RuntimeError(answer)
        seen.times.setdefault(name, []).append(time.perf_counter() - begun)
        return answer

    while time.perf_counter() < end:
        quote = await call("quote", client, "/v1/marketplace/quotes", {"offer_id": offer, "seconds": 3600})
        one = f"/v1/marketplace/orders/{quote['id']}"
        order = await call("accept", client, f"/v1/marketplace/quotes/{quote['id']}/accept")
        seen.states[order["id"]] = order["state"]
        order = await call("start", miner, f"/v1/miners/orders/{order['id']}/start")
        seen.states[order["id"]] = order["state"]
        order = await call("cancel", client, f"{one}/cancel")
        seen.states[order["id"]] = order["state"]


def _lost(seen: Seen) -> int:
    """Acknowledged orders that are not what was acknowledged; and the books must hold."""
    from apps.marketplace.models import Order
    from apps.trading.services.audit import audit

    if findings := audit():
        sys.exit(f"the ledger is not sound after the benchmark: {findings}")
    stored = {str(pk): state for pk, state in Order.objects.values_list("pk", "state")}
    return sum(stored.get(order) != state for order, state in seen.states.items())


if __name__ == "__main__":
    sys.exit(main())
