from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "aitbc.webhooks"
    label = "webhooks"

    def ready(self) -> None:
        from aitbc.core import ports
        from aitbc.webhooks import events

        ports.subscribe("outbox.take", events.take)
