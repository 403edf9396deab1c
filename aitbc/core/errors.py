"""The five ways in which the domain says no. Edges never catch them; `aitbc.core.http` renders them once."""

from typing import Any, Self


class DomainError(Exception):
    """`code` is stable and machine-readable, `message` is for people; neither holds internal text."""

    status = 500
    title = "Error"

    def __init__(self, code: str, message: str, **context: Any) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.context = context


class NotFound(DomainError):
    """Absent, or not yours to see."""

    status, title = 404, "Not found"


class Invalid(DomainError):
    """The input is wrong; `errors=[{"loc": [...], "msg": "..."}]` names the fields."""

    status, title = 422, "Invalid input"

    @classmethod
    def field(cls, name: str, message: str) -> Self:
        """For one member of the request's body."""
        return cls("request.invalid", message, errors=[{"loc": ["body", name], "msg": message}])


class Forbidden(DomainError):
    status, title = 403, "Forbidden"


class Conflict(DomainError):
    """The request is well-formed but the state of things does not allow it."""

    status, title = 409, "Conflict"


class Unavailable(DomainError):
    """A dependency is missing for now. The only error that is worth a retry."""

    status, title = 503, "Unavailable"


class NotReady(Conflict):
    """The answer does not exist yet (RFC 8470's 425, as the fixed contract wants it)."""

    status, title = 425, "Too early"


class Unauthenticated(Forbidden):
    status, title = 401, "Unauthenticated"


class TooMany(DomainError):
    """Over a rate limit or quota; `retry_after` in seconds is in the context."""

    status, title = 429, "Too many requests"
