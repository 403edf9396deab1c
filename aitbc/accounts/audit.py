"""Tells the database's audit log (`sql/audit.sql`) who acts, and what only the web sees: who signs in."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.contrib.auth.signals import user_logged_in, user_login_failed
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse

from aitbc.accounts.models import User
from aitbc.core import db
from aitbc.core.errors import Unavailable
from aitbc.core.http import problem_response

_PREFIX = re.compile(r"Bearer ait_([0-9a-z]{12})_", re.ASCII)
_NOTED = ("/admin/", "/api/", "/v1/withdrawals")
_SET = "SELECT set_config('aitbc.audit', %s, false)"


class AuditMiddleware:
    """Around what a person may change; of /v1, which machines drive in a loop, only withdrawals."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            if context := _context(request):
                db.rows(_SET, (json.dumps(context),))
        except DatabaseError:
            return problem_response(request, Unavailable("database.unavailable", "the database is away"))
        if context is None:
            return self.get_response(request)
        try:
            return self.get_response(request)
        finally:
            with suppress(DatabaseError):  # a connection that is lost has lost it as well
                db.rows(_SET, ("",))


def _context(request: Any) -> dict[str, str] | None:
    """None where nothing is noted: of reading, of other machines, of who is nobody and does not sign in."""
    if request.method in ("GET", "HEAD", "OPTIONS") or not request.path.startswith(_NOTED):
        return None
    console = request.path.startswith("/admin/")  # knows no keys: one in the header says nothing there
    key = None if console else _PREFIX.match(request.headers.get("Authorization", ""))
    user = getattr(request, "user", None)  # /v1 reads keys alone
    actor = f"key:{key[1]}" if key else str((user and user.pk) or "anonymous")
    if actor == "anonymous" and not console:
        return None
    return {"actor": actor, "request_id": request.request_id, "address": request.META.get("REMOTE_ADDR", "")}


def note(action: str, subject: str, after: dict[str, Any]) -> None:
    """Add what no row of a table shows, in the caller's transaction if there is one."""
    db.rows("SELECT audit_write(%s, %s, NULL, %s::jsonb)", (action, subject, json.dumps(after)))


def connect() -> None:
    user_logged_in.connect(_logged_in, dispatch_uid="audit")
    user_login_failed.connect(_login_failed, dispatch_uid="audit")


def _logged_in(user: User, **_: Any) -> None:
    note("login.succeeded", f"user:{user.pk}", {})


def _login_failed(credentials: dict[str, Any], **_: Any) -> None:
    note("login.failed", "user:unknown", {"email": str(credentials.get("username", ""))[:254]})
