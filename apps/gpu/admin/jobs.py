"""Jobs with everything that came of them: result, receipt, payment and failed attempts."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline, once
from apps.gpu.admin.money import ait
from apps.gpu.admin.receipts import verify
from apps.gpu.models import Attempt, Job, JobResult, Receipt
from apps.gpu.runtimes import runtimes
from apps.gpu.services import cancellation
from apps.trading.models import Payment

STATES = {
    "queued": "info",
    "leased": "warning",
    "running": "warning",
    "completed": "success",
    "failed": "danger",
}


class KindFilter(admin.SimpleListFilter):
    """The kinds this platform knows: asking the table for its distinct values would read all of it."""

    title = "kind"
    parameter_name = "kind"
    column = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in sorted(runtimes())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.column: self.value()}) if self.value() else queryset


class AttemptsOfJob(ReadOnlyInline):
    model = Attempt
    fields = readonly_fields = ("attempt", "miner_shown", "fault", "code", "message", "ran", "ended_at")
    verbose_name_plural = "Failed attempts"
    ordering = ("attempt",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Attempt]:
        attempts: QuerySet[Attempt] = super().get_queryset(request)
        return attempts.select_related("miner")

    @display(description="Miner")
    def miner_shown(self, attempt: Attempt) -> str:
        return show.link("gpu_miner", attempt.miner_id, attempt.miner)

    @display(description="Ran for")
    def ran(self, attempt: Attempt) -> str:
        return show.duration(attempt.ms)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    icon = "work"
    list_display = (
        "id_shown",
        "kind",
        "state_shown",
        "client_shown",
        "miner_shown",
        "max_price_amount",
        "paid_amount",
        "ran",
        "created_at",
    )
    list_select_related = ("client", "miner")
    list_filter = ("state", KindFilter)
    search_fields = ("id", "client__email", "miner__id")
    search_help_text = "Job, miner, or the client's e-mail"
    actions = ("cancel",)
    actions_detail = ("cancel_this",)
    inlines = (AttemptsOfJob,)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("kind", "state_shown"),
                    ("client_shown", "miner_shown"),
                    ("attempts", "priority"),
                    "id",
                )
            },
        ),
        ("Error", {"fields": ("error_code", "error_message"), "classes": ("error",)}),
        (
            "Times",
            {"fields": (("created_at", "expires_at"), ("leased_at", "started_at"), ("finished_at", "ran"))},
        ),
        ("Payment", {"fields": (("max_price_amount", "unit_price_amount"), "payment")}),
        ("Receipt", {"fields": ("receipt_shown",)}),
        ("Asked of the miner", {"fields": (("job_class", "offer_id"),)}),
        ("Input", {"fields": ("input_shown", "input_artifact_shown")}),
        ("Result", {"fields": ("progress_shown", "output", "output_artifact", "metrics")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs: QuerySet[Job] = super().get_queryset(request)
        paid = Payment.objects.filter(job=OuterRef("pk"))
        return jobs.annotate(
            released=Subquery(paid.values("released")[:1]), fee=Subquery(paid.values("fee")[:1])
        )

    def get_inlines(self, request: HttpRequest, obj: Job | None = None) -> tuple[Any, ...]:
        """Without an empty list of failed attempts on the page of a job that went well at once."""
        good = (
            obj is not None
            and obj.attempts == (0 if obj.state == Job.State.QUEUED else 1)
            and not obj.error_code
        )
        return () if good else self.inlines

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        hidden = set() if obj is None or obj.error_code else {"Error"}
        return [part for part in self.fieldsets if part[0] not in hidden]

    @display(description="Id")
    def id_shown(self, job: Job) -> str:
        return show.short(job.pk)

    @display(description="State", ordering="state")
    def state_shown(self, job: Job) -> str:
        return show.state(job.state, STATES)

    @display(description="Client", ordering="client")
    def client_shown(self, job: Job) -> str:
        return show.link("accounts_user", job.client_id, job.client)

    @display(description="Miner", ordering="miner")
    def miner_shown(self, job: Job) -> str:
        return show.link("gpu_miner", job.miner_id, job.miner)

    @display(description="At most", ordering="max_price")
    def max_price_amount(self, job: Job) -> str:
        return ait(job.max_price)

    @display(description="Price per device second")
    def unit_price_amount(self, job: Job) -> str:
        return ait(job.unit_price)

    @display(description="Paid")
    def paid_amount(self, job: Any) -> str:
        total = None if job.released is None or job.finished_at is None else int(job.released + job.fee)
        return ait(total)

    @display(description="Metered", ordering="units_ms")
    def ran(self, job: Job) -> str:
        return show.duration(job.units_ms)

    @display(description="Payment")
    @once
    def payment(self, job: Job) -> str:
        payment = Payment.objects.filter(job=job.pk).first()
        if payment is None:
            return show.NOTHING
        parts = [
            (name, ait(getattr(payment, name.lower()))) for name in ("Held", "Released", "Fee", "Refunded")
        ]
        line = (
            show.link("trading_payment", payment.pk),
            payment.state.replace("_", " "),
            *(part for _, part in parts),
        )
        return show.table(("Payment", "State", *(name for name, _ in parts)), [line])

    @display(description="Receipt")
    @once
    def receipt_shown(self, job: Job) -> str:
        receipt = Receipt.objects.filter(pk=job.pk).first()
        if receipt is None:
            return "None: only a completed job has one."
        ok, text = verify(receipt)
        return show.table(
            ("Receipt", "Verification"), [(show.link("gpu_receipt", job.pk), show.verdict(ok, text))]
        )

    @display(description="Inline")
    def input_shown(self, job: Job) -> str:
        return show.document(job.input)

    @display(description="Artifact")
    def input_artifact_shown(self, job: Job) -> str:
        return show.link("gpu_artifact", job.input_artifact)

    @display(description="Progress")
    def progress_shown(self, job: Job) -> str:
        return show.document(job.progress)

    @display(description="Output")
    @once
    def output(self, job: Job) -> str:
        result = _result(job)
        return show.document(result.output) if result else "None yet." if job.finished_at is None else "None."

    @display(description="Output artifact")
    def output_artifact(self, job: Job) -> str:
        result = _result(job)
        return show.link("gpu_artifact", result.output_artifact if result else None)

    @display(description="Metrics, by the miner")
    @once
    def metrics(self, job: Job) -> str:
        result = _result(job)
        return show.document(result.metrics) if result and result.metrics else show.NOTHING

    @action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        self.apply_each(request, queryset, self._cancel, "Jobs canceled")

    @action(
        description="Cancel",
        permissions=["operate"],
        icon="cancel",
        dialog={
            "title": "Cancel this job?",
            "description": "What was metered so far is paid to the provider, the rest returns to the client.",
            "form_class": None,
            "form_submit_text": "Cancel the job",
        },
    )
    def cancel_this(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self.apply_one(request, object_id, self._cancel, "Jobs canceled")

    def is_apt(self, name: str, job: Job) -> bool:
        return job.finished_at is None

    @staticmethod
    def _cancel(job: Job) -> object:
        return cancellation.cancel(client=None, job=job.pk)


@once
def _result(job: Job) -> JobResult | None:
    return JobResult.objects.filter(pk=job.pk).first()
