"""The ledger to look at: only its SQL function writes it."""

from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline, once
from apps.trading.admin import amounts
from apps.trading.admin.amounts import amount
from apps.trading.models import Account, Asset, Entry, JournalBlock, Payment, Transfer

_STATES = {"posted": "success", "pending": "warning", "voided": "info"}


def _platform(account: Account) -> str:
    """What stands for the owner of an account that has none: the platform, or the chain it mirrors."""
    return account.chain or "platform"


def holder(account: Account | None) -> str:
    """Whose account, and which."""
    if account is None:
        return show.NOTHING
    owner = account.owner.email if account.owner else _platform(account)
    return show.link("trading_account", account.pk, f"{account.kind} · {owner}")


def _job(transfer: Transfer) -> str:
    return show.link("gpu_job", transfer.reference if transfer.kind.startswith("job.") else None)


@admin.register(Asset)
class AssetAdmin(ReadOnlyAdmin):
    icon = "toll"
    list_display = ("code", "name", "decimals")
    search_fields = ("code",)
    fields = (("code", "name"), "decimals")
    ordering = ("code",)


def _available(account: Account) -> str:
    return amounts.shown((account.posted or 0) - (account.held or 0), account.asset_id)


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    icon = "account_balance_wallet"
    list_display = ("id", "holder", "kind_shown", "chain", "posted_amount", "held_amount", "available_amount")
    list_select_related = ("owner",)
    list_filter = ("kind",)
    search_fields = ("id", "owner__email", "owner__id")
    sections = {
        None: (("holder", "kind_shown"), ("asset", "chain"), ("id", "shard"), "entries"),
        "Balance": (("posted_amount", "held_amount", "available_amount"), ("overdraft", "created_at")),
    }

    holder = column("Owner", lambda row: show.to(row.owner) if row.owner else _platform(row), ordering="owner")
    kind_shown = state({}, "kind", "Kind")
    posted_amount = amount("Posted", "posted", "asset_id", ordering="posted")
    held_amount = amount("Held", "held", "asset_id", ordering="held")
    available_amount = column("Free", _available)

    @display(description="Entries")
    def entries(self, account: Account) -> str:
        return show.listed("trading_entry", "All entries of this account", account__id__exact=account.pk)


class EntryColumns:
    """What the list of entries and the page of a transfer show alike."""

    account_shown = column("Account", "account", holder)
    moved_amount = amount("Amount", "amount", "account.asset_id", ordering="amount")


class EntriesOfTransfer(EntryColumns, ReadOnlyInline):
    model = Entry
    fields = readonly_fields = ("id", "account_shown", "moved_amount", "created_at")
    verbose_name_plural = "Entries: they sum to zero"
    ordering = ("id",)
    select_related = ("account__owner",)


@admin.register(Transfer)
class TransferAdmin(ReadOnlyAdmin):
    icon = "swap_horiz"
    list_display = ("ident", "kind", "status", "moved_amount", "payer", "payee", "job", "created_at")
    list_select_related = ("debit__owner", "credit__owner")
    list_filter = ("state",)
    search_fields = ("id", "reference")
    ordering = ("-created_at", "-id")
    inlines = (EntriesOfTransfer,)
    sections = {
        None: (("kind", "status"), ("moved_amount", "id")),
        "Sides": (("payer", "payee"), ("hold_shown", "payment"), ("job", "siblings")),
        "Times": (("created_at", "resolved_at"),),
    }

    status = state(_STATES)
    moved_amount = amount("Amount", "amount", "debit.asset_id", ordering="amount")
    payer = column("From", "debit", holder)
    payee = column("To", "credit", holder)
    hold_shown = link("Resolves the hold", "trading_transfer", "hold")
    job = column("Job", _job)

    @display(description="Payment")
    @once
    def payment(self, transfer: Transfer) -> str:
        payment = transfer.hold or transfer.pk  # a payment has the id of its hold
        known = Payment.objects.filter(pk=payment).exists()
        return show.link("trading_payment", payment if known else None)

    @display(description="For the same purpose")
    def siblings(self, transfer: Transfer) -> str:
        if transfer.reference is None:
            return show.NOTHING
        return show.listed("trading_transfer", "All transfers of this reference", q=transfer.reference)


@admin.register(Entry)
class EntryAdmin(EntryColumns, ReadOnlyAdmin):
    icon = "receipt_long"
    list_display = ("id", "account_shown", "moved_amount", "kind", "transfer_shown", "job", "created_at")
    list_select_related = ("account__owner", "transfer")
    search_fields = ("id", "account__owner__email")
    fields = (("id", "created_at"), ("account_shown", "moved_amount"), ("transfer_shown", "kind"), "job")

    kind = column("Kind", "transfer.kind")
    transfer_shown = link("Transfer", "trading_transfer", "transfer_id")
    job = column("Job", "transfer", _job)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "account__id__exact" or super().lookup_allowed(lookup, value, request)


@admin.register(JournalBlock)
class JournalBlockAdmin(ReadOnlyAdmin):
    icon = "link"
    list_display = ("number", "lines", "head_short", "upto", "sealed_at")
    search_fields = ("number",)
    fields = (("number", "lines"), ("upto", "sealed_at"), "digest_shown", "head_shown")

    head_short = column("Head", "head", show.short)
    digest_shown = column("Digest of its lines", "digest", show.code)
    head_shown = column("Head of the chain", "head", show.code)
