"""The escrow of each job, and the operator's decision of a dispute about it."""

from django import forms
from django.contrib import admin
from orjson import loads
from unfold.decorators import display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from aitbc.core import money, show
from aitbc.core.columns import column, link
from aitbc.core.pages import Operation, ReadOnlyAdmin, once
from apps.trading.admin import amounts
from apps.trading.admin.amounts import amount
from apps.trading.models import Payment, Transfer
from apps.trading.services.escrow import call, resolve

_STATES = {"escrowed": "warning", "released": "success", "partially released": "success", "refunded": "info"}
_STATES |= {"expired": "info", "disputed": "danger"}


class SplitForm(BaseDialogForm):
    refund = forms.CharField(label="AIT back to the client", widget=UnfoldAdminTextInputWidget)
    note = forms.CharField(label="Why, for both", max_length=2000, widget=UnfoldAdminTextInputWidget)


RESOLVE = Operation(
    name="resolve",
    label="Resolve the dispute",
    icon="gavel",
    question="Split this payment?",
    effect="The client gets this back, the fee's share in it; the provider keeps the rest.",
    done="Disputes resolved",
    service=lambda payment, by, fields: resolve(
        operator=by.pk, payment=payment.pk, refund=money.units(fields["refund"], 18), note=fields["note"]
    ),
    is_apt=lambda payment: payment.state == Payment.State.DISPUTED,
    form=SplitForm,
    on_list=False,
)


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
    operations = (RESOLVE,)
    sections = {
        None: (("status", "job_shown"), ("client_shown", "provider_shown"), ("id", "hold"), "shown"),
        "Amounts": (("held_amount", "released_amount"), ("fee_amount", "refunded_amount")),
        "Transfers": ("transfers",),
        "Times": (("created_at", "resolved_at"), ("matures_at", "matured_at")),
    }

    status = column("State", lambda payment: show.state(payment.state.replace("_", " "), _STATES), ordering="state")
    shown = once(column("For both", lambda p: show.document(loads(call("payment_page", p.pk)))))
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
