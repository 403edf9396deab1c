"""What an owner reads of the ledger."""

from typing import Any
from uuid import UUID

from aitbc.core import db, money
from aitbc.core.errors import NotFound
from aitbc.core.pagination import decode, encode
from apps.trading.models import Asset


def of_user(user: UUID) -> list[dict[str, Any]]:
    """Decimal strings per asset; an asset never touched is shown as zero."""
    found = db.rows(
        """SELECT s.code, s.decimals, coalesce(sum(a.posted - a.held) FILTER (WHERE a.kind = 'available'), 0),
                  coalesce(sum(a.held), 0), coalesce(sum(a.posted) FILTER (WHERE a.kind = 'maturing'), 0)
             FROM trading_asset s LEFT JOIN trading_account a ON a.asset_id = s.code AND a.owner_id = %s
            GROUP BY s.code, s.decimals ORDER BY s.code""",
        (user,),
    )
    names = ("available", "held", "maturing")
    return [
        {"asset": code} | {name: money.show(int(one), decimals) for name, one in zip(names, units, strict=True)}
        for code, decimals, *units in found
    ]


def entries(*, user: UUID, asset: str, cursor: str | None, limit: int) -> dict[str, Any]:
    """One page of legs on the owner's accounts, newest first; negative amounts are debits."""
    known = Asset.objects.filter(code=asset).first() if asset.isascii() and asset.isprintable() else None
    if known is None:
        raise NotFound("asset.unknown", "this ledger has no such asset")
    after = decode(cursor, 1)
    last = after[0] if after and isinstance(after[0], int) and 0 <= after[0] < 2**63 else None
    found = db.rows(
        """SELECT e.id, e.transfer_id, t.kind, a.kind, e.amount, t.reference, e.created_at
             FROM trading_account a JOIN trading_entry e ON e.account_id = a.id
             JOIN trading_transfer t ON t.id = e.transfer_id
            WHERE a.owner_id = %s AND a.asset_id = %s AND (%s::bigint IS NULL OR e.id < %s)
            ORDER BY e.id DESC LIMIT %s""",
        (user, asset, last, last, limit + 1),
    )
    names = ("id", "transfer", "kind", "account", "amount", "reference", "created_at")
    items = [dict(zip(names, row, strict=True)) for row in found[:limit]]
    for item in items:
        item["amount"] = money.show(int(item["amount"]), known.decimals)
    return {"items": items, "next": encode(found[limit - 1][0]) if len(found) > limit else None}
