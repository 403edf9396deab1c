"""Reviews to approve or reject."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin
from apps.marketplace.models import Review
from apps.trading.services.escrow import call


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    icon = "reviews"
    list_display = ("ident", "status", "overall", "author_shown", "subject_shown", "text", "created_at")
    list_select_related = ("author", "subject")
    list_filter = ("state",)
    search_fields = ("id", "deal", "author__email", "subject__email")
    fields = (("status", "overall"), ("author_shown", "subject_shown"), "deal", "text", "created_at")
    operations = tuple(
        Operation(
            name=label.lower(),
            label=label,
            icon=icon,
            question=f"{label} this review?",
            effect="The score of whom it is about follows at once.",
            done=f"Reviews {after}",
            service=lambda row, by, _, to=after: call("review_moderate", by.pk, row.pk, to),  # type: ignore[misc]
            is_apt=lambda row, to=after: row.state != to,  # type: ignore[misc]
        )
        for label, icon, after in (("Approve", "check", "approved"), ("Reject", "block", "rejected"))
    )

    status = state({"approved": "success", "pending": "warning", "rejected": "danger"})
    author_shown = column("By", "author", show.to)
    subject_shown = column("About", "subject", show.to)
