"""One shape for every error of every API: RFC 9457 problem details, made in one place."""

from typing import Any

import orjson
import structlog
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from ninja.errors import AuthenticationError, HttpError
from ninja.errors import ValidationError as NinjaValidationError
from rest_framework import exceptions as drf
from rest_framework.views import set_rollback

from aitbc.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, TooMany, Unauthenticated, Unavailable

log = structlog.get_logger(__name__)
PROBLEM = "application/problem+json"


def problem(request: HttpRequest, error: DomainError) -> dict[str, Any]:
    """The members of RFC 9457 plus `code`, `request_id` and, for validation, `errors`."""
    body: dict[str, Any] = {
        "type": f"urn:aitbc:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "instance": request.path,
        "code": error.code,
        "request_id": getattr(request, "request_id", None),
    }
    return body | {k: v for k, v in error.context.items() if k not in ("retry_after", "headers")}


def problem_response(request: HttpRequest, error: DomainError) -> HttpResponse:
    response = HttpResponse(
        orjson.dumps(problem(request, error), default=str), content_type=PROBLEM, status=error.status
    )
    if error.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    if "retry_after" in error.context or error.status == 503:
        response["Retry-After"] = str(error.context.get("retry_after", 1))
    return response


def from_validation(errors: list[dict[str, Any]]) -> Invalid:
    """Ninja puts its parameter's name, by our habit `body`, between the source and the field."""
    fields = []
    for error in errors:
        loc = [str(part) for part in error["loc"]]
        fields.append({"loc": loc[1:] if loc[:2] == ["body", "body"] else loc, "msg": error["msg"]})
    return Invalid("request.invalid", "the request does not have the documented shape", errors=fields)


def as_domain_error(error: Exception) -> DomainError | None:
    """The frameworks' own exceptions in our words; None for what is a bug of ours."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, NinjaValidationError):
        return from_validation(error.errors)
    if isinstance(error, drf.ValidationError):
        return from_validation(list(_flatten(error.detail, ("body",))))
    if isinstance(error, AuthenticationError | drf.NotAuthenticated | drf.AuthenticationFailed):
        return Unauthenticated("auth.required", "this needs a valid API key or a session")
    if isinstance(error, PermissionDenied | drf.PermissionDenied):
        return Forbidden("auth.forbidden", "you may not do this")
    if isinstance(error, Http404 | drf.NotFound):
        return NotFound("http.not_found", "there is nothing here")
    if isinstance(error, SuspiciousOperation | BadRequest):
        return _with_status(400, "the request is malformed")
    if isinstance(error, drf.Throttled):
        return TooMany("http.too_many", "too many requests", retry_after=int(getattr(error, "wait", None) or 1))
    if isinstance(error, OperationalError | InterfaceError):
        log.warning("the database refused to work", exc_info=error)
        return Unavailable("database.unavailable", "the database does not answer now; try again")
    if isinstance(error, HttpError):
        if isinstance(error.__cause__, DomainError):  # ninja wraps what the body's parser raises
            return error.__cause__
        return _with_status(error.status_code, str(error))
    return _with_status(error.status_code, "") if isinstance(error, drf.APIException) else None


def _with_status(status: int, text: str) -> DomainError:
    error = Conflict("http.malformed" if status == 400 else f"http.{status}", text or "the request was refused")
    error.status, error.title = status, "Malformed request" if status == 400 else "Refused"
    return error


def _flatten(detail: Any, loc: tuple[str, ...]) -> Any:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _flatten(inner, (*loc, str(name)))
    elif isinstance(detail, list):
        for inner in detail:
            yield from _flatten(inner, loc)
    else:
        yield {"loc": loc, "msg": str(detail)}


def drf_exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    known = as_domain_error(error)
    if known is None:
        return None
    set_rollback()
    return problem_response(context["request"], known)


def unexpected(request: HttpRequest, error: Exception) -> HttpResponse:
    """A bug: the reader gets the request id, the log gets the traceback."""
    log.error("request failed", path=request.path, method=request.method, exc_info=error)
    hidden = DomainError("internal.error", "something went wrong on our side; quote the request id")
    return problem_response(request, hidden)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """A problem document for the APIs, a plain page for people."""
    if request.path.startswith(("/v1/", "/api/", "/health/")):
        return problem_response(request, NotFound("http.not_found", "there is nothing at this address"))
    return HttpResponse("Not found.", content_type="text/plain", status=404)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """What Django itself refuses before a view, a foreign Host for one."""
    if request.path.startswith(("/v1/", "/api/", "/health/")):
        return problem_response(request, _with_status(400, "the request is malformed"))
    return HttpResponse("Bad request.", content_type="text/plain", status=400)


def server_error(request: HttpRequest) -> HttpResponse:
    """The last line, when even the error middleware was not reached."""
    return problem_response(request, DomainError("internal.error", "something went wrong on our side"))
