"""Reviews to approve or reject, and what scores are made of."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from orjson import loads

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, once
from apps.marketplace.models import Reputation, Review
from apps.trading.services.escrow import call


def _moderation(name: str, label: str, icon: str, after: str) -> Operation:
    def moderate(review: Any, by: Any, fields: Any) -> None:
        call("review_moderate", by.pk, review.pk, after)

    return Operation(
        name=name,
        label=label,
        icon=icon,
        question=f"{label} this review?",
        effect="The score of whom it is about follows at once.",
        done=f"Reviews {after}",
        service=moderate,
        is_apt=lambda review: review.state != after,
    )


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    icon = "reviews"
    list_display = ("ident", "status", "overall", "author_shown", "subject_shown", "text", "created_at")
    list_select_related = ("author", "subject")
    list_filter = ("state",)
    search_fields = ("id", "deal", "author__email", "subject__email")
    fields = (("status", "overall"), ("author_shown", "subject_shown"), "deal", "text", "created_at")
    operations = (
        _moderation("approve", "Approve", "check", "approved"),
        _moderation("reject", "Reject", "block", "rejected"),
    )

    status = state({"approved": "success", "pending": "warning", "rejected": "danger"})
    author_shown = column("By", "author", show.to)
    subject_shown = column("About", "subject", show.to)


def _told(user: UUID) -> Any:
    return loads(call("reputation_document", user)) | {
        "history": loads(call("reputation_history", user, None, 50))["items"]
    }


@admin.register(Reputation)
class ReputationAdmin(ReadOnlyAdmin):
    icon = "military_tech"
    list_display = ("user_shown", "score", "ok", "failed", "lost", "computed_at")
    list_select_related = ("user",)
    search_fields = ("user__email",)
    fields = ("user_shown", "document")

    user_shown = column("User", "user", show.to)
    document = once(column("Now, and what changed it last", lambda row: show.document(_told(row.pk))))
