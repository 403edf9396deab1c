"""Amounts: exact both ways, nothing but plain decimals at the edge."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aitbc.core import money
from aitbc.core.errors import Invalid


@given(value=st.integers(0, money.MAX_UNITS), decimals=st.integers(0, 18))
def test_what_is_shown_is_read_back(value, decimals):
    if value < 10 ** (20 + decimals):  # the edge takes twenty digits before the point
        assert money.units(money.show(value, decimals), decimals) == value


@given(value=st.integers(-money.MAX_UNITS, money.MAX_UNITS), decimals=st.integers(0, 30))
def test_what_is_shown_is_the_value_and_as_short_as_can_be(value, decimals):
    text = money.show(value, decimals)
    assert Fraction(text) * 10**decimals == value
    assert "." not in text or not text.endswith(("0", "."))
    assert "E" not in text.upper()


@given(whole=st.integers(0, 10**20 - 1), fraction=st.text("0123456789", max_size=18))
def test_every_plain_decimal_is_read_exactly(whole, fraction):
    text = f"{whole}.{fraction}" if fraction else str(whole)
    assert money.units(text, 18) == Fraction(text) * 10**18


@pytest.mark.parametrize(
    ("text", "decimals", "units"),
    [
        ("0", 18, 0),
        ("1", 18, 10**18),
        ("1.25", 18, 1_250_000_000_000_000_000),
        ("0.000000000000000001", 18, 1),
        ("99999999999999999999.999999999999999999", 18, money.MAX_UNITS),
        ("1.50", 1, 15),
        ("7.000", 0, 7),
    ],
)
def test_examples(text, decimals, units):
    assert money.units(text, decimals) == units


NO_AMOUNTS = [
    *("", " 1", "1 ", "1\n", "1\x00", "+1", "-1", "--1", "01", "00", "1.", ".5", "1,5", "1.2.3", "1_000"),
    *("1e3", "1E3", "0x1", "NaN", "Infinity", "\u0661", "1.\u0662"),
    *("1.0000000000000000000", "100000000000000000000"),
]


@pytest.mark.parametrize("text", NO_AMOUNTS)
def test_anything_else_is_no_amount(text):
    with pytest.raises(Invalid) as caught:
        money.units(text, 18)
    assert caught.value.code == "money.amount"


@pytest.mark.parametrize(("text", "decimals"), [("0.1", 0), ("1.001", 2), ("1.000000000000000001", 17)])
def test_no_digit_is_lost_silently(text, decimals):
    with pytest.raises(Invalid) as caught:
        money.units(text, decimals)
    assert caught.value.code == "money.precision"


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0, 18, "0"), (-1, 18, "-0.000000000000000001"), (-150, 2, "-1.5"), (100, 2, "1"), (5, 0, "5")],
)
def test_shown_examples(value, decimals, text):
    assert money.show(value, decimals) == text


@given(numerator=st.integers(-(10**30), 10**30), denominator=st.integers(1, 10**12))
def test_division_rounds_up_by_less_than_one(numerator, denominator):
    result = money.ceil_div(numerator, denominator)
    assert 0 <= result * denominator - numerator < denominator
