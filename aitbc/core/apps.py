from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "aitbc.core"
    label = "core"
    verbose_name = "Platform core"

    def ready(self) -> None:
        from aitbc.core import checks, logging

        logging.configure()
        checks.register()
