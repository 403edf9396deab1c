"""Random offers, random filters as trees and as text, and what a filter means, evaluated naively in Python.

Truth has three values: None is what nobody knows, and fits nothing.
"""

import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import strategies as st

from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import AIT
from apps.marketplace.models import Offer

MODELS = ("NVIDIA H200", "NVIDIA GeForce RTX 4090", "RTX 4090", "AMD Instinct MI300X", "nvidia")
REGIONS = ("eu", "us-east", "Asia")
KINDS = ("bench.matmul", "onnx.infer", "vision.ocr")
PRICES = ("0.0001", "0.0005", "0.001", "12")  # few, so that many rows share one
FLOATS = (None, 0.5, 0.99, 67.0, 82.6)
SECONDS = (None, 30, 60, 7200)


def maybe(strategy):
    return st.none() | strategy


ROW = {
    "model": st.sampled_from(MODELS),
    "device_count": st.sampled_from((1, 2, 8)),
    "memory_mb": st.sampled_from((8192, 24564, 24576, 81920, 144384)),
    "price": st.sampled_from([int(Decimal(p) * AIT) for p in PRICES]),
    "region": st.sampled_from(REGIONS),
    "kinds": st.sets(st.sampled_from(KINDS), min_size=1).map(sorted),
    "state": st.sampled_from(("listed", "listed", "listed", "listed", "paused", "suspended", "delisted")),
    "verified": st.booleans(),
    "device_kind": st.sampled_from((None, "cuda", "rocm", "cpu")),
    "cuda": st.sampled_from((None, 11008, 12004, 12008, 13000)),
    "driver": st.sampled_from((None, "550.54", "560.1")),
    "tflops": st.sampled_from(FLOATS),
    "dl_score": st.sampled_from(FLOATS),
    "reliability": st.sampled_from((None, 0.5, 0.99, 1.0)),
    "reliability_low": st.sampled_from((None, 0.25, 0.97)),
    "first_party": st.sampled_from((None, True, False)),
    "min_seconds": st.sampled_from(SECONDS),
    "spot_price": st.sampled_from((None, AIT // 10**4, 1)),
}


def some_offers(most=25):
    return st.lists(st.fixed_dictionaries(ROW), max_size=most)


def make(miner_id, row):
    """An offer as it is, unsaved; its devices do not matter to the filters."""
    reason = "" if row["state"] == "listed" else "seller"
    return Offer(id=uuid7(), miner_id=miner_id, reason=reason, available_from=datetime.now(UTC), **row)


def model_key(name):
    words = name.lower().replace("_", " ").split(" ")
    while len(words) > 1 and words[0] in ("nvidia", "amd", "intel", "geforce", "radeon", "instinct", "tesla", "quadro"):
        words = words[1:]
    return " ".join(words)


def per(value, unit):
    return None if value is None else Fraction(value) / unit


# field -> what an offer has, and values to compare it with: as text, and what the text means
NUMBERS = {
    "memory_gb": (lambda o: per(o.memory_mb, 1024), {"8": 8, "23.99": Fraction("23.99"), "24gb": 24, "0.5TB": 512}),
    "vram": (lambda o: per(o.memory_mb, 1024), {"141": 141, "24564mib": Fraction(24564, 1024), "80": 80}),
    "total_memory_gb": (lambda o: per(o.memory_mb * o.device_count, 1024), {"48": 48, "160": 160}),
    "count": (lambda o: o.device_count, {"1": 1, "1.5": Fraction(3, 2), "8": 8, "-1": -1}),
    "price": (lambda o: per(o.price, AIT), {p: Fraction(p) for p in (*PRICES, "0.000999999999999999")}),
    "price_hour": (lambda o: per(o.price * 3600, AIT), {"3.6": Fraction("3.6"), "1.8": Fraction("1.8")}),
    "spot": (lambda o: per(o.spot_price, AIT), {"0.0001": Fraction("0.0001"), "0": 0}),
    "cuda": (lambda o: o.cuda, {"12": 12000, "12.4": 12004, "13.0": 13000}),
    "tflops": (lambda o: o.tflops, {"67": 67.0, "0.0826pflops": 82.6, "0.5tflops": 0.5}),
    "dl_score": (lambda o: o.dl_score, {"0.99": 0.99, "67": 67.0}),
    "reliability": (lambda o: o.reliability, {"99%": 0.99, "0.99": 0.99, "1": 1.0}),
    "min_seconds": (lambda o: o.min_seconds, {"60": 60, "1m": 60, "2h": 7200, "0.5m": 30}),
}  # fmt: skip
WORDS = {
    "model": (lambda o: model_key(o.model), {"h200": "h200", '"NVIDIA H200"': "h200",
                                             "RTX_4090": "rtx 4090", "'amd mi300x'": "mi300x", "nvidia": "nvidia"}),
    "kind": (lambda o: o.device_kind, {"cuda": "cuda", "'CPU'": "cpu"}),
    "region": (lambda o: o.region.lower(), {"EU": "eu", '"us-east"': "us-east", "us-east": "us-east",
                                                  "'; --'": "; --"}),
    "driver": (lambda o: o.driver, {"550.54": "550.54", '"5"': "5"}),
}  # fmt: skip
FLAGS = {"verified": lambda o: o.verified, "first_party": lambda o: o.first_party}
PARTS = {"model": lambda o: o.model.lower(), "region": lambda o: o.region.lower(), "driver": lambda o: o.driver}
COMPARE = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def known(value, test):
    return None if value is None else test(value)


@st.composite
def tests(draw):
    """A single test: its text, and a function of an offer."""
    what = draw(st.sampled_from(("number", "number", "word", "list", "flag", "part", "kinds", "null")))
    if what == "flag":
        name = draw(st.sampled_from(sorted(FLAGS)))
        form, wanted = draw(st.sampled_from((("{}", True), ("{} = true", True), ("{} != TRUE", False))))
        return form.format(name), lambda o: known(FLAGS[name](o), lambda v: v == wanted)
    if what == "part":
        name, part = draw(st.sampled_from(sorted(PARTS))), draw(st.sampled_from(("50", "e", "RTX", "%", "_")))
        sought = part.lower().replace("_", " ") if name == "model" else part.lower()
        return f'{name} ~ "{part}"', lambda o: known(PARTS[name](o), lambda v: sought in v)
    if what == "kinds":
        sign, chosen = draw(st.sampled_from(("=", "!=", "in", "not in"))), draw(st.sampled_from(KINDS))
        right = f"[{chosen}, no.kind]" if "in" in sign else chosen
        return f"kinds {sign} {right}", lambda o: (chosen in o.kinds) == (sign in ("=", "in"))
    fields = {**NUMBERS, **WORDS} if what in ("list", "null") else NUMBERS if what == "number" else WORDS
    name = draw(st.sampled_from(sorted(fields)))
    get, values = fields[name]
    if what == "null":
        sign = draw(st.sampled_from(("=", "!=")))
        return f"{name} {sign} null", lambda o: (get(o) is None) == (sign == "=")
    if what == "list":
        chosen = draw(st.lists(st.sampled_from(sorted(values)), min_size=1, max_size=4))
        wanted, negated = [values[text] for text in chosen], draw(st.booleans())
        text = f"{name} {'NOT in' if negated else 'IN'} [{', '.join(chosen)}]"
        return text, lambda o: known(get(o), lambda v: (v in wanted) != negated)
    sign = draw(st.sampled_from(sorted(COMPARE) if what == "number" else ("=", "!=")))
    text = draw(st.sampled_from(sorted(values)))
    gap = draw(st.sampled_from(("", " ")))
    return f"{name}{gap}{sign}{gap}{text}", lambda o: known(get(o), lambda v: COMPARE[sign](v, values[text]))


def negated(inner):
    return f"not {wrapped(inner[0])}", lambda o: known(inner[1](o), lambda v: not v)


def joined(word, parts):
    def all_of(o):
        found = [test(o) for _, test in parts]
        return False if False in found else None if None in found else True

    def any_of(o):
        found = [test(o) for _, test in parts]
        return True if True in found else None if None in found else False

    return f" {word} ".join(wrapped(text) for text, _ in parts), all_of if word.lower() == "and" else any_of


def wrapped(text):
    return f"({text})" if re.search(r"\b(and|or|not)\b", text, re.IGNORECASE) else text


def expressions():
    """(text, meaning): the meaning of an offer is True, False or None."""
    return st.recursive(
        tests(),
        lambda inner: (
            inner.map(negated)
            | st.builds(joined, st.sampled_from(("and", "or", "AND", "Or")), st.lists(inner, min_size=2, max_size=3))
        ),
        max_leaves=8,
    )
