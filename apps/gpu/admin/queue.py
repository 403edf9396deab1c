"""What waits, what was tried, what was delivered, and what jobs ask of miners."""

from django.contrib import admin
from unfold.decorators import display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin
from apps.gpu.admin.jobs import KindFilter
from apps.gpu.admin.money import ait
from apps.gpu.models import Attempt, JobClass, JobResult, QueuedJob, Waiter

FAULTS = {"client": "info", "provider": "warning", "platform": "danger"}


class QueuedKindFilter(KindFilter):
    column = "job_class__kind"


@admin.register(QueuedJob)
class QueuedJobAdmin(ReadOnlyAdmin):
    icon = "hourglass_empty"
    list_display = ("job_shown", "kind", "max_price_amount", "expires_at", "avoid_shown")
    list_select_related = ("job_class",)
    list_filter = (QueuedKindFilter,)
    search_fields = ("job_id",)
    search_help_text = "Job"
    ordering = ("pk",)
    fields = (("job_shown", "kind"), ("max_price_amount", "expires_at"), ("rank", "avoid_shown"))

    @display(description="Job")
    def job_shown(self, queued: QueuedJob) -> str:
        return show.short(queued.pk)

    @display(description="Kind")
    def kind(self, queued: QueuedJob) -> str:
        return queued.job_class.kind

    @display(description="At most")
    def max_price_amount(self, queued: QueuedJob) -> str:
        return ait(queued.max_price)

    @display(description="Not to miner")
    def avoid_shown(self, queued: QueuedJob) -> str:
        return show.link("gpu_miner", queued.avoid)


@admin.register(JobClass)
class JobClassAdmin(ReadOnlyAdmin):
    icon = "category"
    list_display = (
        "id",
        "kind",
        "gpu_model",
        "min_vram_mb",
        "cuda_shown",
        "region",
        "models_shown",
        "miner_shown",
    )
    search_fields = ("id", "kind")
    search_help_text = "Number or kind"
    ordering = ("-id",)
    fields = (
        ("id", "kind"),
        ("gpu_model", "min_vram_mb"),
        ("cuda_shown", "region"),
        "models_shown",
        "miner_shown",
    )

    @display(description="CUDA at least")
    def cuda_shown(self, job_class: JobClass) -> str:
        return ".".join(map(str, job_class.cuda or ())) or show.NOTHING

    @display(description="Models")
    def models_shown(self, job_class: JobClass) -> str:
        return ", ".join(job_class.model_names) or show.NOTHING

    @display(description="Only miner")
    def miner_shown(self, job_class: JobClass) -> str:
        return show.link("gpu_miner", job_class.miner)


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    icon = "error"
    list_display = ("id", "job_shown", "attempt", "miner_shown", "fault_shown", "code", "ran", "ended_at")
    list_select_related = ("miner",)
    list_filter = ("fault",)
    search_fields = ("id", "job_id", "miner_id")
    search_help_text = "Number, job or miner"
    ordering = ("-id",)
    fields = (("job_shown", "attempt"), ("miner_shown", "fault_shown"), "code", "message",
          ("leased_at", "started_at"), ("ended_at", "ran"))  # fmt: skip

    @display(description="Job")
    def job_shown(self, attempt: Attempt) -> str:
        return show.link("gpu_job", attempt.job_id)

    @display(description="Miner")
    def miner_shown(self, attempt: Attempt) -> str:
        return show.link("gpu_miner", attempt.miner_id, attempt.miner)

    @display(description="Fault", ordering="fault")
    def fault_shown(self, attempt: Attempt) -> str:
        return show.state(attempt.fault, FAULTS)

    @display(description="Ran for")
    def ran(self, attempt: Attempt) -> str:
        return show.duration(attempt.ms)


@admin.register(JobResult)
class JobResultAdmin(ReadOnlyAdmin):
    icon = "output"
    list_display = ("id_shown", "job_shown", "output_artifact")
    search_fields = ("job_id",)
    search_help_text = "Job"
    ordering = ("-job_id",)
    fields = ("job_shown", "output_shown", "output_artifact", "metrics_shown")

    @display(description="Id")
    def id_shown(self, result: JobResult) -> str:
        return show.short(result.pk)

    @display(description="Job")
    def job_shown(self, result: JobResult) -> str:
        return show.link("gpu_job", result.pk)

    @display(description="Output")
    def output_shown(self, result: JobResult) -> str:
        return show.document(result.output)

    @display(description="Metrics, by the miner")
    def metrics_shown(self, result: JobResult) -> str:
        return show.document(result.metrics)


@admin.register(Waiter)
class WaiterAdmin(ReadOnlyAdmin):
    icon = "hourglass_top"
    list_display = ("process", "until")
    search_fields = ("process",)
    search_help_text = "Process"
    ordering = ("process",)
    fields = ("process", "until")
