"""The escrow of each job."""

from django.contrib import admin
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, once
from apps.trading.models import Payment, Transfer
from apps.trading.selectors.assets import decimals

_STATES = {"escrowed": "warning", "released": "success", "partially released": "success", "refunded": "info"}


@admin.register(Payment)
class PaymentAdmin(ReadOnlyAdmin):
    icon = "payments"
    list_display = (
        "id_shown",
        "state_shown",
        "client_shown",
        "provider_shown",
        "held_amount",
        "released_amount",
        "fee_amount",
        "created_at",
    )
    list_select_related = ("client", "provider")
    list_filter = ("state",)
    search_fields = ("id", "job", "client__email", "provider__email")
    search_help_text = "Payment, job, or the e-mail of a party"
    ordering = ("-id",)
    fieldsets = (
        (
            None,
            {"fields": (("state_shown", "job_shown"), ("client_shown", "provider_shown"), ("id", "hold"))},
        ),
        ("Amounts", {"fields": (("held_amount", "released_amount"), ("fee_amount", "refunded_amount"))}),
        ("Transfers", {"fields": ("transfers",)}),
        ("Times", {"fields": (("created_at", "resolved_at"), ("matures_at", "matured_at"))}),
    )

    @display(description="Id")
    def id_shown(self, payment: Payment) -> str:
        return show.short(payment.pk)

    @display(description="State", ordering="state")
    def state_shown(self, payment: Payment) -> str:
        return show.state(payment.state.replace("_", " "), _STATES)

    @display(description="Job")
    def job_shown(self, payment: Payment) -> str:
        return show.link("gpu_job", payment.job)

    @display(description="Client", ordering="client")
    def client_shown(self, payment: Payment) -> str:
        return show.link("accounts_user", payment.client_id, payment.client)

    @display(description="Provider", ordering="provider")
    def provider_shown(self, payment: Payment) -> str:
        return show.link("accounts_user", payment.provider_id, payment.provider)

    @display(description="Ledger hold")
    def hold(self, payment: Payment) -> str:
        return show.link("trading_transfer", payment.pk)

    @display(description="Held", ordering="held")
    def held_amount(self, payment: Payment) -> str:
        return _amount(payment.held, payment)

    @display(description="Released", ordering="released")
    def released_amount(self, payment: Payment) -> str:
        return _amount(payment.released, payment)

    @display(description="Fee", ordering="fee")
    def fee_amount(self, payment: Payment) -> str:
        return _amount(payment.fee, payment)

    @display(description="Refunded", ordering="refunded")
    def refunded_amount(self, payment: Payment) -> str:
        return _amount(payment.refunded, payment)

    @display(description="Movements")
    @once
    def transfers(self, payment: Payment) -> str:
        moved = Transfer.objects.filter(reference=payment.job).order_by("created_at", "kind")
        return show.table(
            ("Transfer", "Kind", "State", "Amount", "At"),
            [
                (
                    show.link("trading_transfer", t.pk),
                    t.kind,
                    t.state,
                    _amount(t.amount, payment),
                    show.moment(t.created_at),
                )
                for t in moved
            ],
        )


def _amount(units: int | None, payment: Payment) -> str:
    return show.amount(units, payment.asset, decimals(payment.asset))
