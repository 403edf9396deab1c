"""Prices of jobs and miners, which are in AIT until a job can name another asset."""

from aitbc.core import show
from apps.trading.selectors.assets import decimals


def ait(units: int | None) -> str:
    return show.amount(units, "AIT", decimals("AIT"))
