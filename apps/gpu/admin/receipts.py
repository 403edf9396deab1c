"""Receipts: the document, whether it verifies right now, and where it is anchored."""

from django.contrib import admin
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import display

from aitbc.chain import networks
from aitbc.core import show
from aitbc.core.errors import DomainError
from aitbc.core.pages import ReadOnlyAdmin, once
from apps.gpu import receipts, verification
from apps.gpu.models import Receipt
from apps.gpu.selectors import receipts as selectors
from apps.trading.models import ReceiptLeaf

_CHECKS = {
    "signature": "the platform's signature over units, price and times",
    "counter_signature": "the miner's signature over the work statement",
    "price": "total = units at the agreed price, fee inside it",
    "merkle": "the anchor's Merkle proof",
}


def verify(receipt: Receipt) -> tuple[bool | None, str]:
    """(outcome, in words) of `verification.verify` on the stored document now; None: it could not run."""
    try:
        verdict = _verdict(receipt)
    except DomainError as error:
        return None, f"not verified: {error.message}"
    if not verdict.valid:
        return False, f"invalid: {verdict.reason}"
    return True, "valid, anchored" if verdict.checks["merkle"] else "valid, not anchored yet"


def _verdict(receipt: Receipt) -> verification.Verdict:
    return verification.verify(
        selectors.with_anchor(receipt),
        platform_addresses=receipts.network_addresses(),
        chain_id=networks.chain_id(),
    )


@admin.register(Receipt)
class ReceiptAdmin(ReadOnlyAdmin):
    icon = "verified"
    list_display = ("id_shown", "kind", "units", "total_amount", "fee_amount", "leaf_short", "created_at")
    search_fields = ("job_id",)
    search_help_text = "Job"
    ordering = ("-job_id",)
    fieldsets = (
        (None, {"fields": (("job_shown", "kind"), ("units", "created_at"), ("total_amount", "fee_amount"))}),
        ("Verification", {"fields": ("checks",)}),
        ("Anchor", {"fields": ("leaf_shown", "anchor")}),
        ("Signers", {"fields": ("platform_shown", "miner_shown")}),
        ("Document", {"fields": ("document_shown",)}),
    )

    @display(description="Id")
    def id_shown(self, receipt: Receipt) -> str:
        return show.short(receipt.pk)

    @display(description="Job")
    def job_shown(self, receipt: Receipt) -> str:
        return show.link("gpu_job", receipt.pk)

    @display(description="Kind")
    def kind(self, receipt: Receipt) -> str:
        return str(receipt.document["statement"]["kind"])

    @display(description="Metered")
    def units(self, receipt: Receipt) -> str:
        return show.duration(receipt.document["units"])

    @display(description="Total")
    def total_amount(self, receipt: Receipt) -> str:
        return _money(receipt, "total")

    @display(description="Fee")
    def fee_amount(self, receipt: Receipt) -> str:
        return _money(receipt, "fee")

    @display(description="Leaf")
    def leaf_short(self, receipt: Receipt) -> str:
        return show.short(receipt.leaf)

    @display(description="Leaf")
    def leaf_shown(self, receipt: Receipt) -> str:
        return show.code(receipt.leaf)

    @display(description="Checked just now")
    @once
    def checks(self, receipt: Receipt) -> str:
        ok, text = verify(receipt)
        if ok is None:
            return show.verdict(None, text)
        verdict = _verdict(receipt)
        lines = [
            (show.verdict(result, _outcome(result)), _CHECKS[name]) for name, result in verdict.checks.items()
        ]
        return mark_safe(show.verdict(ok, text) + show.table(("Check", "Of"), lines))  # both are escaped

    @display(description="Anchored in")
    @once
    def anchor(self, receipt: Receipt) -> str:
        leaf = ReceiptLeaf.objects.select_related("batch").filter(job=receipt.pk).first()
        if leaf is None:
            return "Nowhere: its leaf is missing."
        if leaf.batch is None:
            return "Not yet: it waits for the next settlement batch."
        return _anchor_table(receipt, leaf)

    @display(description="Platform")
    def platform_shown(self, receipt: Receipt) -> str:
        return show.code(receipt.document["platform"]["address"])

    @display(description="Miner")
    def miner_shown(self, receipt: Receipt) -> str:
        return show.code(receipt.document["miner"]["address"])

    @display(description="As signed")
    def document_shown(self, receipt: Receipt) -> str:
        return show.document(receipt.document)


def _anchor_table(receipt: Receipt, leaf: ReceiptLeaf) -> SafeString | str:
    batch = leaf.batch
    assert batch is not None  # the caller has looked
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


def _outcome(result: bool | None) -> str:
    return {True: "holds", False: "fails", None: "nothing to check"}[result]


def _money(receipt: Receipt, name: str) -> str:
    amount = receipt.document[name]
    whole, _, fraction = amount["amount"].partition(".")
    return show.decimal(whole, fraction, amount["asset"])
