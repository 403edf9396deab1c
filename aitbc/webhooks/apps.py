from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "aitbc.webhooks"
    label = "webhooks"
    verbose_name = "Webhooks"
