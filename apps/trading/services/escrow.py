"""Python's door to what the parties of a payment and an operator may do: `sql/disputes.sql` has the rules."""

from typing import Any, Final, Literal
from uuid import UUID

from django.db import DatabaseError, transaction

from aitbc.core import db
from aitbc.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound, TooMany

Action = Literal["release", "refund", "dispute"]
_KINDS: Final[tuple[type[DomainError], ...]] = (Forbidden, NotFound, Conflict, Invalid, TooMany)
_REFUSALS: Final = {f"AI{kind.status}": kind for kind in _KINDS}


def call(function: str, *arguments: object) -> Any:
    """What an SQL function answers. What it refuses is raised in our words, and nothing was done."""
    try:
        with transaction.atomic():
            return db.value(f"SELECT {function}({', '.join(['%s'] * len(arguments))})", arguments)
    except DatabaseError as error:
        why = getattr(error.__cause__, "diag", None)
        if why is None or (refusal := _REFUSALS.get(why.sqlstate)) is None:
            raise
        wrong = {"loc": ["body", why.message_hint], "msg": why.message_detail}
        context: dict[str, Any] = {"errors": [wrong]} if why.message_hint else {}
        raise refusal(why.message_primary, why.message_detail, **context) from error


def act(action: Action, *, user: UUID, payment: UUID, job: UUID, reason: str, amount: int | None = None) -> str:
    """The payment as JSON text after its client released or disputed it, or its provider gave `amount` of
    it back (smallest units; None: all). A client's refund is a dispute. Conflict "payment.not_final",
    "payment.disputed", "payment.final", "payment.window_closed", "payment.dispute_resolved"."""
    return str(call(f"payment_{action}", user, payment, job, reason, amount))


def resolve(*, operator: UUID, payment: UUID, refund: int, note: str) -> None:
    """End a dispute: `refund` returns to the client, the fee's share in it; the provider keeps the rest."""
    call("payment_resolve", operator, payment, refund, note)
