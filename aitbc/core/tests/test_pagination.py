"""Cursors: opaque, and refused when they are not ours."""

import base64
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from aitbc.core.errors import Invalid
from aitbc.core.pagination import DrfCursorPagination, decode, encode

SCALARS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(), st.none(), st.booleans())


@given(key=st.lists(SCALARS, min_size=1, max_size=3))
def test_a_cursor_is_read_back(key):
    cursor = encode(*key)
    assert decode(cursor, len(key)) == key
    assert cursor.isascii()
    assert not set(cursor) & set("+/=& #")


def test_other_values_travel_as_text():
    one = uuid4()
    assert decode(encode(one, 5), 2) == [str(one), 5]


@pytest.mark.parametrize("cursor", [None, ""])
def test_no_cursor_is_the_beginning(cursor):
    assert decode(cursor, 1) is None


def of(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


STRANGE = [
    *("x", "!!!!", "ü", "a" * 5, "\x00", "null", of(b"\xff"), of(b"[1"), of(b"[" * 100_000)),
    *(of(json) for json in (b"{}", b'"text"', b"1", b"[]", b"[1,2]")),
]


@pytest.mark.parametrize("cursor", STRANGE)
def test_a_strange_cursor_is_refused_by_name(cursor):
    with pytest.raises(Invalid) as caught:
        decode(cursor, 1)
    assert caught.value.code == "request.cursor"
    assert caught.value.context["errors"] == [{"loc": ["query", "cursor"], "msg": "unknown"}]


@pytest.mark.parametrize("cursor", ["x", "abcde", "\xff"])
def test_the_other_framework_refuses_it_in_the_same_words(cursor):
    request = Request(APIRequestFactory().get("/", {"cursor": cursor}))
    with pytest.raises(Invalid) as caught:
        DrfCursorPagination().decode_cursor(request)
    assert caught.value.code == "request.cursor"
    assert isinstance(caught.value.__cause__, NotFound)


def test_a_page_has_a_largest_size():
    page = DrfCursorPagination()
    sizes = [page.get_page_size(Request(APIRequestFactory().get("/", {"limit": n}))) for n in (1, 200, 5000)]
    assert sizes == [1, 200, 200]
