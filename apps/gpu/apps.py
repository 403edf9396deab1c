from django.apps import AppConfig


class GpuConfig(AppConfig):
    name = "apps.gpu"
    label = "gpu"
    verbose_name = "GPU: miners, jobs, receipts"

    def ready(self) -> None:
        from aitbc.webhooks import events

        events.declare("jobs:read", "job.completed", "job.failed", "job.canceled", "job.expired")
