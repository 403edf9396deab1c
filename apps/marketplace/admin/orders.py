"""The board of orders, auctions, the quotes behind them, and what leaves the bonds."""

from django.contrib import admin
from orjson import loads
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, once
from apps.marketplace.admin.offers import ReasonForm
from apps.marketplace.models import Auction, BondWithdrawal, Order, Quote
from apps.marketplace.services import orders
from apps.trading.admin.amounts import amount
from apps.trading.services.escrow import call

STATES = {"accepted": "info", "active": "success", "notice": "warning", "missed": "danger", "failed": "danger"}
CANCEL = Operation(
    name="cancel",
    label="Cancel",
    icon="cancel",
    question="Cancel this order?",
    effect="What is unused returns to the client; nobody is at fault.",
    done="Orders canceled",
    service=lambda order, by, fields: orders.cancel(user=None, order=order.pk, reason=fields["note"]),
    is_apt=lambda order: order.state in Order.LIVE,
    form=ReasonForm,
    on_list=False,
)


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    icon = "shopping_cart"
    list_display = ("ident", "status", "kind", "by", "to", "total_amount", "credit_amount", "ends_at", "due_at")
    list_select_related = ("client", "provider")
    list_filter = ("state", "kind")
    search_fields = ("id", "client__email", "provider__email", "offer__id", "miner__id")
    operations = (CANCEL,)
    fields = (("status", "kind"), ("by", "to"), ("total_amount", "credit_amount"), ("ends_at", "due_at"), "document")

    status = state(STATES)
    by, to = column("Client", "client", show.to), column("Provider", "provider", show.to)
    total_amount, credit_amount = amount("Total", "total"), amount("SLA credit", "credit")

    @display(description="Order")
    @once
    def document(self, row: Order) -> str:
        return show.document(loads(call("order_shown", None, row.pk)))


@admin.register(Quote)
class QuoteAdmin(ReadOnlyAdmin):
    icon = "request_quote"
    list_display = ("ident", "status", "kind", "by", "total_amount", "deposit_amount", "expires_at")
    list_select_related = ("client",)
    list_filter = ("state", "kind")
    search_fields = ("id", "client__email", "offer__id")
    fields = (("status", "kind"), "by", ("total_amount", "deposit_amount"), "expires_at")

    status = state({"open": "info", "accepted": "success", "forfeited": "danger"})
    by = column("Client", "client", show.to)
    total_amount, deposit_amount = amount("Total", "total"), amount("Deposit", "deposit")


@admin.register(BondWithdrawal)
class BondWithdrawalAdmin(ReadOnlyAdmin):
    icon = "lock_open"
    list_display = fields = ("ident", "of", "sum", "due_at", "done_at")
    list_select_related = ("owner",)
    search_fields = ("id", "owner__email")

    of, sum = column("Provider", "owner", show.to), amount("Amount", "amount")


@admin.register(Auction)
class AuctionAdmin(ReadOnlyAdmin):
    icon = "gavel"
    list_display = ("ident", "status", "by", "award", "sealed", "highest", "seconds", "closes_at", "due_at")
    list_select_related = ("client",)
    list_filter = ("state", "award", "sealed")
    search_fields = ("id", "client__email")
    fields = (("status", "by"), ("award", "sealed"), ("highest", "seconds"), ("closes_at", "due_at"), "document")

    status = state({"open": "info", "awarded": "success", "reveal": "warning", "award": "warning"})
    by, highest = column("Client", "client", show.to), amount("Ceiling, a second", "ceiling")
    document = once(column("Auction", lambda row: show.document(loads(call("auction_shown", row.pk)))))
