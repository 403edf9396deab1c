"""Cursor pagination, one style for both APIs: `?cursor=&limit=` answers `items` and `next`."""

import base64
import binascii
from typing import Any

import orjson
from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from aitbc.core.errors import Invalid

DEFAULT_LIMIT, MAX_LIMIT = 50, 200


def encode(*key: Any) -> str:
    """An opaque cursor of the last row's sort key."""
    return base64.urlsafe_b64encode(orjson.dumps(key, default=str)).decode().rstrip("=")


def decode(cursor: str | None, parts: int) -> list[Any] | None:
    if not cursor:
        return None
    try:
        key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    if not isinstance(key, list) or len(key) != parts:
        raise _bad_cursor()
    return key


def _bad_cursor() -> Invalid:
    return Invalid(
        "request.cursor", "this cursor is not one of ours", errors=[{"loc": ["query", "cursor"], "msg": "unknown"}]
    )


class DrfCursorPagination(CursorPagination):
    page_size = DEFAULT_LIMIT
    max_page_size = MAX_LIMIT
    page_size_query_param = "limit"
    ordering = "-id"

    def decode_cursor(self, request: Request) -> Cursor | None:
        """A strange cursor is the same error in both APIs."""
        try:
            return super().decode_cursor(request)
        except NotFound as error:
            raise _bad_cursor() from error

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"items": data, "next": self.get_next_link()})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["items", "next"],
            "properties": {"items": schema, "next": {"type": "string", "format": "uri", "nullable": True}},
        }
