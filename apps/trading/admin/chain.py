"""Money between ledger and chain: deposits in, payouts and withdrawals out, and whether both sides agree."""

from typing import ClassVar

from django import forms
from django.contrib import admin
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, ReadOnlyInline
from apps.trading.admin.amounts import amount
from apps.trading.admin.settlement import BatchColumns
from apps.trading.models import Deposit, DepositAddress, PayoutBatch, PayoutLeaf, PayoutTarget, ReserveCheck, Withdrawal
from apps.trading.services import reviews


@admin.register(DepositAddress)
class DepositAddressAdmin(ReadOnlyAdmin):
    icon = "call_received"
    list_display = ("address", "network", "user_shown", "created_at")
    list_select_related = ("user",)
    search_fields = ("address", "user__email")
    fields = ("address", ("network", "user_shown"), "created_at")

    user_shown = column("User", lambda row: show.to(row.user) if row.user_id else "treasury", ordering="user")


@admin.register(Deposit)
class DepositAdmin(ReadOnlyAdmin):
    icon = "south_west"
    list_display = ("ident", "booking", "user_shown", "moved_amount", "block_number", "tx_short", "created_at")
    list_select_related = ("user",)
    list_filter = ("booked",)
    search_fields = ("id", "tx_hash", "user__email")
    sections = {
        None: (("booking", "user_shown"), ("moved_amount", "transfer")),
        "On the chain": ("tx", ("network", "block_number", "ordinal"), "sender", "address"),
        "Times": ("created_at",),
    }

    booking = state({"user": "success", "unattributed": "warning"}, "booked", "Booked")
    user_shown = column("User", "user", show.to, ordering="user")
    moved_amount = amount("Amount", "amount", "asset", ordering="amount")
    transfer = link("Ledger transfer", "trading_transfer", "pk")


@admin.register(PayoutTarget)
class PayoutTargetAdmin(ReadOnlyAdmin):
    icon = "call_made"
    list_display = ("address", "user_shown", "network", "set_at")
    list_select_related = ("user",)
    search_fields = ("address", "user__email")
    fields = ("address", ("network", "user_shown"), "set_at")

    user_shown = column("Provider", "user", show.to, ordering="user")


class LeafColumns:
    """What the list of payouts and the page of their batch show alike."""

    user_shown = column("Provider", "user", show.to, ordering="user")
    moved_amount = amount("Amount", "amount", ordering="amount")


class LeavesOfPayout(LeafColumns, ReadOnlyInline):
    model = PayoutLeaf
    fields = readonly_fields = ("position", "user_shown", "address", "moved_amount", "claimed_at")
    ordering = ("position",)
    per_page = 50
    select_related = ("user",)


class ApprovalForm(BaseDialogForm):
    """The approver's own factors, fresh with each approval; none of them is kept."""

    seen = forms.CharField(label="Hash of the payload, from this page", widget=UnfoldAdminTextInputWidget)
    password = forms.CharField(label="Your password", widget=UnfoldAdminPasswordWidget)
    passphrase = forms.CharField(label="Passphrase of the approver's key", widget=UnfoldAdminPasswordWidget)


APPROVE = Operation(
    name="approve",
    label="Approve",
    icon="verified_user",
    question="Approve it as the second person?",
    effect="The approver's key signs it, and it leaves for the chain. This cannot be taken back.",
    done="Approved",
    service=lambda item, by, given: reviews.approve(
        item=item, by=by, **{name: given[name] for name in ("seen", "password", "passphrase")}
    ),
    is_apt=lambda item: item.state == reviews.REVIEW,
    form=ApprovalForm,
    on_list=False,
)


class ReviewColumns:
    """What withdrawals and payout batches show of the second person."""

    review: ClassVar = ("payload", ("review_until", "approver", "approved_at"))

    payload = column("Hash of the payload", lambda row: show.code(row.review_until and reviews.payload(row)))
    approver = column("Approved by", "approved_by", show.to)


@admin.register(PayoutBatch)
class PayoutBatchAdmin(ReviewColumns, BatchColumns, ReadOnlyAdmin):
    operations = (APPROVE,)
    icon = "north_east"
    list_display = (
        "ident", "status", "network", "count", "total_amount", "block", "gas_used", "created_at",
        "finalized_at",
    )  # fmt: skip
    list_filter = ("state",)
    search_fields = ("id", "tx_hash", "root")
    inlines = (LeavesOfPayout,)
    sections = {
        None: (("status", "network"), ("count", "total_amount"), "id"),
        "Second person": ReviewColumns.review,
        "On the chain": ("root_shown", "tx", ("block", "gas_used")),
        "Times": (("created_at", "finalized_at"),),
    }

    total_amount = amount("Total", "total", ordering="total")


@admin.register(PayoutLeaf)
class PayoutLeafAdmin(LeafColumns, ReadOnlyAdmin):
    icon = "redeem"
    list_display = ("id", "user_shown", "moved_amount", "address", "batch_shown", "claimed_at")
    list_select_related = ("user",)
    search_fields = ("id", "hold", "user__email", "batch__id")
    sections = {
        None: (("user_shown", "moved_amount"), ("batch_shown", "position"), "address"),
        "Claim": ("claim_shown", ("claimed_at", "hold_shown")),
    }

    batch_shown = link("Batch", "trading_payoutbatch", "batch_id")
    hold_shown = link("Ledger hold", "trading_transfer", "hold")
    claim_shown = column("Claimed in", "claim_tx", show.code)


@admin.register(Withdrawal)
class WithdrawalAdmin(ReviewColumns, ReadOnlyAdmin):
    operations = (APPROVE,)
    icon = "logout"
    list_display = (
        "ident", "status", "user_shown", "moved_amount", "address", "created_at", "not_before", "resolved_at",
    )  # fmt: skip
    list_select_related = ("user",)
    list_filter = ("state",)
    search_fields = ("id", "address", "user__email")
    sections = {
        None: (("status", "user_shown"), ("moved_amount", "hold_shown"), "id"),
        "Second person": ReviewColumns.review,
        "On the chain": ("address", "tx", ("network", "block")),
        "Times": (("created_at", "not_before", "resolved_at"),),
    }

    status = state(
        {"waiting": "info", "sending": "info", "final": "success", "failed": "danger", "canceled": "warning",
         "review": "warning", "lapsed": "danger"}
    )  # fmt: skip
    user_shown = column("User", "user", show.to, ordering="user")
    moved_amount = amount("Amount", "amount", ordering="amount")
    hold_shown = link("Ledger hold", "trading_transfer", "pk")


@admin.register(ReserveCheck)
class ReserveCheckAdmin(ReadOnlyAdmin):
    icon = "balance"
    list_display = (
        "id", "verdict", "network", "block_number", "contract_amount", "unswept_amount",
        "liabilities_amount", "difference_amount", "checked_at",
    )  # fmt: skip
    search_fields = ("id",)
    sections = {
        None: (("verdict", "difference_amount"), ("network", "asset", "checked_at")),
        "On the chain": (("contract_amount", "unswept_amount"), ("block_number", "block_hash")),
        "In the ledger": (("liabilities_amount", "pending_amount"),),
    }

    verdict = column("Verdict", lambda row: show.verdict(not row.difference, "differ" if row.difference else "agree"))
    contract_amount = amount("Contract", "contract", "asset")
    unswept_amount = amount("Unswept", "unswept", "asset")
    liabilities_amount = amount("Owed", "liabilities", "asset")
    pending_amount = amount("Not posted yet", "pending", "asset")
    difference_amount = amount("Difference", "difference", "asset")
