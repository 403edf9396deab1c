"""The middleware of every request. They know no app; order is in the settings."""

import os
import re
import time
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from aitbc.core import ratelimit
from aitbc.core.errors import DomainError, Invalid, TooMany
from aitbc.core.http import as_domain_error, problem_response, unexpected

log = structlog.get_logger(__name__)
GetResponse = Callable[[HttpRequest], HttpResponse]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
API_PREFIXES = ("/v1/", "/api/")
BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")


class _Middleware:
    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response


class RequestIDMiddleware(_Middleware):
    """A request id in the answer's header, in every log line and in every problem document."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(12).hex()
        request.request_id = request_id  # type: ignore[attr-defined]  # read by core.http
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        if not response.streaming and "Content-Length" not in response:
            response["Content-Length"] = str(len(response.content))
        return response


class PerformanceLoggingMiddleware(_Middleware):
    """A line per request that was slow or failed; the time is measured here."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        start = time.perf_counter()
        response = self.get_response(request)
        ms = (time.perf_counter() - start) * 1000
        if ms >= settings.SLOW_REQUEST_MS or response.status_code >= 500:
            log.warning(
                "slow request" if response.status_code < 500 else "failed request",
                method=request.method,
                path=request.path,
                status=response.status_code,
                ms=round(ms, 1),
            )
        return response


class RequestValidationMiddleware(_Middleware):
    """Refuses what no view wants to see, before a body is read."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith(API_PREFIXES):
            if error := self._refusal(request):
                return problem_response(request, error)
        return self.get_response(request)

    def _refusal(self, request: HttpRequest) -> DomainError | None:
        if "\x00" in request.path or "\x00" in request.META.get("QUERY_STRING", "").replace("%00", "\x00"):
            return Invalid("request.null_byte", "the address holds a null byte")
        if request.method in BODILESS:
            return None
        artifact = request.path.startswith(("/v1/artifacts/", "/v1/uploads/"))
        length = request.META.get("CONTENT_LENGTH") or "0"
        if length == "0" and "HTTP_TRANSFER_ENCODING" in request.META:  # WSGI shows such a body as empty
            return _status(411, "request.length_required", "send the body with its Content-Length")
        limit = settings.MAX_ARTIFACT_BYTES if artifact else settings.MAX_BODY_BYTES
        if not (length.isascii() and length.isdecimal()) or int(length) > limit:
            return _status(413, "request.too_large", f"a body of this route has at most {limit} bytes")
        kind = request.content_type or ""
        if int(length) and not artifact and kind != "application/json" and not kind.endswith("+json"):
            return _status(415, "request.media_type", "send application/json")
        if request.method == "PATCH" and artifact and kind != "application/offset+octet-stream":  # as tus 1.0 has it
            return _status(415, "request.media_type", "send application/offset+octet-stream")
        return None


class RateLimitMiddleware(_Middleware):
    """A sliding window per API key, else per address, shared by all workers through Redis.

    A key is only claimed here. What turns out to be none is also counted against its address, or
    guessing keys would have no limit.
    """

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not settings.RATE_LIMIT_ENABLED or not request.path.startswith(API_PREFIXES):
            return self.get_response(request)
        verdict = ratelimit.admit(*_bucket(request))
        if not verdict.admitted:
            return _too_many(request, verdict)
        response = self.get_response(request)
        if response.status_code == 401 and _is_key(request):
            guesses = ratelimit.admit(*_address(request))
            if not guesses.admitted:
                return _too_many(request, guesses)
        return _with_headers(response, verdict)


class ErrorHandlerMiddleware(_Middleware):
    """Turns what a view let through into a problem document, for the APIs only."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code == 405 and request.path.startswith(API_PREFIXES):
            allowed = response.get("Allow", "")
            error = _status(405, "http.method_not_allowed", f"this address takes {allowed}")
            response = problem_response(request, error)
            response["Allow"] = allowed
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not request.path.startswith((*API_PREFIXES, "/health/")):
            return None
        known = as_domain_error(error)
        return problem_response(request, known) if known else unexpected(request, error)


def _status(status: int, code: str, message: str) -> DomainError:
    error = DomainError(code, message)
    error.status, error.title = status, "Refused"
    return error


def _too_many(request: HttpRequest, verdict: ratelimit.Verdict) -> HttpResponse:
    error = TooMany("rate_limit.exceeded", "too many requests", retry_after=verdict.reset)
    return _with_headers(problem_response(request, error), verdict)


def _is_key(request: HttpRequest) -> bool:
    return bool(request.META.get("HTTP_AUTHORIZATION", "")[:11].lower() == "bearer ait_")


def _bucket(request: HttpRequest) -> tuple[str, int]:
    if _is_key(request):
        return f"key:{request.META['HTTP_AUTHORIZATION'][11:23]}", settings.RATE_LIMIT_PER_MINUTE
    return _address(request)


def _address(request: HttpRequest) -> tuple[str, int]:
    return f"ip:{request.META.get('REMOTE_ADDR', '')}", settings.RATE_LIMIT_ANONYMOUS_PER_MINUTE


def _with_headers(response: HttpResponse, verdict: Any) -> HttpResponse:
    response["RateLimit-Policy"] = f'"default";q={verdict.limit};w=60'
    response["RateLimit"] = f'"default";r={verdict.remaining};t={verdict.reset}'
    return response
