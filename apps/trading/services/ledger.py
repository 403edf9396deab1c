"""Python's door to the ledger: typed items in, one code per item out, one round trip."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import psycopg
from django.db import IntegrityError, connection, transaction

from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid, NotFound

Action = Literal["transfer", "hold", "post", "void"]
_ID_CONSTRAINT = "trading_transfer_pkey"
_APPLY = """SELECT ledger_apply(%s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::numeric[],
                                %s::uuid[], %s::text[], %s::uuid[], %s::int[], %s::int[])"""


@dataclass(frozen=True, slots=True)
class Item:
    """One ledger operation; `amount` in the asset's smallest unit, a hold's `timeout` in seconds.

    See `sql/ledger.sql` for the rules.
    """

    id: UUID
    action: Action
    kind: str
    debit: int | None = None
    credit: int | None = None
    amount: int | None = None
    hold: UUID | None = None
    reference: UUID | None = None
    link: int = 0
    timeout: int | None = None


def account_id(*, owner: UUID | None, kind: str, asset: str = "AIT", chain: str = "", shard: int = 0) -> int:
    """The account's id; it is created when first asked for."""
    found: int = db.value(
        "SELECT ledger_account(%s::uuid, %s::text, %s::text, %s::text, %s::int)", (owner, asset, kind, chain, shard)
    )
    return found


def apply(items: Sequence[Item]) -> list[str]:
    """Apply in order; `ok`, `exists` or the reason why not, per item. Repeatable by the items' ids.

    Raises DataError for an item with fields of another action, or a balance beyond 38 digits.
    """
    columns = [
        [getattr(item, name) for item in items]
        for name in ("id", "action", "debit", "credit", "amount", "hold", "kind", "reference", "link", "timeout")
    ]
    for _ in items:
        try:
            return _call(columns)
        except IntegrityError as error:
            if not _is_rival(error):
                raise
    return _call(columns)


def _call(columns: list[list[Any]]) -> list[str]:
    """One statement is a transaction of its own; inside a caller's, a savepoint keeps that one usable."""
    with transaction.atomic() if connection.in_atomic_block else nullcontext():
        codes: list[str] = db.value(_APPLY, columns)
    return codes


def _is_rival(error: IntegrityError) -> bool:
    """Another caller brought the same new id with other accounts; it is committed, so asking again tells."""
    cause = error.__cause__
    return isinstance(cause, psycopg.errors.UniqueViolation) and cause.diag.constraint_name == _ID_CONSTRAINT


def apply_all(items: Sequence[Item]) -> None:
    """Apply or raise: for callers to whom every refusal is an error. `exists` is success."""
    with transaction.atomic():
        for item, code in zip(items, apply(items), strict=True):
            if code not in ("ok", "exists"):
                raise refusal(code, item)


def refusal(code: str, item: Item) -> Conflict | Invalid | NotFound:
    if code == "insufficient_funds":
        return Conflict("payment.insufficient_funds", "the available balance does not cover this amount")
    if code in ("hold_unknown", "account_unknown"):
        return NotFound(f"ledger.{code}", f"the ledger does not know what {item.kind} refers to")
    if code in ("amount_not_positive", "amount_too_large", "same_account", "asset_mismatch", "timeout_not_positive"):
        return Invalid(f"ledger.{code}", f"the ledger refused {item.kind}: {code.replace('_', ' ')}")
    return Conflict(f"ledger.{code}", f"the ledger refused {item.kind}: {code.replace('_', ' ')}")
