"""The ledger to look at: only its SQL function writes it."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline, once
from apps.trading.models import Account, Asset, Entry, Payment, Transfer

_STATES = {"posted": "success", "pending": "warning", "voided": "info"}


def amount(units: int | None, account: Account) -> str:
    return show.amount(units, account.asset_id, account.asset.decimals)


def holder(account: Account | None) -> str:
    """Whose account, and which: the owner's address, or the platform and the chain it mirrors."""
    if account is None:
        return show.NOTHING
    owner = account.owner.email if account.owner else account.chain or "platform"
    return show.link("trading_account", account.pk, f"{account.kind} · {owner}")


@admin.register(Asset)
class AssetAdmin(ReadOnlyAdmin):
    icon = "toll"
    list_display = ("code", "name", "decimals")
    search_fields = ("code",)
    search_help_text = "Code"
    fields = (("code", "name"), "decimals")
    ordering = ("code",)


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    icon = "account_balance_wallet"
    list_display = ("id", "holder", "kind_shown", "chain", "posted_amount", "held_amount", "available_amount")
    list_select_related = ("owner", "asset")
    list_filter = ("kind",)
    search_fields = ("id", "owner__email", "owner__id")
    search_help_text = "Number, or the owner's e-mail or id"
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": (("holder", "kind_shown"), ("asset", "chain"), ("id", "shard"), "entries")}),
        (
            "Balance",
            {"fields": (("posted_amount", "held_amount", "available_amount"), ("overdraft", "created_at"))},
        ),
    )

    @display(description="Owner", ordering="owner")
    def holder(self, account: Account) -> str:
        if account.owner is None:
            return account.chain or "platform"
        return show.link("accounts_user", account.owner_id, account.owner)

    @display(description="Kind", ordering="kind")
    def kind_shown(self, account: Account) -> str:
        return show.state(account.kind)

    @display(description="Posted", ordering="posted")
    def posted_amount(self, account: Account) -> str:
        return amount(account.posted, account)

    @display(description="Held", ordering="held")
    def held_amount(self, account: Account) -> str:
        return amount(account.held, account)

    @display(description="Free")
    def available_amount(self, account: Account) -> str:
        return amount((account.posted or 0) - (account.held or 0), account)

    @display(description="Entries")
    def entries(self, account: Account) -> str:
        return show.listed("trading_entry", "All entries of this account", account__id__exact=account.pk)


class EntriesOfTransfer(ReadOnlyInline):
    model = Entry
    fields = readonly_fields = ("id", "account_shown", "moved_amount", "created_at")
    verbose_name_plural = "Entries: they sum to zero"
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        entries: QuerySet[Entry] = super().get_queryset(request)
        return entries.select_related("account__owner", "account__asset")

    @display(description="Account")
    def account_shown(self, entry: Entry) -> str:
        return holder(entry.account)

    @display(description="Amount")
    def moved_amount(self, entry: Entry) -> str:
        return amount(entry.amount, entry.account)


@admin.register(Transfer)
class TransferAdmin(ReadOnlyAdmin):
    icon = "swap_horiz"
    list_display = (
        "id_shown",
        "kind",
        "state_shown",
        "moved_amount",
        "debit_shown",
        "credit_shown",
        "job",
        "created_at",
    )
    list_select_related = ("debit__owner", "debit__asset", "credit__owner")
    list_filter = ("state",)
    search_fields = ("id", "reference")
    search_help_text = "Id, or the id of the job or deposit it is for"
    ordering = ("-created_at", "-id")
    inlines = (EntriesOfTransfer,)
    fieldsets = (
        (None, {"fields": (("kind", "state_shown"), ("moved_amount", "id"))}),
        (
            "Sides",
            {"fields": (("debit_shown", "credit_shown"), ("hold_shown", "payment"), ("job", "siblings"))},
        ),
        ("Times", {"fields": (("created_at", "resolved_at"),)}),
    )

    @display(description="Id")
    def id_shown(self, transfer: Transfer) -> str:
        return show.short(transfer.pk)

    @display(description="State", ordering="state")
    def state_shown(self, transfer: Transfer) -> str:
        return show.state(transfer.state, _STATES)

    @display(description="Amount", ordering="amount")
    def moved_amount(self, transfer: Transfer) -> str:
        return amount(transfer.amount, transfer.debit)

    @display(description="From")
    def debit_shown(self, transfer: Transfer) -> str:
        return holder(transfer.debit)

    @display(description="To")
    def credit_shown(self, transfer: Transfer) -> str:
        return holder(transfer.credit)

    @display(description="Resolves the hold")
    def hold_shown(self, transfer: Transfer) -> str:
        return show.link("trading_transfer", transfer.hold)

    @display(description="Payment")
    @once
    def payment(self, transfer: Transfer) -> str:
        payment = transfer.hold or transfer.pk  # a payment has the id of its hold
        return (
            show.link("trading_payment", payment)
            if Payment.objects.filter(pk=payment).exists()
            else show.NOTHING
        )

    @display(description="Job")
    def job(self, transfer: Transfer) -> str:
        if not transfer.kind.startswith("job."):
            return show.NOTHING
        return show.link("gpu_job", transfer.reference)

    @display(description="For the same purpose")
    def siblings(self, transfer: Transfer) -> str:
        if transfer.reference is None:
            return show.NOTHING
        return show.listed("trading_transfer", "All transfers of this reference", q=transfer.reference)


@admin.register(Entry)
class EntryAdmin(ReadOnlyAdmin):
    icon = "receipt_long"
    list_display = ("id", "account_shown", "moved_amount", "kind", "transfer_shown", "job", "created_at")
    list_select_related = ("account__owner", "account__asset", "transfer")
    search_fields = ("id", "account__owner__email")
    search_help_text = "Number, or the owner's e-mail"
    ordering = ("-id",)
    fields = (("id", "created_at"), ("account_shown", "moved_amount"), ("transfer_shown", "kind"), "job")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "account__id__exact" or super().lookup_allowed(lookup, value, request)

    @display(description="Account")
    def account_shown(self, entry: Entry) -> str:
        return holder(entry.account)

    @display(description="Amount", ordering="amount")
    def moved_amount(self, entry: Entry) -> str:
        return amount(entry.amount, entry.account)

    @display(description="Kind")
    def kind(self, entry: Entry) -> str:
        return entry.transfer.kind

    @display(description="Transfer")
    def transfer_shown(self, entry: Entry) -> str:
        return show.link("trading_transfer", entry.transfer_id)

    @display(description="Job")
    def job(self, entry: Entry) -> str:
        transfer: Any = entry.transfer
        return show.link("gpu_job", transfer.reference) if transfer.kind.startswith("job.") else show.NOTHING
