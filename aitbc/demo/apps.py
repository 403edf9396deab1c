from django.apps import AppConfig


class DemoConfig(AppConfig):
    name = "aitbc.demo"
    label = "demo"
    verbose_name = "Demonstration"
