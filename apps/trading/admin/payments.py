"""The escrow of each job."""

from django.contrib import admin
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.columns import column, link
from aitbc.core.pages import ReadOnlyAdmin, once
from apps.trading.admin import amounts
from apps.trading.admin.amounts import amount
from apps.trading.models import Payment, Transfer

_STATES = {"escrowed": "warning", "released": "success", "partially released": "success", "refunded": "info"}


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    icon = "payments"
    list_display = (
        "ident", "status", "client_shown", "provider_shown", "held_amount", "released_amount",
        "fee_amount", "created_at",
    )  # fmt: skip
    list_select_related = ("client", "provider")
    list_filter = ("state",)
    search_fields = ("id", "job", "client__email", "provider__email")
    search_help_text = "Payment, job, or the e-mail of a party"
    ordering = ("-id",)
    sections = {
        None: (("status", "job_shown"), ("client_shown", "provider_shown"), ("id", "hold")),
        "Amounts": (("held_amount", "released_amount"), ("fee_amount", "refunded_amount")),
        "Transfers": ("transfers",),
        "Times": (("created_at", "resolved_at"), ("matures_at", "matured_at")),
    }

    status = column(
        "State", lambda payment: show.state(payment.state.replace("_", " "), _STATES), ordering="state"
    )
    job_shown = link("Job", "gpu_job", "job")
    client_shown = column("Client", "client", show.to, ordering="client")
    provider_shown = column("Provider", "provider", show.to, ordering="provider")
    hold = link("Ledger hold", "trading_transfer", "pk")
    held_amount = amount("Held", "held", "asset", ordering="held")
    released_amount = amount("Released", "released", "asset", ordering="released")
    fee_amount = amount("Fee", "fee", "asset", ordering="fee")
    refunded_amount = amount("Refunded", "refunded", "asset", ordering="refunded")

    @display(description="Movements")
    @once
    def transfers(self, payment: Payment) -> str:
        moved = Transfer.objects.filter(reference=payment.job).order_by("created_at", "kind")
        lines = [
            (
                show.link("trading_transfer", transfer.pk),
                transfer.kind,
                transfer.state,
                amounts.shown(transfer.amount, payment.asset),
                show.moment(transfer.created_at),
            )
            for transfer in moved
        ]
        return show.table(("Transfer", "Kind", "State", "Amount", "At"), lines)
