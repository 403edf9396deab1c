"""Payments as their parties see them."""

from typing import Any
from uuid import UUID

from django.db.models import Q

from aitbc.core import money
from aitbc.core.errors import NotFound
from apps.trading.models import Payment


def document(*, user: UUID, payment: UUID | None = None, job: UUID | None = None) -> dict[str, Any]:
    """By its id or by its job; only for the client and the provider."""
    wanted = Q(pk=payment) if payment else Q(job=job)
    found = Payment.objects.filter(wanted, Q(client_id=user) | Q(provider_id=user)).first()
    if found is None:
        raise NotFound("payment.unknown", "you have no such payment")
    amounts = {
        name: {"amount": money.show(getattr(found, name), 18), "asset": found.asset}
        for name in ("held", "released", "refunded", "fee")
    }
    return amounts | {
        "id": found.pk,
        "job": found.job,
        "state": found.state,
        "created_at": found.created_at,
        "resolved_at": found.resolved_at,
        "matures_at": found.matures_at,
    }
