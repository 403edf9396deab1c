"""Who is calling, without the web frameworks: workers and commands import this and start faster for it."""

from dataclasses import dataclass
from uuid import UUID

from aitbc.core import ports
from aitbc.core.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a machine API: a key, its user, and what the key may do."""

    key_id: UUID
    prefix: str
    user_id: UUID
    role: str
    scopes: frozenset[str]

    def has(self, scope: str) -> bool:
        return scope in self.scopes or f"{scope.partition(':')[0]}:*" in self.scopes


def authenticate(token: str) -> Principal:
    """The principal of a key, or Unauthenticated; the port is `auth.key`."""
    principal: Principal | None = ports.get("auth.key")(token)
    if principal is None:
        raise Unauthenticated("auth.invalid_key", "this API key is unknown, expired or revoked")
    return principal
