"""Every rule of the ledger, checked from the entries up. A finding names the rule and one example."""

import datetime as dt
from dataclasses import dataclass

from django.db import transaction

from aitbc.core import db


@dataclass(frozen=True, slots=True)
class Finding:
    rule: str
    count: int
    example: str


class Unsound(Exception):
    """The ledger broke a rule; the findings say which."""


# Computed once for the rules that ask it.
_FOLD = """
    WITH fold AS MATERIALIZED (
      SELECT transfer_id, count(*) AS legs, sum(amount) AS total, min(amount) AS low, max(amount) AS high
        FROM trading_entry GROUP BY transfer_id)"""
# Each query returns the offenders of one rule: (example as text). No offender, no finding.
RULES: dict[str, str] = {
    "transfer_balances": """
        SELECT transfer_id::text FROM fold WHERE total <> 0""",
    "asset_sums_to_zero": """
        SELECT asset_id FROM trading_account GROUP BY asset_id HAVING sum(posted) <> 0""",
    "balance_is_fold_of_entries": """
        SELECT a.id::text FROM trading_account a
        LEFT JOIN (SELECT account_id, sum(amount) AS total FROM trading_entry GROUP BY account_id) e
          ON e.account_id = a.id WHERE a.posted <> coalesce(e.total, 0)""",
    "available_not_negative": """
        SELECT id::text FROM trading_account WHERE NOT overdraft AND posted < held""",
    "held_is_sum_of_open_holds": """
        SELECT a.id::text FROM trading_account a
        LEFT JOIN (SELECT debit_id, sum(amount) AS total FROM trading_transfer
                   WHERE state = 'pending' GROUP BY debit_id) h ON h.debit_id = a.id
        WHERE a.held <> coalesce(h.total, 0)""",
    "posted_transfer_has_its_two_entries": """
        SELECT t.id::text FROM trading_transfer t
        LEFT JOIN fold e ON e.transfer_id = t.id
        WHERE CASE WHEN t.credit_id IS NULL THEN e.legs IS NOT NULL
                   ELSE e.legs IS DISTINCT FROM 2 OR e.high <> t.amount OR e.low <> -t.amount END""",
    "entries_belong_to_the_transfer": """
        SELECT e.id::text FROM trading_entry e LEFT JOIN trading_transfer t ON t.id = e.transfer_id
        WHERE t.id IS NULL OR e.account_id NOT IN (t.debit_id, t.credit_id)
           OR (e.account_id = t.credit_id) <> (e.amount > 0)""",
    "one_resolution_per_hold": """
        SELECT h.id::text FROM trading_transfer h
        LEFT JOIN (SELECT hold, sum(amount) FILTER (WHERE state = 'posted') AS total, count(*) AS items,
                          count(*) FILTER (WHERE state <> 'posted') AS ends,
                          count(DISTINCT created_at) AS moments
                   FROM trading_transfer WHERE hold IS NOT NULL GROUP BY hold) p ON p.hold = h.id
        WHERE h.credit_id IS NULL AND h.hold IS NULL AND CASE h.state
          WHEN 'posted' THEN p.total IS NULL OR p.total > h.amount OR p.moments <> 1 OR p.ends > 0
          WHEN 'pending' THEN p.items IS NOT NULL
          ELSE p.ends IS DISTINCT FROM 1 OR p.items <> 1 END""",
    "resolution_has_its_hold": """
        SELECT t.id::text FROM trading_transfer t LEFT JOIN trading_transfer h ON h.id = t.hold
        WHERE t.hold IS NOT NULL AND (h.id IS NULL OR h.debit_id <> t.debit_id
           OR h.credit_id IS NOT NULL OR h.hold IS NOT NULL OR t.state <> h.state
           OR (t.state <> 'posted' AND t.amount <> h.amount)
           OR (t.state = 'expired' AND (h.expires_at <= t.created_at) IS NOT TRUE))""",
    "payment_agrees_with_its_hold": """
        SELECT p.id::text FROM trading_payment p LEFT JOIN trading_transfer h ON h.id = p.id
        LEFT JOIN (SELECT hold, sum(amount) AS total, sum(amount) FILTER (WHERE kind = 'job.fee') AS fee
                   FROM trading_transfer WHERE hold IS NOT NULL AND state = 'posted' GROUP BY hold) x
          ON x.hold = p.id LEFT JOIN audit_returns() r ON r.job = p.job
        WHERE h.id IS NULL OR h.amount <> p.held OR h.reference IS DISTINCT FROM p.job
           OR (p.state = 'escrowed') <> (h.state = 'pending')
           OR coalesce(x.total, 0) - coalesce(r.total, 0) <> p.released + p.fee
           OR coalesce(x.fee, 0) - coalesce(r.fee, 0) <> p.fee""",
    "dispute_agrees_with_its_payment": "SELECT * FROM audit_disputes()",
    "stream_adds_up": "SELECT * FROM audit_streams()",
    "stream_agrees_with_its_transfers": "SELECT * FROM audit_stream_transfers()",
    "stream_ends_when_its_funds_do": "SELECT * FROM audit_stream_ends()",
    "escrow_is_sum_of_open_streams": "SELECT * FROM audit_escrow()",
    "job_hold_has_its_payment": """
        SELECT h.id::text FROM trading_transfer h LEFT JOIN trading_payment p ON p.id = h.id
        WHERE h.kind = 'job.hold' AND p.id IS NULL""",
    "maturing_is_sum_of_unmatured_payments": """
        SELECT coalesce(a.owner_id, p.provider_id)::text
          FROM (SELECT owner_id, asset_id, sum(posted) AS total FROM trading_account
                 WHERE kind = 'maturing' GROUP BY owner_id, asset_id) a
          FULL JOIN (SELECT provider_id, asset, sum(released) AS total FROM trading_payment
                      WHERE released > 0 AND matured_at IS NULL GROUP BY provider_id, asset) p
            ON p.provider_id = a.owner_id AND p.asset = a.asset_id
         WHERE coalesce(a.total, 0) <> coalesce(p.total, 0)""",
    "checkpoint_is_fold_of_entries": """
        SELECT b.account_id::text FROM (
          SELECT DISTINCT ON (account_id) account_id, posted, upto FROM trading_balance
            JOIN trading_journalblock ON number = block_id ORDER BY account_id, block_id DESC) b
        LEFT JOIN trading_entry e ON e.account_id = b.account_id AND e.xact < b.upto
        GROUP BY b.account_id, b.posted HAVING b.posted <> coalesce(sum(e.amount), 0)""",
    "journal_chain_verifies": """
        WITH bound AS (SELECT array_agg(upto ORDER BY number) AS uptos FROM trading_journalblock),
        block AS (
          SELECT width_bucket(l.xact, uptos) + 1 AS number, count(*)::int AS lines,
                 sha256(convert_to(string_agg(l.line, E'\\n' ORDER BY l.part, l.key), 'UTF8')) AS digest
            FROM journal_lines(0, 9223372036854775807) l CROSS JOIN bound GROUP BY 1)
        SELECT b.number::text FROM trading_journalblock b LEFT JOIN block x ON x.number = b.number
          LEFT JOIN trading_journalblock p ON p.number = b.number - 1
         WHERE (x.digest, x.lines) IS DISTINCT FROM (b.digest, b.lines)
            OR (p.number IS NULL) <> (b.number = 1)
            OR b.head <> journal_head(b.number, coalesce(p.head, ''::bytea), b.upto, b.digest)""",
}


# From a checkpoint on: these stand in for the tables, so that a rule sees only the rows written since,
_NEWER = """
    WITH trading_entry AS NOT MATERIALIZED (SELECT * FROM public.trading_entry WHERE xact >= {upto}),
    trading_transfer AS NOT MATERIALIZED (SELECT * FROM public.trading_transfer WHERE xact >= {upto}),
    base AS MATERIALIZED (SELECT DISTINCT ON (account_id) account_id, posted, held FROM trading_balance
                           WHERE block_id <= {block} ORDER BY account_id, block_id DESC), """
# and these rules, which look at older rows too, are asked in another form.
_SINCE: dict[str, str] = {
    "balance_is_fold_of_entries": """
        SELECT a.id::text FROM trading_account a LEFT JOIN base b ON b.account_id = a.id
        LEFT JOIN (SELECT account_id, sum(amount) AS total FROM trading_entry GROUP BY account_id) e
          ON e.account_id = a.id WHERE a.posted <> coalesce(b.posted, 0) + coalesce(e.total, 0)""",
    "held_is_sum_of_open_holds": """
        SELECT a.id::text FROM trading_account a LEFT JOIN base b ON b.account_id = a.id
        LEFT JOIN ledger_moves({upto}, 9223372036854775807) m ON m.account = a.id
        WHERE a.held <> coalesce(b.held, 0) + coalesce(m.held, 0)""",
    "one_resolution_per_hold": RULES["one_resolution_per_hold"].replace(
        "FROM trading_transfer h", "FROM public.trading_transfer h", 1
    )
    + """ AND h.id IN (SELECT hold FROM trading_transfer WHERE hold IS NOT NULL)
        UNION ALL
        SELECT t.hold::text FROM trading_transfer t JOIN public.trading_transfer h ON h.id = t.hold
         WHERE t.created_at <> h.resolved_at
        UNION ALL
        SELECT h.id::text FROM trading_transfer h WHERE h.credit_id IS NULL AND h.hold IS NULL
           AND h.state <> 'pending'
           AND h.id NOT IN (SELECT hold FROM trading_transfer WHERE hold IS NOT NULL)""",
    "resolution_has_its_hold": RULES["resolution_has_its_hold"].replace(
        "LEFT JOIN trading_transfer h", "LEFT JOIN public.trading_transfer h"
    ),
    "payment_agrees_with_its_hold": RULES["payment_agrees_with_its_hold"]
    .replace("LEFT JOIN trading_transfer h", "LEFT JOIN public.trading_transfer h")
    .replace("WHERE h.id IS NULL", "WHERE p.id IN (SELECT coalesce(hold, id) FROM trading_transfer) AND (h.id IS NULL")
    + ")",
    "checkpoint_is_fold_of_entries": """
        SELECT b.account_id::text FROM (
          SELECT DISTINCT ON (account_id) account_id, posted, upto FROM trading_balance
            JOIN trading_journalblock ON number = block_id WHERE block_id > {block}
           ORDER BY account_id, block_id DESC) b
        LEFT JOIN base ON base.account_id = b.account_id
        LEFT JOIN trading_entry e ON e.account_id = b.account_id AND e.xact < b.upto
        GROUP BY b.account_id, b.posted, base.posted
        HAVING b.posted <> coalesce(base.posted, 0) + coalesce(sum(e.amount), 0)""",
    "journal_chain_verifies": RULES["journal_chain_verifies"]
    .replace("FROM trading_journalblock),", "FROM trading_journalblock WHERE number >= {block}),")
    .replace("+ 1 AS number", "+ {block} AS number")
    .replace("journal_lines(0,", "journal_lines({upto},")
    .replace("WHERE (x.digest", "WHERE b.number > {block} AND ((x.digest")
    + ")",
}


def audit(*, since: dt.datetime | None = None) -> list[Finding]:
    """All findings; empty means that every rule holds.

    With `since`, what was written after the newest checkpoint before that time, on the balances of that
    checkpoint; without one so old, everything. One statement, so one snapshot: a rule that reads two tables
    never sees them a moment apart. It may take longer than a request is allowed to.
    """
    start = _checkpoint(since) if since else None
    rules, first = (RULES | _SINCE, f"{_NEWER}{_FOLD.strip().removeprefix('WITH ')}") if start else (RULES, _FOLD)
    parts = [
        f"SELECT '{rule}', count(*), min(x.offender) FROM ({offenders}) AS x(offender)"
        for rule, offenders in rules.items()
    ]
    query = f"{first} {' UNION ALL '.join(parts)}"
    for name, value in zip(("{block}", "{upto}"), start or (), strict=False):
        query = query.replace(name, str(int(value)))
    with transaction.atomic():
        db.rows("SET LOCAL statement_timeout = 0")
        db.rows("SET LOCAL work_mem = '128MB'")
        found = db.rows(query)
    return [Finding(rule, count, example) for rule, count, example in found if count]


def _checkpoint(since: dt.datetime) -> tuple[int, int] | None:
    """Number and bound of the newest checkpoint whose block was sealed by then."""
    found = db.rows(
        """SELECT b.number, b.upto FROM trading_checkpoint JOIN trading_journalblock b ON b.number = block_id
            WHERE b.sealed_at <= %s ORDER BY b.number DESC LIMIT 1""",
        (since,),
    )
    return found[0] if found else None


def size() -> int:
    """How many entries the audit covers."""
    return int(db.value("SELECT count(*) FROM trading_entry"))
