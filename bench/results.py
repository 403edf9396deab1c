"""Rows of the JSON line that ends a benchmark: a figure beside its reference, as a ratio with its bar."""

from typing import Any


def at_least(what: str, figure: float, unit: str, reference: float, bar: float | None) -> dict[str, Any]:
    """More is better; no bar: for information."""
    ratio = round(figure / reference, 2)
    return {
        "what": what,
        "figure": figure,
        "unit": unit,
        "reference": reference,
        "ratio": ratio,
        "bar": f">= {bar}x" if bar else None,
        "ok": bar is None or ratio >= bar,
    }


def under(what: str, figure: float, unit: str, bar: float) -> dict[str, Any]:
    """Less is better, and the bar is a figure of its own."""
    return {
        "what": what,
        "figure": figure,
        "unit": unit,
        "reference": bar,
        "ratio": round(figure / bar, 3),
        "bar": f"< {bar}",
        "ok": figure < bar,
    }


def at_most(what: str, figure: float, unit: str, reference: float, bar: float) -> dict[str, Any]:
    """Less is better, measured against a reference of the same run."""
    ratio = round(figure / reference, 4)
    found = at_least(what, figure, unit, reference, None)
    return found | {"ratio": ratio, "bar": f"<= {bar}x", "ok": ratio <= bar}
