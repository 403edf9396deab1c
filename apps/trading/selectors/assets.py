"""What is fixed about an asset."""

from functools import cache

from apps.trading.models import Asset


@cache
def decimals(code: str) -> int:
    """Digits after the point; they never change, so a process asks once."""
    return Asset.objects.get(pk=code).decimals
