"""JSON bodies of the machine API: read fast, and refused where we could not keep what they hold."""

from collections.abc import Iterator
from typing import Any

import orjson
from django.http import HttpRequest
from ninja.parser import Parser

from aitbc.core.errors import Invalid

MAX_DEPTH = 64


class OrjsonParser(Parser):
    def parse_body(self, request: HttpRequest) -> Any:
        body = orjson.loads(request.body)
        refuse_unstorable(request.body, body)
        return body


def refuse_unstorable(raw: bytes, body: Any) -> None:
    """Refuse null characters, which PostgreSQL cannot keep, and nesting beyond `MAX_DEPTH` levels, which
    our own JSON writer cannot follow without end. The raw bytes rule both out for nearly every body.
    """
    nul = b"\\u0000" in raw
    if not nul and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    level, depth = [body], 0
    while level := [inner for value in level for inner in _inside(value)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise Invalid("request.too_deep", f"JSON may be nested {MAX_DEPTH} levels deep")
        if nul and any(isinstance(value, str) and "\0" in value for value in level):
            raise Invalid("request.null_character", "a text holds a null character")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value
