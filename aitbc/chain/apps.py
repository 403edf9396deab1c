from pathlib import Path

from django.apps import AppConfig
from django.conf import settings


class ChainConfig(AppConfig):
    name = "aitbc.chain"
    label = "chain"
    verbose_name = "Chain"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """SQLite makes the file but not its folder."""
        Path(str(settings.DATABASES["chain"]["NAME"])).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
