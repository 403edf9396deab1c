"""The filter language: what it reads, where it says that a mistake is, and that it reads in linear time."""

import random
import re
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aitbc.core.errors import Invalid
from apps.marketplace.selectors.filters import Filter
from apps.marketplace.selectors.values import FIELDS
from apps.marketplace.tests.expressions import expressions


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("verified", "V"),
        ("count=1 or cuda=2 and verified or first_party", "(C = 1 OR (U = 2 AND V) OR F)"),
        ("(count=1 or cuda=2) and verified", "((C = 1 OR U = 2) AND V)"),
        ("not verified and first_party", "(NOT (V) AND F)"),
        ("not (verified and not first_party)", "(NOT (V) OR F)"),
        ("NOT not verified AND((first_party))", "(V AND F)"),
        ("count in [1, '2', 3] and cuda not in (4)", "(C IN (1, 2, 3) AND U NOT IN (4))"),
        ("count != 1 and cuda <> 2 and cuda == 3", "(C != 1 AND U != 2 AND U = 3)"),
    ],
)
def test_not_binds_closer_than_and_and_and_closer_than_or(text, sql):
    short = {"o.verified": "V", "o.first_party": "F", "o.device_count": "C", "o.cuda": "U"}
    wanted = Filter(text)

    shown = re.sub(r"\(\$1\)\[(\d+)\]::int8", r"\1", wanted.sql)

    for column, letter in short.items():
        shown = shown.replace(column, letter)
    assert shown == sql
    assert [int(value) // 1000 or int(value) for value in wanted.values] == list(range(1, len(wanted.values) + 1))


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_filter_is_no_condition(text):
    assert Filter(text).sql == "true"


@pytest.mark.parametrize(
    ("text", "code", "position", "hint"),
    [
        ("price <", "syntax", 7, None),
        ("price < and verified", "syntax", 8, None),
        ("verified adn count = 1", "syntax", 9, "did you mean and?"),
        ("(verified", "syntax", 9, None),
        ("verified)", "syntax", 8, None),
        ("model in H200", "syntax", 9, None),
        ("model in []", "syntax", 10, None),
        ("model in [a b]", "syntax", 12, None),
        ("model in [a)", "syntax", 11, None),
        ('model = "H200', "syntax", 8, None),
        ("price < 1; drop table x", "syntax", 9, None),
        ("verified\x00", "syntax", 8, None),
        ("verified and not", "syntax", 16, None),
        ("and", "syntax", 0, None),
        ("model not = x", "syntax", 10, None),
        ("verified and memry_gb > 3", "unknown_field", 13, "did you mean memory_gb?"),
        ("zzzzzz = 3", "unknown_field", 0, None),
        ("memory_gb > lots", "type", 12, "a number, if you like in mb, mib, gb, gib, tb, tib"),
        ("count = 1gb", "type", 8, "a number"),
        ("price < nan", "type", 8, "a number"),
        ("price < 1e3", "type", 8, "a number"),
        ("kind = cudda", "type", 7, "did you mean cuda?"),
        ("state = sold", "type", 8, "one of listed, paused, suspended, delisted"),
        ("model", "type", 0, "compare it: model = ..."),
        ("model < H200", "type", 0, "it takes =, !=, ~, in"),
        ("price ~ 1", "type", 0, "it takes =, !=, <, <=, >, >=, in"),
        ("verified = maybe", "type", 11, "one of true, false"),
        ("cuda >= new", "type", 8, "a version such as 12.8"),
        ("created > yesterday", "type", 10, "Invalid isoformat string: 'yesterday'"),
        ("miner = x", "type", 8, "badly formed hexadecimal UUID string"),
        ("tflops > null", "type", 0, None),
        ("tflops in [1, null]", "type", 0, None),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_hint(text, code, position, hint):
    with pytest.raises(Invalid) as refused:
        Filter(text)

    assert refused.value.code == f"filter.{code}"
    assert refused.value.context["position"] == position
    assert refused.value.context["hint"] == hint


@pytest.mark.parametrize(
    ("fits", "too_much", "code"),
    [
        ("verified" + " " * 4088, "verified" + " " * 4089, "too_long"),
        ("region = " + "é" * 2043, "region = " + "é" * 2044, "too_long"),
        ("(" * 32 + "verified" + ")" * 32, "(" * 33 + "verified" + ")" * 33, "too_deep"),
        ("not " * 32 + "verified", "not " * 33 + "verified", "too_deep"),
    ],
)
def test_length_and_depth_end_where_the_protocol_says(fits, too_much, code):
    Filter(fits)

    with pytest.raises(Invalid) as refused:
        Filter(too_much)
    assert refused.value.code == f"filter.{code}"


@pytest.mark.parametrize(
    "unit", ["verified and ", "not (count = 1) or ", "model in [" + "a," * 40 + "b] and ", "((verified)) or "]
)
def test_steps_and_instructions_grow_linearly_with_the_length(unit):
    """Steps of the parser, and lines of Python that it executes, for twice the text: twice as many."""

    def cost(times):
        text, lines = unit * times + "verified", 0

        def count(frame, event, arg):
            nonlocal lines
            lines += event == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            steps = Filter(text).steps
        finally:
            sys.settrace(before)
        return steps, lines

    one, two, four = (cost(n * (200 // len(unit) + 1)) for n in (1, 2, 4))
    for few, many in ((one, two), (two, four)):
        assert many[0] <= 2.05 * few[0]
        assert many[1] <= 2.05 * few[1]
    assert one[0] <= 2 * len(unit) * (200 // len(unit) + 1)


@settings(max_examples=200, deadline=None)
@given(expression=expressions())
def test_what_is_written_is_read_and_no_text_of_the_user_is_in_the_sql(expression):
    text, _ = expression

    wanted = Filter(text)

    for sql in (wanted.sql, wanted.of_class):
        rest = re.sub(r"\(\$1\)\[\d+\]::(int8|numeric|float8|text|varchar|bool)", "", sql)
        for field in sorted(FIELDS.values(), key=lambda field: -len(field.sql)):
            for own in (f"{field.sql}_min", f"{field.sql}_max", field.sql):
                rest = rest.replace(own, "")
        rest = re.sub(r"strpos|lower|translate|o\.model|'[ _]'|marketplace_model_key|ARRAY|true", "", rest)
        assert re.fullmatch(r"(AND|OR|NOT|IN|IS|NULL|[ ()<>=!,&>0\[\]])*", rest), rest


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="()[]=<>!~,'\"\\ andornit.-%1x_", max_size=60))
def test_whatever_is_sent_is_read_or_refused_with_a_place(text):
    with suppress(Invalid):
        Filter(text)
        return
    with pytest.raises(Invalid) as refused:
        Filter(text)
    assert refused.value.code.startswith("filter.")
    assert 0 <= refused.value.context["position"] <= len(text)


def test_every_field_is_explained_in_the_documentation():
    from django.conf import settings as django

    text = (django.BASE_DIR / "docs" / "search.md").read_text()

    assert [name for name in FIELDS if f"`{name}`" not in text] == []
    assert len(FIELDS) >= 50


def test_random_noise_never_takes_the_parser_long():
    noise = random.Random(7)
    for _ in range(50):
        text = "".join(noise.choice("(not a = [,]\"' and or") for _ in range(4000))
        try:
            Filter(text)
        except Invalid:
            continue
