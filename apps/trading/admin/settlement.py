"""Receipts on their way to the chain, and the batches that anchor them."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import ReadOnlyAdmin, SetFilter
from apps.trading.models import ReceiptLeaf, SettlementBatch

STATES = {"sealed": "info", "final": "success", "failed": "danger", "review": "warning", "lapsed": "danger"}


class BatchedFilter(SetFilter):
    title, parameter_name, column = "batch", "batched", "batch"
    answers = ("Waits for a batch", "In a batch")


@admin.register(ReceiptLeaf)
class ReceiptLeafAdmin(ReadOnlyAdmin):
    icon = "eco"
    list_display = ("id", "leaf_short", "job_shown", "batch_shown", "position", "created_at")
    list_select_related = ("batch",)
    list_filter = (BatchedFilter,)
    search_fields = ("id", "job", "batch__id")
    fields = (("id", "created_at"), "leaf_shown", ("job_shown", "receipt"), ("batch_shown", "position"))

    leaf_short = column("Leaf", "leaf", show.short)
    leaf_shown = column("Leaf", "leaf", show.code)
    job_shown = link("Job", "gpu_job", "job")
    receipt = column("Receipt", lambda leaf: show.link("gpu_receipt", leaf.job, "Receipt of this job"))
    batch_shown = link("Batch", "trading_settlementbatch", "batch_id")


class BatchColumns:
    """What batches of receipts and of payouts show alike."""

    status = state(STATES)
    root_shown = column("Merkle root", "root", show.code)


@admin.register(SettlementBatch)
class SettlementBatchAdmin(BatchColumns, ReadOnlyAdmin):
    icon = "anchor"
    list_display = (
        "ident", "status", "network", "receipts", "root_short", "block", "gas_used", "created_at",
        "finalized_at",
    )  # fmt: skip
    list_filter = ("state",)
    search_fields = ("id", "tx_hash", "root")
    sections = {
        None: (("status", "network"), ("receipts", "leaves"), "id"),
        "Anchor": ("root_shown", "tx", ("block", "gas_used")),
        "Times": (("created_at", "finalized_at"),),
    }

    root_short = column("Root", "root", show.short)
    leaves = column("Leaves", lambda batch: show.listed("trading_receiptleaf", "Its receipts' leaves", q=batch.pk))
