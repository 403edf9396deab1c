"""`Idempotency-Key`: the answer is stored in the same transaction as the work.

Same key and body replay the stored answer; another body is 422; a key in flight is 409. Only
answers of success are stored: a refusal wrote nothing, so the same key may try again.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import orjson
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from aitbc.core import db
from aitbc.core.auth import caller
from aitbc.core.errors import Conflict, Invalid

MAX_KEY = 255


def read_key(request: HttpRequest) -> str | None:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise Invalid("idempotency.key", f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    return key


def digest(request: HttpRequest) -> bytes:
    return hashlib.sha256(f"{request.method} {request.get_full_path()}\n".encode() + request.body).digest()


def refuse(state: str) -> None:
    """Turn the database's verdict on a key into our words."""
    if state == "in_flight":
        raise Conflict("idempotency.in_flight", "a request with this Idempotency-Key is still running")
    if state == "mismatch":
        raise Invalid("idempotency.mismatch", "this Idempotency-Key was used with another request")


def replayed(body: str, status: int) -> HttpResponse:
    response = json_response(body, status)
    response["Idempotency-Replayed"] = "true"
    return response


def json_response(body: str | bytes, status: int = 200) -> HttpResponse:
    return HttpResponse(body, content_type="application/json", status=status)


def idempotent(
    route: str, reveal: Callable[[str], str] = str
) -> Callable[[Callable[..., Any]], Callable[..., HttpResponse]]:
    """Wrap a ninja view that returns `(status, JSON-able)`; opens the transaction of its work.

    `reveal` makes what is sent of what is stored, where the answer holds what no table may hold.
    """

    def decorate(view: Callable[..., Any]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            key = read_key(request)
            with transaction.atomic():
                if key is not None and (stored := _stored(request, route, key)) is not None:
                    return replayed(reveal(stored[0]), stored[1])
                status, answer = view(request, *args, **kwargs)
                body = answer if isinstance(answer, str) else orjson.dumps(answer, default=str).decode()
                if key is not None:
                    _store(request, route, key, status, body)
            return json_response(reveal(body), status)

        return wrapper

    return decorate


def _stored(request: HttpRequest, route: str, key: str) -> tuple[str, int] | None:
    found = db.row(
        "SELECT * FROM core_idempotency_begin(%s, %s, %s, %s)", (caller(request).user_id, route, key, digest(request))
    )
    assert found is not None  # the function always returns one row
    state, status, body = found
    refuse(state)
    return (body, status) if state == "replay" else None


def _store(request: HttpRequest, route: str, key: str, status: int, body: str) -> None:
    db.rows(
        "SELECT core_idempotency_store(%s, %s, %s, %s, %s, %s)",
        (caller(request).user_id, route, key, digest(request), status, body),
    )
