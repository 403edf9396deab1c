"""Amounts: whole numbers of an asset's smallest unit inside, decimal strings at the edge only."""

import re

from aitbc.core.errors import Invalid

_DECIMAL = re.compile(r"(0|[1-9]\d{0,19})(?:\.(\d{1,18}))?", re.ASCII)
MAX_UNITS = 10**38 - 1  # NUMERIC(38,0)


def units(amount: str, decimals: int) -> int:
    """`"1.25"` of an 18-decimals asset -> 1250000000000000000. No sign, exponent or lost digit."""
    match = _DECIMAL.fullmatch(amount)
    if match is None:
        raise Invalid("money.amount", "an amount is a plain decimal number such as 1.25")
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise Invalid("money.precision", f"this asset has at most {decimals} decimals")
    return int(whole + fraction.ljust(decimals, "0"))


def show(value: int, decimals: int) -> str:
    """The shortest decimal string: 1250000000000000000 with 18 decimals -> `"1.25"`."""
    sign, digits = ("-", -value) if value < 0 else ("", value)
    whole, fraction = divmod(digits, 10**decimals)
    tail = f"{fraction:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{sign}{whole}.{tail}" if tail else f"{sign}{whole}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Rounds up: fees and totals never favour the payer."""
    return -(-numerator // denominator)
