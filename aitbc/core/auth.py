"""Who is calling: one authentication for ninja and DRF over one port that `aitbc.accounts` provides."""

from typing import Any

from django.http import HttpRequest
from ninja.security import HttpBearer
from rest_framework.authentication import BaseAuthentication, get_authorization_header

from aitbc.core import ports
from aitbc.core.errors import Forbidden, Unauthenticated
from aitbc.core.principal import Principal, authenticate

__all__ = ["ApiKey", "DrfApiKey", "PartyKey", "Principal", "authenticate", "caller"]


class ApiKey(HttpBearer):
    """Ninja authentication: `auth=ApiKey("jobs:write")`. The scope is part of the route's declaration."""

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def __call__(self, request: HttpRequest) -> Principal:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header[:7].lower() == "bearer ":
            raise Unauthenticated("auth.required", "send your key as 'Authorization: Bearer ait_...'")
        return self.authenticate(request, header[7:].strip())

    def authenticate(self, request: HttpRequest, token: str) -> Principal:
        principal = authenticate(token)
        if not principal.has(self.scope):
            raise Forbidden("auth.scope", f"this key lacks the scope {self.scope}", scope=self.scope)
        request.principal = principal  # type: ignore[attr-defined]  # requests carry it from here on
        return principal


class PartyKey(ApiKey):
    """For what clients and miners both do: the scope given, or `miner`."""

    def __call__(self, request: HttpRequest) -> Principal:
        try:
            return super().__call__(request)
        except Forbidden:
            return ApiKey("miner")(request)


class DrfApiKey(BaseAuthentication):
    """The same keys in Django REST framework; `request.auth` is the principal."""

    def authenticate(self, request: Any) -> tuple[Any, Principal] | None:
        kind, _, token = get_authorization_header(request).decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            return None
        principal = authenticate(token.strip())
        return ports.get("auth.user")(principal.user_id), principal

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


def caller(request: HttpRequest) -> Principal:
    principal: Principal = request.auth  # type: ignore[attr-defined]  # set by ninja
    return principal
