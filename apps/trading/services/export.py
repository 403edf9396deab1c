"""The ledger as a Beancount journal, so that a program that is not ours can check it.

Syntax: https://beancount.github.io/docs/beancount_language_syntax.html. An asset is positive there and what
is owed negative, so every posting has the opposite sign of our entry.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final

from django.db import connection, transaction

from apps.trading.models import Account, Entry

_ROOTS: Final = {"external": "Assets", "treasury": "Equity", "fees": "Income"}  # all else is owed to somebody
_LEGS: Final = ("transfer__created_at", "transfer__kind", "transfer_id", "account_id", "amount")


def beancount() -> Iterator[str]:
    """Lines of all accounts, posted transfers, and today's cached balances as assertions, of one snapshot."""
    with transaction.atomic():
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.cursor().execute("SET LOCAL statement_timeout = 0")
        accounts = {row.pk: row for row in Account.objects.select_related("asset").order_by("id")}
        yield 'option "title" "AITBC ledger"'
        for row in accounts.values():
            yield f"{row.created_at:%Y-%m-%d} open {_name(row)} {row.asset_id}"
        legs = Entry.objects.order_by("transfer__created_at", "transfer_id", "id").values_list(*_LEGS)
        for (day, kind, transfer), group in groupby(legs.iterator(10_000), key=lambda leg: leg[:3]):
            yield f'{day:%Y-%m-%d} * "{kind}" "{transfer}"'
            for *_, account, amount in group:
                yield f"  {_name(accounts[account])}  {_amount(accounts[account], amount)}"
        tomorrow = datetime.now(UTC) + timedelta(days=1)  # a balance is asserted as its day begins
        for row in accounts.values():
            figure, asset = _amount(row, row.posted).split()
            yield f"{tomorrow:%Y-%m-%d} balance {_name(row)}  {figure} ~ 0 {asset}"


def _name(row: Account) -> str:
    return f"{_ROOTS.get(row.kind, 'Liabilities')}:{row.kind.capitalize()}:A{row.pk}"


def _amount(row: Account, units: int | None) -> str:
    """With all its decimals: Beancount tolerates half of the last one that it sees."""
    sign, (whole, rest) = "-" if (units or 0) > 0 else "", divmod(abs(units or 0), 10**row.asset.decimals)
    return f"{sign}{whole}.{rest:0{row.asset.decimals}d} {row.asset_id}"
