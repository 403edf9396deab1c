"""The ledger beside pgbench's TPC-B-like script on the same server in the same run. `make bench NAME=ledger`.

A single transfer is idempotent by its client-made id and writes its event in the same transaction; a keyed
one also keeps an HTTP route's Idempotency-Key and answer, step by step as a route does. A batch is one call
with 100 transfers, idempotent by their ids, and one event. Ends with one JSON line.
"""

import argparse
import json
import sys
import time

from bench import platform

TPCB = "aitbc_tpcb"
SCALE = 50
ACCOUNTS = 30_000
CONNECTIONS = 16
ITEMS = 100

_SINGLE = r"""
\set d random(0, {last})
\set c random(0, {last})
\set k random(1, 9000000000000000000)
WITH moved AS (
  SELECT ledger_apply(ARRAY[uuidv7()], ARRAY['transfer'], ARRAY[{first} + :d], ARRAY[{first} + :c],
                      ARRAY[1::numeric], ARRAY[NULL::uuid], ARRAY['bench'], ARRAY[NULL::uuid]) AS codes)
INSERT INTO core_outbox
  (event_id, event, aggregate, payload, attempts, dead, last_error, next_attempt_at, created_at)
SELECT uuidv7(), 'bench.moved', :k::text, '{{}}', 0, false, '', clock_timestamp(), clock_timestamp()
  FROM moved WHERE codes = ARRAY['ok'];
"""
_KEYED = r"""
\set d random(0, {last})
\set c random(0, {last})
\set k random(1, 9000000000000000000)
BEGIN;
SELECT state FROM core_idempotency_begin('{user}', 'bench', :k::text, 'digest');
SELECT ledger_apply(ARRAY[uuidv7()], ARRAY['transfer'], ARRAY[{first} + :d], ARRAY[{first} + :c],
                    ARRAY[1::numeric], ARRAY[NULL::uuid], ARRAY['bench'], ARRAY[NULL::uuid]);
INSERT INTO core_outbox
  (event_id, event, aggregate, payload, attempts, dead, last_error, next_attempt_at, created_at)
VALUES (uuidv7(), 'bench.moved', :k::text, '{{}}', 0, false, '', clock_timestamp(), clock_timestamp());
SELECT core_idempotency_store('{user}', 'bench', :k::text, 'digest', 201, '{{}}');
COMMIT;
"""
_BATCH = r"""
\set k random(1, 9000000000000000000)
BEGIN;
SELECT ledger_apply(array_agg(uuidv7()), array_agg('transfer'::text),
                    array_agg({first} + floor(random() * {last})::bigint), array_agg({credit}),
                    array_agg(1::numeric), array_agg(NULL::uuid), array_agg('bench'::text),
                    array_agg(NULL::uuid)) FROM generate_series(1, {items});
INSERT INTO core_outbox
  (event_id, event, aggregate, payload, attempts, dead, last_error, next_attempt_at, created_at)
VALUES (uuidv7(), 'bench.moved', :k::text, '{{}}', 0, false, '', clock_timestamp(), clock_timestamp());
COMMIT;
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=15)
    options.add_argument("--entries", type=int, default=1_000_000, help="size of the audited ledger")
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    from bench import pgbench
    from bench.results import at_least, under

    first = _accounts()
    _say(f"pgbench -i -s {SCALE}")
    _tpcb()
    names = {"user": "00000000-0000-7000-8000-000000000001", "first": first, "last": ACCOUNTS - 1}
    cold = _BATCH.format(**names, items=ITEMS, credit=f"{first} + floor(random() * {ACCOUNTS})::bigint")
    hot = _BATCH.format(**names, items=ITEMS, credit=f"{first}::bigint")
    figures = {}
    for name, script, database in (
        ("tpcb", None, TPCB),
        ("single", _SINGLE.format(**names), None),
        ("keyed", _KEYED.format(**names), None),
        ("cold", cold, None),
        ("hot", hot, None),
    ):
        scripts = [script] if script else []
        figures[name] = pgbench.run(scripts, seconds=arguments.seconds, clients=CONNECTIONS, database=database)
        _say(f"{name}: {figures[name]} transactions/s")
    batched, heated = figures["cold"] * ITEMS, figures["hot"] * ITEMS
    _fill(first, arguments.entries)
    rows = [
        at_least("single transfers", figures["single"], "1/s", figures["tpcb"], 1),
        at_least("keyed transfers, six statements", figures["keyed"], "1/s", figures["tpcb"], None),
        at_least("transfers in batches", round(batched), "1/s", figures["tpcb"], 2),
        at_least("batches on one hot account", round(heated), "1/s", round(batched), 0.8),
        under(f"audit of {arguments.entries} entries", _audited(), "s", 5),
    ]
    print(json.dumps({"name": "ledger", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


def _say(text: str) -> None:
    print(text, flush=True)


def _accounts() -> int:
    """Accounts with neighbouring ids and a balance each, paid in from outside; the first id."""
    from django.db import connections

    from apps.trading.services import ledger

    with connections["owner"].cursor() as owner:
        owner.execute(
            """INSERT INTO trading_account
                 (owner_id, asset_id, kind, chain, shard, posted, held, overdraft, created_at)
               SELECT NULL, 'AIT', 'available', 'bench', n, 0, 0, false, clock_timestamp()
                 FROM generate_series(0, %s) n RETURNING id""",
            [ACCOUNTS - 1],
        )
        first = min(row[0] for row in owner.fetchall())
    outside = ledger.account_id(owner=None, kind="external", chain="bench")
    for start in range(first, first + ACCOUNTS, 1000):
        _apply("%s::bigint", "n", 10**9, outside, start, start + 999)
    return first


def _apply(debit: str, credit: str, amount: int, *params: int) -> None:
    from aitbc.core import db

    codes = db.value(
        f"""SELECT ledger_apply(array_agg(uuidv7()), array_agg('transfer'::text), array_agg({debit}),
                   array_agg({credit}), array_agg({amount}::numeric), array_agg(NULL::uuid),
                   array_agg('bench'::text), array_agg(NULL::uuid))
              FROM generate_series(%s::bigint, %s::bigint) n""",
        params,
    )
    assert set(codes) == {"ok"}, set(codes)


def _tpcb() -> None:
    import psycopg

    from aitbc import stack
    from bench import pgbench

    with psycopg.connect(stack.discover().database_owner_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {TPCB} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {TPCB}")
    done = pgbench.tool("-i", "-q", "-s", str(SCALE), database=TPCB)
    assert done.returncode == 0, done.stderr[-2000:]


def _fill(first: int, entries: int) -> None:
    """More transfers, until the ledger has the size that is to be audited."""
    from aitbc.core import db
    from apps.trading.services import audit, journal

    while (missing := entries - audit.size()) > 0:
        _say(f"{missing} entries to go")
        for _ in range(min(100, missing // 2000 + 1)):
            _apply(f"{first}::bigint + n", f"{first}::bigint + (n * 7 + 1) %% {ACCOUNTS}", 1, 1, 1000)
        journal.seal()
    db.rows("ANALYZE")


def _audited() -> float:
    from apps.trading.services.audit import audit

    begun = time.perf_counter()
    if findings := audit():
        sys.exit(f"the ledger is not sound: {findings}")
    return round(time.perf_counter() - begun, 2)


if __name__ == "__main__":
    sys.exit(main())
