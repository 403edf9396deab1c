"""A parsed filter as SQL: text of ours with placeholders, and the user's values beside it.

SQL's own three values of truth: what nobody knows of an offer (null) fits neither a test nor its negation.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from apps.marketplace.selectors.fields import FIELDS, UNITS, Field
from apps.marketplace.selectors.syntax import Group, Node, Test, Token, did_you_mean, wrong

_NUMBER = re.compile(r"(-?[0-9]{1,20}(?:\.[0-9]{1,18})?)([A-Za-z%]*)")
_VERSION = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,3}))?(?:\.[0-9]{1,6})?")
_ORDERED = ("=", "<>", "<", "<=", ">", ">=")
_NEGATED: Final = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_OPERATORS: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("int", "float", "amount", "version", "time"), _ORDERED),
    **dict.fromkeys(("model", "text"), ("=", "<>", "~")),
    **dict.fromkeys(("choice", "uuid", "set", "bool"), ("=", "<>")),
}


@dataclass(slots=True)
class Condition:
    """`sql` over an alias `o`, its parameters, and the fields that it names."""

    sql: str = ""
    params: list[Any] = field(default_factory=list)
    named: set[str] = field(default_factory=set)


def condition(node: Node | None, *, of_class: bool = False) -> Condition:
    """What offers must hold; `of_class`: what a class must hold for any offer of it to fit, where what
    classes do not know is taken to hold. Invalid `filter.unknown_field`, `filter.type`."""
    made = Condition()
    made.sql = _sql(node, False, of_class, made) if node else "true"
    return made


def _sql(node: Node, negated: bool, of_class: bool, made: Condition) -> str:
    """Negations move inwards to the tests, so that what a class does not know holds on either side."""
    if isinstance(node, Test):
        found = _field(node)
        made.named.add(node.field.text.lower())
        if of_class and not found.of_class:
            return _bounds(node, negated, found, made) if found.bounded else "true"
        test = _test(node, found, made.params)
        return f"NOT ({test})" if negated else test
    if node.operator == "not":
        return _sql(node.parts[0], not negated, of_class, made)
    glue = " AND " if (node.operator == "and") != negated else " OR "
    return "(" + glue.join(_sql(part, negated, of_class, made) for part in node.parts) + ")"


def _bounds(test: Test, negated: bool, found: Field, made: Condition) -> str:
    """Can a value between a class's least and most pass the test, or its negation? Null, so no, without any."""
    operator = _NEGATED.get(test.operator, "") if negated else test.operator
    if operator not in ("<", "<=", ">", ">=") or None in test.values:
        return "true"
    end = "min" if operator[0] == "<" else "max"
    return _test(replace(test, operator=operator), replace(found, sql=f"{found.sql}_{end}"), made.params)


def top_level(node: Node) -> tuple[Node, ...]:
    """The filters that must all hold."""
    return node.parts if isinstance(node, Group) and node.operator == "and" else (node,)


def _field(test: Test) -> Field:
    name = test.field.text.lower()
    if name not in FIELDS:
        hint = did_you_mean(name, list(FIELDS))
        raise wrong("unknown_field", f"there is no field {test.field.text[:40]}", test.at, hint)
    found = FIELDS[name]
    if not test.operator:
        if found.kind != "bool":
            raise wrong("type", f"{name} is not true or false", test.at, f"compare it: {name} = ...")
    elif test.operator.removeprefix("not ") != "in" and test.operator not in _OPERATORS[found.kind]:
        hint = f"it takes {', '.join(_OPERATORS[found.kind])}, in".replace("<>", "!=")
        raise wrong("type", f"{name} cannot be compared with {test.operator}", test.at, hint)
    return found


def _test(test: Test, found: Field, params: list[Any]) -> str:
    if not test.operator:
        return found.sql
    if None in test.values:
        if len(test.values) > 1 or test.operator not in ("=", "<>"):
            raise wrong("type", "null is compared with = or != only", test.at)
        return f"{found.sql} IS {'NOT ' * (test.operator == '<>')}NULL"
    values = [_value(found, token, test) for token in test.values if token]
    params += [value for _, value in values]
    left, slots = _LEFT.get(test.field.text.lower(), "{}").format(found.sql), [slot for slot, _ in values]
    if test.operator == "~":
        if found.kind == "model":  # the maker's words too
            return "strpos(lower(o.model), lower(translate(%s::text, '_', ' '))) > 0"
        return f"strpos({left}, {slots[0]}) > 0"
    if found.kind == "set":
        has = f"{left} && ARRAY[{', '.join(slots)}]"
        return f"NOT ({has})" if test.operator in ("<>", "not in") else has
    if len(slots) > 1 or test.operator.endswith("in"):
        return f"{left} {'NOT ' * (test.operator == 'not in')}IN ({', '.join(slots)})"
    return f"{left} {test.operator} {slots[0]}"


_LEFT = {"driver": "lower({})", "sandbox": "lower({})", "asset": "lower({})"}


def _value(found: Field, token: Token, test: Test) -> tuple[str, Any]:
    """The placeholder with its cast, and what it stands for."""
    text = token.text
    if token.kind == "string":
        text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    try:
        if found.kind in _WHOLE:
            return _whole(_WHOLE[found.kind], _number(found, text), test.operator)
        return _READ[found.kind](found, text)
    except (ValueError, OverflowError) as error:
        raise wrong("type", f"{text[:40]} is no value of {test.field.text.lower()}", token.at, str(error)) from error


def _number(found: Field, text: str) -> Fraction:
    match = _NUMBER.fullmatch(text)
    units = UNITS[found.units]
    unit = match[2].lower() if match else ""
    if match is None or (unit and unit not in units):
        raise ValueError("a number" + (f", if you like in {', '.join(units)}" if units else ""))
    return Fraction(match[1]) * units.get(unit, Fraction(1)) * found.scale


def _whole(cast: str, value: Fraction, operator: str) -> tuple[str, Any]:
    """Exact, for columns of whole numbers from 0 on: below 2.5 is below 3, and nothing equals 2.5, or -1."""
    if operator in ("<", ">=", "<=", ">"):
        whole = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
    else:
        whole = value.numerator if value.denominator == 1 else -1
    return (cast if abs(whole) < 2**62 else "%s::numeric"), whole


def _version(found: Field, text: str) -> tuple[str, Any]:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError("a version such as 12.8")
    return "%s::int8", int(match[1]) * 1000 + int(match[2] or 0)


def _choice(found: Field, text: str) -> tuple[str, Any]:
    if text.lower() not in found.choices:
        raise ValueError(did_you_mean(text, list(found.choices)) or f"one of {', '.join(found.choices)}")
    return "%s::text", text.lower()


def _time(found: Field, text: str) -> tuple[str, Any]:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a date such as 2026-01-31, or a time such as 2026-01-31T12:00Z") from None
    return "%s::timestamptz", moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _boolean(found: Field, text: str) -> tuple[str, Any]:
    if text.lower() not in ("true", "false"):
        raise ValueError("true or false")
    return "%s::bool", text.lower() == "true"


def _uuid(found: Field, text: str) -> tuple[str, Any]:
    return "%s::uuid", UUID(text)


_WHOLE: Final = {"int": "%s::int8", "amount": "%s::numeric"}
_READ: Final[dict[str, Callable[[Field, str], tuple[str, Any]]]] = {
    "float": lambda found, text: ("%s::float8", float(_number(found, text))),
    "version": _version,
    "time": _time,
    "model": lambda found, text: ("marketplace_model_key(%s::text)", text),
    "text": lambda found, text: ("lower(%s::text)", text),
    "choice": _choice,
    "bool": _boolean,
    "uuid": _uuid,
    "set": lambda found, text: ("%s::varchar", text.lower()),
}
