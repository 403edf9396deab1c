"""API keys: made once, shown once, kept as a hash."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models.functions import Now

from aitbc.accounts.models import ApiKey, User
from aitbc.core import db
from aitbc.core.clock import database_now
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.principal import Principal

SCOPES = (
    "jobs:read",
    "jobs:write",
    "miner",
    "offers:write",
    "money:read",
    "money:write",
    "webhooks:read",
    "webhooks:write",
    "admin:read",
    *("jobs:*", "offers:*", "money:*", "webhooks:*"),  # all of a group, also what it gets later
)
_SHAPE = re.compile(r"ait_([0-9a-z]{12})_([0-9A-Za-z_-]{43})", re.ASCII)
_FIND = """
SELECT k.id, k.prefix, k.secret_hash, k.scopes, u.id, u.role,
       k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute'
  FROM accounts_apikey k JOIN accounts_user u ON u.id = k.user_id
 WHERE k.prefix = %s AND k.revoked_at IS NULL AND u.is_active
   AND (k.expires_at IS NULL OR k.expires_at > now())
"""


_RECENT_SECONDS = 1.0
_MOST_RECENT = 10_000
_recent: dict[bytes, tuple[Principal, float]] = {}


def create_key(
    *, user: User, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its only clear copy. Raises Invalid for unknown scopes or an end that has passed."""
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise Invalid(
            "key.scopes",
            f"unknown scopes: {', '.join(unknown)}" if unknown else "a key needs at least one scope",
            errors=[{"loc": ["body", "scopes"], "msg": f"known scopes: {', '.join(SCOPES)}"}],
        )
    if expires_at is not None and expires_at <= database_now():
        raise Invalid(
            "key.expires_at",
            "a key cannot end in the past",
            errors=[{"loc": ["body", "expires_at"], "msg": "must be in the future"}],
        )
    prefix = "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(12))
    secret = secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        user=user, name=name, prefix=prefix, secret_hash=_hash(secret), scopes=wanted, expires_at=expires_at
    )
    return key, f"ait_{prefix}_{secret}"


def revoke_key(*, key_id: UUID, user: User | None = None) -> ApiKey:
    """Stop a key at once; a second call changes nothing. `user` limits it to his own keys."""
    keys = ApiKey.objects.filter(pk=key_id) if user is None else user.api_keys.filter(pk=key_id)
    keys.filter(revoked_at=None).update(revoked_at=Now())
    _recent.clear()
    if (key := keys.first()) is None:
        raise NotFound("key.unknown", "there is no such key")
    return key


def find_principal(token: str) -> Principal | None:
    """Who a key speaks for. An answer is remembered for a second: a key that is revoked elsewhere, or
    whose user was switched off, works that much longer at most; in this process it stops at once."""
    digest = _hash(token)
    known = _recent.get(digest)
    if known is not None and known[1] > time.monotonic():
        return known[0]
    principal = _look_up(token)
    if principal is not None:
        if len(_recent) >= _MOST_RECENT:
            _recent.clear()
        _recent[digest] = (principal, time.monotonic() + _RECENT_SECONDS)
    return principal


def _look_up(token: str) -> Principal | None:
    match = _SHAPE.fullmatch(token)
    found = db.row(_FIND, (match[1],)) if match else None
    if match is None or found is None or not hmac.compare_digest(bytes(found[2]), _hash(match[2])):
        return None
    key_id, prefix, _, scopes, user_id, role, stale = found
    if stale:
        ApiKey.objects.filter(pk=key_id).update(last_used_at=Now())
    return Principal(key_id, prefix, user_id, role, frozenset(scopes))


def find_user(user_id: UUID) -> User:
    return User.objects.get(pk=user_id)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
