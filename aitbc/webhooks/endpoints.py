"""Users' endpoints: the work on the tables is in webhooks.sql; here are the secrets and who may hear what.

A secret is derived from a nonce and the platform's own key, shown when it is made and kept nowhere.
"""

import base64
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import salted_hmac

from aitbc.core import db
from aitbc.core.auth import caller
from aitbc.core.errors import Conflict, Forbidden, Invalid, NotFound
from aitbc.core.principal import Principal
from aitbc.webhooks.events import CATALOGUE


@lru_cache(10_000)
def keys(endpoint: UUID, nonce: bytes) -> tuple[bytes, ...]:
    """What signs; more than one key only while the platform's own is being replaced."""
    salt, value = "aitbc.webhooks", endpoint.bytes + nonce
    masters = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return tuple(salted_hmac(salt, value, secret=one, algorithm="sha256").digest() for one in masters)


def with_secret(answer: str) -> str:
    """The answer as its caller gets it: stored ones hold the nonce where the secret belongs."""
    found = orjson.loads(answer)
    key = keys(UUID(found["id"]), bytes.fromhex(found["secret"]))[0]
    return orjson.dumps(found | {"secret": "whsec_" + base64.b64encode(key).decode()}).decode()


def ask(function: str, request: HttpRequest, *params: Any) -> str:
    """The JSON that webhooks.sql answers the caller."""
    values = (caller(request).user_id, *params)
    marks = ", ".join(["%s"] * len(values))
    answer: str | None = db.value(f"SELECT webhooks_{function}({marks})::text", values)
    if answer is None and function == "create":
        raise Conflict("webhook.too_many", "a user has at most 20 webhooks")
    if answer is None:
        raise NotFound("webhook.unknown", "you have no such webhook or delivery")
    return answer


def require_events(who: Principal, events: list[str]) -> None:
    """Who has events sent somewhere must be allowed to read what they tell of."""
    if unknown := sorted(set(events) - CATALOGUE.keys()):
        error = {"loc": ["body", "events"], "msg": f"known events: {', '.join(CATALOGUE)}"}
        raise Invalid("webhook.events", f"unknown events: {', '.join(unknown)}", errors=[error])
    for scope in sorted({CATALOGUE[event] for event in events or CATALOGUE}):
        if not who.has(scope):
            raise Forbidden("auth.scope", f"for these events a key needs {scope}", scope=scope)
