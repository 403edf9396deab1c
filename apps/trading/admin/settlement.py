"""Receipts on their way to the chain, and the batches that anchor them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import ReadOnlyAdmin, sections
from apps.trading.models import ReceiptLeaf, SettlementBatch

STATES = {"sealed": "info", "final": "success", "failed": "danger"}


class BatchedFilter(admin.SimpleListFilter):
    title = "batch"
    parameter_name = "batched"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Waits for a batch"), ("yes", "In a batch")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(batch__isnull=self.value() == "no")


@admin.register(ReceiptLeaf)
class ReceiptLeafAdmin(ReadOnlyAdmin):
    icon = "eco"
    list_display = ("id", "leaf_short", "job_shown", "batch_shown", "position", "created_at")
    list_select_related = ("batch",)
    list_filter = (BatchedFilter,)
    search_fields = ("id", "job", "batch__id")
    search_help_text = "Number, job or batch"
    ordering = ("-id",)
    fields = (("id", "created_at"), "leaf_shown", ("job_shown", "receipt"), ("batch_shown", "position"))

    leaf_short = column("Leaf", "leaf", show.short)
    leaf_shown = column("Leaf", "leaf", show.code)
    job_shown = link("Job", "gpu_job", "job")
    receipt = column("Receipt", lambda leaf: show.link("gpu_receipt", leaf.job, "Receipt of this job"))
    batch_shown = link("Batch", "trading_settlementbatch", "batch_id")


class BatchColumns:
    """What batches of receipts and of payouts show alike."""

    state_shown = state(STATES)
    root_shown = column("Merkle root", "root", show.code)
    tx_shown = column("Transaction", "tx_hash", show.code)


@admin.register(SettlementBatch)
class SettlementBatchAdmin(BatchColumns, ReadOnlyAdmin):
    icon = "anchor"
    list_display = (
        "id_shown",
        "state_shown",
        "network",
        "receipts",
        "root_short",
        "block",
        "gas_used",
        "created_at",
        "finalized_at",
    )
    list_filter = ("state",)
    search_fields = ("id", "tx_hash", "root")
    search_help_text = "Id, transaction or root"
    fieldsets = sections(
        {
            None: (("state_shown", "network"), ("receipts", "leaves"), "id"),
            "Anchor": ("root_shown", "tx_shown", ("block", "gas_used")),
            "Times": (("created_at", "finalized_at"),),
        }
    )

    root_short = column("Root", "root", show.short)
    leaves = column(
        "Leaves", lambda batch: show.listed("trading_receiptleaf", "Its receipts' leaves", q=batch.pk)
    )
