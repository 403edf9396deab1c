"""How values are written for people: exact, and safe to put into a page."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils.html import strip_tags

from aitbc.core import show

NOW = datetime(2026, 11, 23, 13, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (10**18, "1 AIT"),
        (125 * 10**16, "1.25 AIT"),
        (-(10**17), "-0.1 AIT"),
        (1, "0." + "0" * 17 + "1 AIT"),
        (0, "0 AIT"),
    ],
)
def test_amounts_are_exact_decimals_with_their_asset(units, text):
    assert strip_tags(show.amount(units, "AIT", 18)) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 s"),
        (412, "0.412 s"),
        (59_999, "59.999 s"),
        (60_000, "1 min 00 s"),
        (185_000, "3 min 05 s"),
        (7_800_000, "2 h 10 min"),
        (356_400_000, "4 d 03 h"),
        (None, show.NOTHING),
    ],
)
def test_durations_are_in_units_that_people_use(milliseconds, text):
    assert show.duration(milliseconds) == text


def test_an_age_never_runs_backwards():
    assert show.age(NOW - timedelta(seconds=75), NOW) == "1 min 15 s"
    assert show.age(NOW + timedelta(seconds=2), NOW) == "0 s"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3_500_000, "3.3 MiB")])
def test_sizes(count, text):
    assert show.size(count) == text


def test_a_long_document_is_cut_and_says_by_how_much():
    shown = show.document({f"key {number}": "x" * 100 for number in range(300)})

    assert "more characters" in shown
    assert len(shown) < 25_000


def test_a_document_reads_like_json_with_short_lists_on_a_line_and_long_texts_cut():
    value = {"b": [1, 2.5, None], "a": {"text": "é" * 300, "none": {}, "long": ["y" * 50, "z" * 50]}}

    assert show.document(value) == (
        '<pre class="document">{\n'
        "  &quot;a&quot;: {\n"
        f"    &quot;long&quot;: [\n      &quot;{'y' * 50}&quot;,\n      &quot;{'z' * 50}&quot;\n    ],\n"
        "    &quot;none&quot;: {},\n"
        f"    &quot;text&quot;: &quot;{'é' * 60}… 240 more characters&quot;\n"
        "  },\n"
        "  &quot;b&quot;: [1, 2.5, null]\n"
        "}</pre>"
    )


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_nothing_that_others_wrote_becomes_markup(hostile):
    written = [
        show.document({"a": hostile}),
        show.block(hostile),
        show.short(hostile * 3),
        show.code(hostile),
        show.link("gpu_job", hostile, hostile),
        show.table((hostile,), [(hostile,)]),
        show.state(hostile),
        show.verdict(True, hostile),
    ]

    assert not [text for text in written if "<script" in text or "<img" in text]
