"""Money between ledger and chain: deposits in, payouts out, and whether both sides agree."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline
from apps.trading.admin.settlement import STATES
from apps.trading.models import Deposit, DepositAddress, PayoutBatch, PayoutLeaf, PayoutTarget, ReserveCheck
from apps.trading.selectors.assets import decimals

PAYOUT_ASSET = "AIT"


def _ait(units: int | None) -> str:
    return show.amount(units, PAYOUT_ASSET, decimals(PAYOUT_ASSET))


@admin.register(DepositAddress)
class DepositAddressAdmin(ReadOnlyAdmin):
    icon = "call_received"
    list_display = ("address", "network", "user_shown", "created_at")
    list_select_related = ("user",)
    search_fields = ("address", "user__email")
    search_help_text = "Address, or the user's e-mail"
    ordering = ("-id",)
    fields = ("address", ("network", "user_shown"), "created_at")

    @display(description="User", ordering="user")
    def user_shown(self, row: DepositAddress) -> str:
        return show.link("accounts_user", row.user_id, row.user) if row.user_id else "treasury"


@admin.register(Deposit)
class DepositAdmin(ReadOnlyAdmin):
    icon = "south_west"
    list_display = (
        "id_shown",
        "booked_shown",
        "user_shown",
        "moved_amount",
        "block_number",
        "tx_short",
        "created_at",
    )
    list_select_related = ("user",)
    list_filter = ("booked",)
    search_fields = ("id", "tx_hash", "user__email")
    search_help_text = "Id, transaction, or the user's e-mail"
    fieldsets = (
        (None, {"fields": (("booked_shown", "user_shown"), ("moved_amount", "transfer"))}),
        (
            "On the chain",
            {"fields": ("tx_shown", ("network", "block_number", "ordinal"), "sender", "address")},
        ),
        ("Times", {"fields": ("created_at",)}),
    )

    @display(description="Id")
    def id_shown(self, deposit: Deposit) -> str:
        return show.short(deposit.pk)

    @display(description="Booked", ordering="booked")
    def booked_shown(self, deposit: Deposit) -> str:
        return show.state(deposit.booked, {"user": "success", "unattributed": "warning"})

    @display(description="User", ordering="user")
    def user_shown(self, deposit: Deposit) -> str:
        return show.link("accounts_user", deposit.user_id, deposit.user)

    @display(description="Amount", ordering="amount")
    def moved_amount(self, deposit: Deposit) -> str:
        return show.amount(deposit.amount, deposit.asset, decimals(deposit.asset))

    @display(description="Transaction")
    def tx_short(self, deposit: Deposit) -> str:
        return show.short(deposit.tx_hash)

    @display(description="Transaction")
    def tx_shown(self, deposit: Deposit) -> str:
        return show.code(deposit.tx_hash)

    @display(description="Ledger transfer")
    def transfer(self, deposit: Deposit) -> str:
        return show.link("trading_transfer", deposit.pk)


@admin.register(PayoutTarget)
class PayoutTargetAdmin(ReadOnlyAdmin):
    icon = "call_made"
    list_display = ("address", "user_shown", "network", "set_at")
    list_select_related = ("user",)
    search_fields = ("address", "user__email")
    search_help_text = "Address, or the provider's e-mail"
    ordering = ("-id",)
    fields = ("address", ("network", "user_shown"), "set_at")

    @display(description="Provider", ordering="user")
    def user_shown(self, target: PayoutTarget) -> str:
        return show.link("accounts_user", target.user_id, target.user)


class LeavesOfPayout(ReadOnlyInline):
    model = PayoutLeaf
    fields = readonly_fields = ("position", "user_shown", "address", "moved_amount", "claimed_at")
    ordering = ("position",)
    per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[PayoutLeaf]:
        leaves: QuerySet[PayoutLeaf] = super().get_queryset(request)
        return leaves.select_related("user")

    @display(description="Provider")
    def user_shown(self, leaf: PayoutLeaf) -> str:
        return show.link("accounts_user", leaf.user_id, leaf.user)

    @display(description="Amount")
    def moved_amount(self, leaf: PayoutLeaf) -> str:
        return _ait(leaf.amount)


@admin.register(PayoutBatch)
class PayoutBatchAdmin(ReadOnlyAdmin):
    icon = "north_east"
    list_display = (
        "id_shown",
        "state_shown",
        "network",
        "count",
        "total_amount",
        "block",
        "gas_used",
        "created_at",
        "finalized_at",
    )
    list_filter = ("state",)
    search_fields = ("id", "tx_hash", "root")
    search_help_text = "Id, transaction or root"
    inlines = (LeavesOfPayout,)
    fieldsets = (
        (None, {"fields": (("state_shown", "network"), ("count", "total_amount"), "id")}),
        ("On the chain", {"fields": ("root_shown", "tx_shown", ("block", "gas_used"))}),
        ("Times", {"fields": (("created_at", "finalized_at"),)}),
    )

    @display(description="Id")
    def id_shown(self, batch: PayoutBatch) -> str:
        return show.short(batch.pk)

    @display(description="State", ordering="state")
    def state_shown(self, batch: PayoutBatch) -> str:
        return show.state(batch.state, STATES)

    @display(description="Total", ordering="total")
    def total_amount(self, batch: PayoutBatch) -> str:
        return _ait(batch.total)

    @display(description="Merkle root")
    def root_shown(self, batch: PayoutBatch) -> str:
        return show.code(batch.root)

    @display(description="Transaction")
    def tx_shown(self, batch: PayoutBatch) -> str:
        return show.code(batch.tx_hash)


@admin.register(PayoutLeaf)
class PayoutLeafAdmin(ReadOnlyAdmin):
    icon = "redeem"
    list_display = ("id", "user_shown", "moved_amount", "address", "batch_shown", "claimed_at")
    list_select_related = ("user",)
    search_fields = ("id", "hold", "user__email", "batch__id")
    search_help_text = "Number, hold, batch, or the provider's e-mail"
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": (("user_shown", "moved_amount"), ("batch_shown", "position"), "address")}),
        ("Claim", {"fields": ("claim_shown", ("claimed_at", "hold_shown"))}),
    )

    @display(description="Provider", ordering="user")
    def user_shown(self, leaf: PayoutLeaf) -> str:
        return show.link("accounts_user", leaf.user_id, leaf.user)

    @display(description="Amount", ordering="amount")
    def moved_amount(self, leaf: PayoutLeaf) -> str:
        return _ait(leaf.amount)

    @display(description="Batch")
    def batch_shown(self, leaf: PayoutLeaf) -> str:
        return show.link("trading_payoutbatch", leaf.batch_id)

    @display(description="Ledger hold")
    def hold_shown(self, leaf: PayoutLeaf) -> str:
        return show.link("trading_transfer", leaf.hold)

    @display(description="Claimed in")
    def claim_shown(self, leaf: PayoutLeaf) -> str:
        return show.code(leaf.claim_tx)


@admin.register(ReserveCheck)
class ReserveCheckAdmin(ReadOnlyAdmin):
    icon = "balance"
    list_display = (
        "id",
        "verdict",
        "network",
        "block_number",
        "contract_amount",
        "unswept_amount",
        "liabilities_amount",
        "difference_amount",
        "checked_at",
    )
    search_fields = ("id",)
    search_help_text = "Number"
    fieldsets = (
        (None, {"fields": (("verdict", "difference_amount"), ("network", "asset", "checked_at"))}),
        ("On the chain", {"fields": (("contract_amount", "unswept_amount"), ("block_number", "block_hash"))}),
        ("In the ledger", {"fields": (("liabilities_amount", "pending_amount"),)}),
    )  # fmt: skip

    @display(description="Verdict")
    def verdict(self, check: ReserveCheck) -> str:
        return show.verdict(check.difference == 0, "agree" if check.difference == 0 else "differ")

    @display(description="Contract")
    def contract_amount(self, check: ReserveCheck) -> str:
        return show.amount(check.contract, check.asset, decimals(check.asset))

    @display(description="Unswept")
    def unswept_amount(self, check: ReserveCheck) -> str:
        return show.amount(check.unswept, check.asset, decimals(check.asset))

    @display(description="Owed")
    def liabilities_amount(self, check: ReserveCheck) -> str:
        return show.amount(check.liabilities, check.asset, decimals(check.asset))

    @display(description="Not posted yet")
    def pending_amount(self, check: ReserveCheck) -> str:
        return show.amount(check.pending, check.asset, decimals(check.asset))

    @display(description="Difference")
    def difference_amount(self, check: ReserveCheck) -> str:
        return show.amount(check.difference, check.asset, decimals(check.asset))
