"""Django's middleware for browsers, which need the loaded apps; `middleware` has those of every request."""

from typing import Any

from django.contrib.auth import middleware as authentication
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest
from django.middleware import common


class _People:
    """Django's middleware for browsers; machines under /v1 have no cookies and pay nothing for them."""

    get_response: Any

    def __call__(self, request: HttpRequest) -> Any:
        if request.path.startswith("/v1/"):
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]  # the middleware this is mixed into


def _for_people(middleware: type) -> type:
    return type(middleware.__name__, (_People, middleware), {})


SessionMiddleware = _for_people(sessions.SessionMiddleware)
CommonMiddleware = _for_people(common.CommonMiddleware)
AuthenticationMiddleware = _for_people(authentication.AuthenticationMiddleware)
MessageMiddleware = _for_people(messages.MessageMiddleware)
