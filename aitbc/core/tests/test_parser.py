"""JSON bodies: what PostgreSQL could not keep, or our writer not follow, is refused at the door."""

import orjson
import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from aitbc.core.errors import Invalid
from aitbc.core.parser import MAX_DEPTH, OrjsonParser

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def parse(raw):
    return OrjsonParser().parse_body(RequestFactory().generic("POST", "/", raw, content_type="application/json"))


def refusal(raw):
    with pytest.raises(Invalid) as caught:
        parse(raw)
    return caught.value.code


@given(body=st.dictionaries(st.text(), JSON, max_size=4))
def test_a_body_is_taken_unless_a_text_in_it_holds_a_null_character(body):
    raw = orjson.dumps(body)
    if "\\u0000" in orjson.dumps(body).decode() and "\x00" in _texts(body):
        assert refusal(raw) == "request.null_character"
    else:
        assert parse(raw) == body


def _texts(value):
    if isinstance(value, dict):
        return "".join(name + _texts(inner) for name, inner in value.items())
    if isinstance(value, list):
        return "".join(map(_texts, value))
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("raw", [rb'{"a":"\u0000"}', rb'{"\u0000":1}', rb'{"a":[{"b":["x\u0000y"]}]}', rb'["\u0000"]'])
def test_a_null_character_is_refused_at_any_depth(raw):
    assert refusal(raw) == "request.null_character"


def test_an_escaped_backslash_before_it_makes_it_harmless_text():
    assert parse(rb'{"a":"\\u0000"}') == {"a": r"\u0000"}


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_is_allowed_to_its_limit(opening, closing):
    def nested(depth):
        return opening * depth + b"1" + closing * depth

    assert parse(nested(MAX_DEPTH)) is not None
    assert refusal(nested(MAX_DEPTH + 1)) == "request.too_deep"
    assert refusal(nested(500)) == "request.too_deep"


def test_many_brackets_side_by_side_are_not_deep():
    body = {"rows": [[i] for i in range(1000)]}
    assert parse(orjson.dumps(body)) == body


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}', b"{'a':1}", rb'{"a":"\ud800"}'])
def test_what_is_no_json_is_no_body(raw):
    with pytest.raises(orjson.JSONDecodeError):
        parse(raw)
