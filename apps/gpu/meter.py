"""What a job's run costs (protocols 11-13)."""

from dataclasses import dataclass

from aitbc.core.money import ceil_div


@dataclass(frozen=True, slots=True)
class Bill:
    """`units` in milliseconds of a device; `total` and `fee` in smallest units, the fee inside the total."""

    units: int
    total: int
    fee: int


def bill(*, platform_ms: int, claimed_ms: int | None, max_ms: int, unit_price: int, fee_bps: int) -> Bill:
    """min(platform clock, the miner's claim, the agreed limit) * price per device second, rounded up.

    The claim may lower the bill, never raise it. `max_ms` is floor(max_price * 1000 / unit_price), so
    the total stays within `max_price` even when rounded up, max_price being a whole number.
    """
    claims = [platform_ms, max_ms] + ([claimed_ms] if claimed_ms is not None else [])
    units = max(0, min(claims))
    total = ceil_div(units * unit_price, 1000)
    return Bill(units, total, ceil_div(total * fee_bps, 10_000))
