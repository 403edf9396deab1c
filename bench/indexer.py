"""How fast the indexer reads a chain, and how soon it has repaired a fork. `make bench NAME=indexer`.

The node is a JSON-RPC server in a process of its own, on this machine, with a generated chain: consistent
parent hashes, log blooms and receipts roots, 25 transactions with 4 logs of the token in each block. Reading
means proving each block's receipts, storing blocks and logs in the chain database and, once they are final,
decoded events in PostgreSQL. Ends with one JSON line.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from multiprocessing.connection import Connection

from bench import platform

NETWORK, CHAIN_ID, DEPTH, FORK = "bench-indexer", 31337, 64, 32
TRANSACTIONS, LOGS = 25, 4  # per block, per transaction


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--logs", type=int, default=50_000)
    arguments = options.parse_args()
    blocks = -(-arguments.logs // (TRANSACTIONS * LOGS))
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    node = multiprocessing.get_context("spawn").Process(target=_node, args=(theirs, blocks), daemon=True)
    node.start()
    try:
        return _measure(ours, arguments.logs)
    finally:
        node.terminate()
        node.join()


def _measure(node: Connection, logs: int) -> int:
    url, token = node.recv()
    shutil.rmtree(platform.ROOT / "var" / "chain" / NETWORK, ignore_errors=True)
    os.environ |= {
        "CHAIN_NETWORK": NETWORK,
        "CHAIN_RPC_URL": url,
        "CHAIN_ID": str(CHAIN_ID),
        "CHAIN_FINALITY_DEPTH": str(DEPTH),
    }
    platform.prepare()
    import django

    django.setup()
    from aitbc.chain.models import Deployment, FinalEvent, Log
    from bench.results import at_least, under

    Deployment.objects.create(network=NETWORK, name="AIT", address=token, tx_hash="0x" + "00" * 32, block_number=0)
    read, final = _read()
    assert Log.objects.count() == logs, Log.objects.count()
    events = FinalEvent.objects.count()
    _say(f"read {logs} logs in {read:.2f} s, wrote {events} final events in {final:.2f} s")
    node.send(FORK)
    node.recv()
    changed = FORK * TRANSACTIONS * LOGS
    repair, _ = _read()
    assert Log.objects.count() == logs + TRANSACTIONS * LOGS
    _say(f"repaired a fork of {FORK} blocks with {changed} logs in {repair:.2f} s")
    rows = [
        at_least("logs read, proven and stored", round(logs / read), "1/s", 5_000, 1),
        at_least("the same, and decoded once final", round(logs / (read + final * logs / events)), "1/s", 5_000, 1),
        under(f"repair of a fork of {FORK} blocks with {changed} logs", round(repair, 2), "s", 5),
    ]
    print(json.dumps({"name": "indexer", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


def _read() -> tuple[float, float]:
    """Seconds of one round: into the chain database, and of what is final into PostgreSQL."""
    from aitbc.chain.client import client
    from aitbc.chain.worker import Worker

    class Timed(Worker):
        def _repeat(self, step):  # type: ignore[no-untyped-def]
            self.read = time.perf_counter()
            super()._repeat(step)

    worker = Timed(client())
    begun = time.perf_counter()
    worker._index()
    return worker.read - begun, time.perf_counter() - worker.read


def _say(text: str) -> None:
    print(text, flush=True)


def _node(orders: Connection, blocks: int) -> None:
    """The node's process: tells where it is, then forks as deep as it is told."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "aitbc.settings.test"
    import django

    django.setup()
    from aitbc.chain.tests.rpc_server import Reply, ok, serving
    from aitbc.chain.tests.simulated import SimulatedChain, address, transfer

    chain, token = SimulatedChain(random.Random(1), CHAIN_ID), address(0xA17)

    def grow(count: int) -> None:
        for _ in range(count):
            made = []
            for _ in range(TRANSACTIONS):
                moved = [transfer(token, address(1), address(chain.rng.randrange(1000)), n) for n in range(LOGS)]
                made.append(chain.transaction(*moved))
            chain.mine(made)

    grow(blocks)
    with serving(lambda payload: Reply(ok(payload, chain.answer))) as url:
        orders.send((url, token))
        while True:
            depth = orders.recv()
            chain.drop(depth)
            grow(depth + 1)
            orders.send(chain.head)


if __name__ == "__main__":
    sys.exit(main())
