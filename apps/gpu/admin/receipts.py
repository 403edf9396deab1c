"""Receipts: the document, whether it verifies right now, and where it is anchored."""

from django.conf import settings
from django.contrib import admin
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.columns import column, link
from aitbc.core.errors import DomainError
from aitbc.core.pages import ReadOnlyAdmin, once
from apps.gpu import receipts, verification
from apps.gpu.models import Receipt
from apps.gpu.selectors import receipts as selectors
from apps.trading.models import ReceiptLeaf, SettlementBatch

_CHECKS = {
    "signature": "the platform's signature over units, price and times",
    "counter_signature": "the miner's signature over the work statement",
    "price": "total = units at the agreed price, fee inside it",
    "merkle": "the anchor's Merkle proof",
}
_OUTCOMES = {True: "holds", False: "fails", None: "nothing to check"}


def verify(receipt: Receipt) -> tuple[verification.Verdict | None, SafeString]:
    """The verdict on the stored document now, and the same in words; None: it could not be reached."""
    try:
        verdict = verification.verify(
            selectors.with_anchor(receipt), platform_addresses=receipts.network_addresses(), chain_id=settings.CHAIN_ID
        )
    except DomainError as error:
        return None, show.verdict(None, f"not verified: {error.message}")
    if not verdict.valid:
        return verdict, show.verdict(False, f"invalid: {verdict.reason}")
    anchored = "anchored" if verdict.checks["merkle"] else "not anchored yet"
    return verdict, show.verdict(True, f"valid, {anchored}")


@admin.register(Receipt)
class ReceiptAdmin(ReadOnlyAdmin):
    icon = "verified"
    list_display = ("ident", "kind", "units", "total_amount", "fee_amount", "leaf_short", "created_at")
    search_fields = ("job_id",)
    search_help_text = "Job"
    ordering = ("-job_id",)
    sections = {
        None: (("job_shown", "kind"), ("units", "created_at"), ("total_amount", "fee_amount")),
        "Verification": ("checks",),
        "Anchor": ("leaf_shown", "anchor"),
        "Signers": ("platform_shown", "miner_shown"),
        "Document": ("document_shown",),
    }

    job_shown = link("Job", "gpu_job", "pk")
    kind = column("Kind", lambda receipt: receipt.document["statement"]["kind"])
    units = column("Metered", lambda receipt: show.duration(receipt.document["units"]))
    total_amount = column("Total", lambda receipt: show.decimal(**receipt.document["total"]))
    fee_amount = column("Fee", lambda receipt: show.decimal(**receipt.document["fee"]))
    leaf_short = column("Leaf", "leaf", show.short)
    leaf_shown = column("Leaf", "leaf", show.code)
    platform_shown = column("Platform", lambda receipt: show.code(receipt.document["platform"]["address"]))
    miner_shown = column("Miner", lambda receipt: show.code(receipt.document["miner"]["address"]))
    document_shown = column("As signed", "document", show.document)

    @display(description="Checked just now")
    @once
    def checks(self, receipt: Receipt) -> str:
        verdict, words = verify(receipt)
        if verdict is None:
            return words
        lines = [(show.verdict(result, _OUTCOMES[result]), _CHECKS[name]) for name, result in verdict.checks.items()]
        return mark_safe(words + show.table(("Check", "Of"), lines))  # both are escaped

    @display(description="Anchored in")
    @once
    def anchor(self, receipt: Receipt) -> str:
        leaf = ReceiptLeaf.objects.select_related("batch").filter(job=receipt.pk).first()
        if leaf is None:
            return "Nowhere: its leaf is missing."
        if leaf.batch is None:
            return "Not yet: it waits for the next settlement batch."
        return _anchor_table(receipt, leaf, leaf.batch)


def _anchor_table(receipt: Receipt, leaf: ReceiptLeaf, batch: SettlementBatch) -> SafeString | str:
    found = selectors.anchor_of(receipt.pk)
    lines: list[tuple[object, ...]] = [
        ("Batch", show.link("trading_settlementbatch", batch.pk, batch.pk)),
        ("State", batch.get_state_display()),
        ("Place in the tree", f"{(leaf.position or 0) + 1} of {batch.receipts}"),
        ("Merkle root", show.code(batch.root)),
        ("Transaction", show.code(batch.tx_hash)),
        ("Block", batch.block if batch.block is not None else show.NOTHING),
    ]
    if found:
        lines.append(("Proof", f"{len(found.proof)} hashes"))
    return show.table(("", ""), lines)
