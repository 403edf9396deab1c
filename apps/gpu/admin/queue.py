"""What waits, what was tried, what was delivered, and what jobs ask of miners."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column, link, state
from aitbc.core.pages import ReadOnlyAdmin
from apps.gpu.admin.jobs import KindFilter
from apps.gpu.models import Attempt, JobClass, JobResult, QueuedJob, Waiter
from apps.trading.admin.amounts import amount

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
    fields = (("job_shown", "kind"), ("max_price_amount", "expires_at"), ("rank", "since"), ("priority", "avoid_shown"))

    job_shown = column("Job", "pk", show.short)
    kind = column("Kind", "job_class.kind")
    max_price_amount = amount("At most", "max_price")
    avoid_shown = link("Not to miner", "gpu_miner", "avoid")


@admin.register(JobClass)
class JobClassAdmin(ReadOnlyAdmin):
    icon = "category"
    list_display = ("id", "kind", "gpu_model", "min_vram_mb", "cuda_min", "region", "models", "miner_shown")
    search_fields = ("id", "kind")
    search_help_text = "Number or kind"
    ordering = ("-id",)
    fields = (("id", "kind"), ("gpu_model", "min_vram_mb"), ("cuda_min", "region"), "models",
              ("min_reliability", "vtime"), ("miner_shown", "holder"))  # fmt: skip

    cuda_min = column("CUDA at least", lambda row: ".".join(map(str, row.cuda or ())) or show.NOTHING)
    models = column("Models", lambda row: ", ".join(row.model_names) or show.NOTHING)
    miner_shown = link("Only miner", "gpu_miner", "miner")


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

    job_shown = link("Job", "gpu_job", "job_id")
    miner_shown = column("Miner", "miner", show.to)
    fault_shown = state(FAULTS, "fault", "Fault")
    ran = column("Ran for", "ms", show.duration)


@admin.register(JobResult)
class JobResultAdmin(ReadOnlyAdmin):
    icon = "output"
    list_display = ("ident", "job_shown", "output_artifact")
    search_fields = ("job_id",)
    search_help_text = "Job"
    ordering = ("-job_id",)
    fields = ("job_shown", "output_shown", "output_artifact", "metrics_shown")

    job_shown = link("Job", "gpu_job", "pk")
    output_shown = column("Output", "output", show.document)
    metrics_shown = column("Metrics, by the miner", "metrics", show.document)


@admin.register(Waiter)
class WaiterAdmin(ReadOnlyAdmin):
    icon = "hourglass_top"
    list_display = ("process", "until")
    search_fields = ("process",)
    search_help_text = "Process"
    ordering = ("process",)
    fields = ("process", "until")
