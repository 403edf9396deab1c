"""Amounts as columns: exact decimals of their asset."""

from operator import attrgetter

from aitbc.core import show
from aitbc.core.columns import Column, column
from apps.trading.selectors.assets import decimals

AIT = "AIT"


def shown(units: int | None, asset: str = AIT) -> str:
    return show.amount(units, asset, decimals(asset))


def amount(label: str, of: str, asset: str | None = None, ordering: str | None = None) -> Column:
    """`of` holds the units; `asset` is the path to its code, where a row can be in another asset than AIT."""
    units = attrgetter(of)
    code = attrgetter(asset) if asset else lambda row: AIT
    return column(label, lambda row: shown(units(row), code(row)), ordering=ordering)
