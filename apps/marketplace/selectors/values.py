"""What offers can be asked for (fields.toml), and how a value of each kind is read: to text, and the cast of it."""

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from apps.gpu.models import Device
from apps.marketplace.models import Offer

_FILE: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("fields.toml").read_text())
_CHOICES = {"kind": Device.Kind.values, "state": Offer.State.values, "reason": Offer.Reason.values}
_NUMBER = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,18})?)([A-Za-z%]*)")
_VERSION = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,3}))?(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    kind: str
    sql: str
    scale: str = "1"
    units: str = ""
    of_class: bool = False
    bounded: bool = False


FIELDS: Final = {name: Field(name, **told) for name, told in _FILE["fields"].items()}


def did_you_mean(word: str, known: list[str]) -> str:
    close = get_close_matches(word.lower(), known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def read(field: Field, text: str, operator: str) -> tuple[str, str]:
    """The value and its cast; ValueError says what it should have been."""
    if field.kind in ("whole", "amount"):
        return _whole(_number(field, text), operator, "int8" if field.kind == "whole" else "numeric")
    return _READ[field.kind](field, text)


def _number(field: Field, text: str) -> Fraction:
    match, units = _NUMBER.fullmatch(text), _FILE["units"].get(field.units, {})
    if match is None or (match[2] and match[2].lower() not in units):
        raise ValueError("a number" + (f", if you like in {', '.join(units)}" if units else ""))
    return Fraction(match[1]) * Fraction(units.get(match[2].lower(), 1)) * Fraction(field.scale)


def _whole(value: Fraction, operator: str, cast: str) -> tuple[str, str]:
    """Exact, for columns of whole numbers from 0 on: below 2.5 is below 3, and nothing equals 2.5, or -1."""
    if operator in ("<", ">=", "<=", ">"):
        whole = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    else:
        whole = value.numerator if value.denominator == 1 else -1
    return str(whole), cast if abs(whole) < 2**62 else "numeric"


def version(text: str) -> int:
    """12.8 as 12008, so that versions compare as numbers; ValueError for what is none."""
    if (match := _VERSION.fullmatch(text)) is None:
        raise ValueError("a version such as 12.8")
    return int(match[1]) * 1000 + int(match[2] or 0)


def _choice(field: Field, text: str) -> tuple[str, str]:
    known = _CHOICES.get(field.name, ["true", "false"])
    if text.lower() not in known:
        raise ValueError(did_you_mean(text, known) or f"one of {', '.join(known)}")
    return text.lower(), "bool" if field.kind == "bool" else "text"


_READ: Final[dict[str, Callable[[Field, str], tuple[str, str]]]] = {
    "float": lambda field, text: (repr(float(_number(field, text))), "float8"),
    "version": lambda field, text: (str(version(text)), "int8"),
    "time": lambda field, text: (datetime.fromisoformat(text).isoformat(), "timestamptz"),  # sessions are in UTC
    "choice": _choice,
    "bool": _choice,
    "uuid": lambda field, text: (str(UUID(text)), "uuid"),
    "model": lambda field, text: (text, "text"),
    "text": lambda field, text: (text.lower(), "text"),
    "set": lambda field, text: (text.lower(), "varchar"),
}
