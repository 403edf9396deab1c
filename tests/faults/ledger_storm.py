"""Workers move money while they are killed and the database is stopped under them. `python -m` with a report.

Each worker makes the id of a transfer before it sends it, and notes the acknowledged ones; after a kill its
successor sends the first id that nobody acknowledged again. The report is one JSON line.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from uuid import UUID, uuid5

import psutil

NAMESPACE = UUID("5d3a3a5e-9d4b-5a52-8a0e-4f0c3c1b6a11")
WORKERS = 4
FUNDS = 10**9


class Worker:
    """One line of transfers, whichever process works on it."""

    def __init__(self, number: int, seed: int, transfers: int) -> None:
        self.number, self.seed, self.transfers = number, seed, transfers
        self.acknowledged = 0
        self.kills = 0
        self.pid = 0

    def item(self, nth: int, accounts: list[int]) -> "object":
        """The same for the same place in the line: half of them pay the hot account, in both directions."""
        from apps.trading.services.ledger import Item

        rng = random.Random(f"{self.seed}-{self.number}-{nth}")
        pair = rng.sample(accounts[1:], 2)
        if rng.random() < 0.5:
            pair[rng.randrange(2)] = accounts[0]
        made = uuid5(NAMESPACE, f"{self.seed}-{self.number}-{nth}")
        return Item(id=made, action="transfer", kind="storm", debit=pair[0], credit=pair[1], amount=1)

    def start(self, accounts: list[int]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            self._work(writing, accounts)
            os._exit(0)
        os.close(writing)
        os.set_blocking(reading, False)
        self.pipe = reading

    def _work(self, pipe: int, accounts: list[int]) -> None:
        from django.db import Error, connections

        from apps.trading.services import ledger

        connections.close_all()
        for nth in range(self.acknowledged, self.transfers):
            while True:
                try:
                    (code,) = ledger.apply([self.item(nth, accounts)])
                    break
                except Error:  # the database is down: the answer is unknown, the id stays
                    connections.close_all()
                    time.sleep(0.05)
            assert code in ("ok", "exists"), code
            os.write(pipe, b".")

    def read(self) -> int:
        try:
            seen = len(os.read(self.pipe, 65536))
        except BlockingIOError:
            seen = 0
        self.acknowledged += seen
        return seen

    def kill(self, accounts: list[int]) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        while self.read():  # what it wrote before it died counts
            pass
        os.close(self.pipe)
        self.kills += 1
        self.start(accounts)

    def done(self) -> bool:
        return self.acknowledged == self.transfers


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("--seed", "--transfers", "--kills", "--stops"):
        options.add_argument(name, type=int, required=True)
    given = options.parse_args()
    import django

    django.setup()
    accounts = open_accounts()
    workers = [Worker(n, given.seed, given.transfers // WORKERS) for n in range(WORKERS)]
    for worker in workers:
        worker.start(accounts)
    outages = storm(workers, accounts, given)
    print(json.dumps(report(workers, accounts) | {"outages": outages}))  # noqa: T201
    return 0


def open_accounts() -> list[int]:
    from django.db import connections

    from aitbc.accounts.models import User
    from aitbc.core.ids import uuid7
    from apps.trading.services import ledger

    outside = ledger.account_id(owner=None, kind="external", chain="storm")
    accounts = []
    for n in range(101):
        owner = User.objects.create_user(f"storm{n}@example.com")
        accounts.append(ledger.account_id(owner=owner.pk, kind="available"))
        ledger.apply_all(
            [
                ledger.Item(
                    id=uuid7(), action="transfer", kind="storm.fund", debit=outside, credit=accounts[-1],
                    amount=FUNDS,
                )
            ]
        )  # fmt: skip
    connections.close_all()
    return accounts


def storm(workers: list[Worker], accounts: list[int], given: argparse.Namespace) -> list[float]:
    """Kill at random moments, spread over the whole work; seconds from each stop to the next answer."""
    rng = random.Random(given.seed)
    total = given.transfers // WORKERS * WORKERS
    moments = sorted(rng.sample(range(total * 95 // 100), given.kills + given.stops))
    stops = set(rng.sample(moments, given.stops))
    outages = []
    while not all(worker.done() for worker in workers):
        for worker in workers:
            worker.read()
        while moments and sum(worker.acknowledged for worker in workers) >= moments[0]:
            if moments.pop(0) in stops:
                outages.append(stop_database(workers))
            else:
                busy = [worker for worker in workers if not worker.done()]
                rng.choice(busy).kill(accounts)
        time.sleep(rng.uniform(0.0005, 0.005))
    return outages


def stop_database(workers: list[Worker]) -> float:
    """As `pg_ctl stop -m immediate` does it, started again, until somebody has an answer."""
    from aitbc import stack
    from aitbc.stack.paths import current
    from aitbc.stack.postgres import Postgres

    for worker in workers:
        worker.read()
    begun = time.monotonic()
    server = psutil.Process(Postgres(current()).pid)
    server.send_signal(signal.SIGQUIT)
    server.wait(30)
    for worker in workers:  # answers from before the stop
        worker.read()
    stack.up(("postgres",))
    while not any(worker.read() for worker in workers) and not all(worker.done() for worker in workers):
        assert time.monotonic() < begun + 60, "nobody works after a stop of the database"
        time.sleep(0.005)
    return round(time.monotonic() - begun, 2)


def report(workers: list[Worker], accounts: list[int]) -> dict[str, object]:
    from aitbc.core import db
    from apps.trading.services.audit import audit

    for worker in workers:
        os.waitpid(worker.pid, 0)
    expected = dict.fromkeys(accounts, FUNDS)
    ids = []
    for worker in workers:
        for nth in range(worker.transfers):
            item = worker.item(nth, accounts)
            ids.append(item.id)
            expected[item.debit] -= 1
            expected[item.credit] += 1
    found = dict(db.rows("SELECT id, posted FROM trading_account WHERE id = ANY (%s)", (accounts,)))
    return {
        "kills": sum(worker.kills for worker in workers),
        "acknowledged": sum(worker.acknowledged for worker in workers),
        "there": db.value("SELECT count(*) FROM trading_transfer WHERE id = ANY (%s::uuid[])", (ids,)),
        "all": db.value("SELECT count(*) FROM trading_transfer WHERE kind = 'storm'"),
        "balances": found == expected,
        "findings": [finding.rule for finding in audit()],
    }


if __name__ == "__main__":
    sys.exit(main())
