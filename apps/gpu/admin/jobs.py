"""Jobs with everything that came of them: result, receipt, payment and failed attempts."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, ReadOnlyInline, once
from apps.gpu.admin.receipts import verify
from apps.gpu.models import Attempt, Job, JobResult, Receipt
from apps.gpu.runtimes import runtimes
from apps.gpu.services import cancellation
from apps.trading.admin import amounts
from apps.trading.admin.amounts import amount
from apps.trading.models import Payment

STATES = {"queued": "info", "leased": "warning", "running": "warning", "completed": "success", "failed": "danger"}
CANCEL = Operation(
    name="cancel",
    label="Cancel",
    icon="cancel",
    question="Cancel this job?",
    effect="What was metered so far is paid to the provider, the rest returns to the client.",
    confirm="Cancel the job",
    done="Jobs canceled",
    service=lambda job, *_: cancellation.cancel(client=None, job=job.pk),
    is_apt=lambda job: job.finished_at is None,
)


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
    select_related = ("miner",)

    miner_shown = column("Miner", "miner", show.to)
    ran = column("Ran for", "ms", show.duration)


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    icon = "work"
    list_display = (
        "ident", "kind", "status", "client_shown", "miner_shown", "max_price_amount", "paid_amount",
        "ran", "created_at",
    )  # fmt: skip
    list_select_related = ("client", "miner")
    list_filter = ("state", KindFilter)
    search_fields = ("id", "client__email", "miner__id")
    search_help_text = "Job, miner, or the client's e-mail"
    operations = (CANCEL,)
    inlines = (AttemptsOfJob,)
    sections = {
        None: (("kind", "status"), ("client_shown", "miner_shown"), ("attempts", "priority"), "id"),
        "Error": ("error_code", "error_message"),
        "Times": (("created_at", "expires_at"), ("leased_at", "started_at"), ("finished_at", "ran")),
        "Payment": (("max_price_amount", "unit_price_amount"), "surcharge_bps", "payment"),
        "Receipt": ("receipt_shown",),
        "Asked of the miner": (("job_class", "offer_id"), ("order_id", "rank")),
        "Input": ("input_shown", "input_artifact_shown"),
        "Result": ("progress_shown", "output", "output_artifact", "metrics"),
    }

    status = state(STATES)
    client_shown = column("Client", "client", show.to, ordering="client")
    miner_shown = column("Miner", "miner", show.to, ordering="miner")
    max_price_amount = amount("At most", "max_price", ordering="max_price")
    unit_price_amount = amount("Price per device second", "unit_price")
    ran = column("Metered", "units_ms", show.duration, ordering="units_ms")
    input_shown = column("Inline", "input", show.document)
    input_artifact_shown = link("Artifact", "gpu_artifact", "input_artifact")
    progress_shown = column("Progress", "progress", show.document)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        jobs: QuerySet[Job] = super().get_queryset(request)
        paid = Payment.objects.filter(job=OuterRef("pk"))
        return jobs.annotate(released=Subquery(paid.values("released")[:1]), fee=Subquery(paid.values("fee")[:1]))

    def get_inlines(self, request: HttpRequest, obj: Job | None = None) -> tuple[Any, ...]:
        """Without an empty list of failed attempts on the page of a job that went well at once."""
        if obj is None or obj.error_code:
            return self.inlines
        smooth = obj.attempts == (0 if obj.state == Job.State.QUEUED else 1)
        return () if smooth else self.inlines

    def get_fieldsets(self, request: HttpRequest, obj: Job | None = None) -> Any:
        failed = obj is None or obj.error_code
        return [part for part in self.fieldsets or () if failed or part[0] != "Error"]

    @display(description="Paid")
    def paid_amount(self, job: Any) -> str:
        paid = job.released is not None and job.finished_at is not None
        return amounts.shown(int(job.released + job.fee) if paid else None)

    @display(description="Payment")
    @once
    def payment(self, job: Job) -> str:
        payment = Payment.objects.filter(job=job.pk).first()
        if payment is None:
            return show.NOTHING
        names = ("Held", "Released", "Fee", "Refunded")
        parts = [amounts.shown(getattr(payment, name.lower())) for name in names]
        line = (show.link("trading_payment", payment.pk), payment.state.replace("_", " "), *parts)
        return show.table(("Payment", "State", *names), [line])

    @display(description="Receipt")
    @once
    def receipt_shown(self, job: Job) -> str:
        receipt = Receipt.objects.filter(pk=job.pk).first()
        if receipt is None:
            return "None: only a completed job has one."
        line = (show.link("gpu_receipt", job.pk), verify(receipt)[1])
        return show.table(("Receipt", "Verification"), [line])

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


@once
def _result(job: Job) -> JobResult | None:
    return JobResult.objects.filter(pk=job.pk).first()
