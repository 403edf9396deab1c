"""Typed services: a few checked words become a job of an existing kind, at a price that is also its ceiling.

`typed.json` is the catalogue: the schema of the words, the job's input with `{word}` in their places (`{word:s}`
for one as text), and for models the memory that they need, by the first part that their name holds.
"""

import json
import re
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid, NotFound
from apps.gpu.runtimes import errors_of, runtimes
from apps.gpu.services.submission import Order

_SERVICES: Final = json.loads((Path(__file__).parents[1] / "typed.json").read_text())
_PRICE: Final = "SELECT gpu_service_price(%s::text, %s::varchar[], %s::int, %s::int)"


def catalogue() -> list[dict[str, Any]]:
    """`price`: what the cheapest miner that runs the service now asks for its `seconds`, null without one."""
    return [
        {"type": name, **s, "price": db.value(_PRICE, (s["kind"], s["models"], None, s["seconds"]))}
        for name, s in _SERVICES.items()
    ]


def order_of(name: str, words: dict[str, Any], max_price: str | None) -> Order:
    """The job that these words make; without `max_price` it may cost what the catalogue's `seconds` cost today."""
    if (service := _SERVICES.get(name)) is None:
        raise NotFound("service.unknown", f"the services are: {', '.join(_SERVICES)}")
    if errors := errors_of(Draft202012Validator(service["schema"]), "input", words):
        raise Invalid("job.invalid_input", f"the input does not fit {name}", errors=errors)
    words = service["defaults"] | words
    text = re.sub(  # in one pass: what a client wrote is never read as a template
        r'"\{(\w+)(:s)?\}"',
        lambda m: json.dumps(str(words[m[1]]) if m[2] else words[m[1]]),
        json.dumps(service["input"]),
    )
    kind, given, model = service["kind"], json.loads(text), str(words.get("model", "")).lower()
    vram = next((gb for part, gb in service["vram_gb"].items() if part in model), None)
    models = (*service["models"], *runtimes()[kind].models(given))
    price = max_price or db.value(_PRICE, (kind, list(models), vram, service["seconds"]))
    if price is None:
        raise Conflict("service.unavailable", "no miner runs this now: give max_price to wait for one")
    return Order(kind, price, given, min_vram_gb=vram, models=models, ttl_seconds=service["ttl_seconds"])
