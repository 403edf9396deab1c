"""Receipts on their way to the chain, and the batches that anchor them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin
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

    @display(description="Leaf")
    def leaf_short(self, leaf: ReceiptLeaf) -> str:
        return show.short(leaf.leaf)

    @display(description="Leaf")
    def leaf_shown(self, leaf: ReceiptLeaf) -> str:
        return show.code(leaf.leaf)

    @display(description="Job")
    def job_shown(self, leaf: ReceiptLeaf) -> str:
        return show.link("gpu_job", leaf.job)

    @display(description="Receipt")
    def receipt(self, leaf: ReceiptLeaf) -> str:
        return show.link("gpu_receipt", leaf.job, "Receipt of this job")

    @display(description="Batch")
    def batch_shown(self, leaf: ReceiptLeaf) -> str:
        return show.link("trading_settlementbatch", leaf.batch_id)


@admin.register(SettlementBatch)
class SettlementBatchAdmin(ReadOnlyAdmin):
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
    fieldsets = (
        (None, {"fields": (("state_shown", "network"), ("receipts", "leaves"), "id")}),
        ("Anchor", {"fields": ("root_shown", "tx_shown", ("block", "gas_used"))}),
        ("Times", {"fields": (("created_at", "finalized_at"),)}),
    )

    @display(description="Id")
    def id_shown(self, batch: SettlementBatch) -> str:
        return show.short(batch.pk)

    @display(description="State", ordering="state")
    def state_shown(self, batch: SettlementBatch) -> str:
        return show.state(batch.state, STATES)

    @display(description="Root")
    def root_short(self, batch: SettlementBatch) -> str:
        return show.short(batch.root)

    @display(description="Merkle root")
    def root_shown(self, batch: SettlementBatch) -> str:
        return show.code(batch.root)

    @display(description="Transaction")
    def tx_shown(self, batch: SettlementBatch) -> str:
        return show.code(batch.tx_hash)

    @display(description="Leaves")
    def leaves(self, batch: SettlementBatch) -> str:
        return show.listed("trading_receiptleaf", "Its receipts' leaves", q=batch.pk)
