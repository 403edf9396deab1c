"""Start-up checks that Django's own do not know."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, run_checks
from django.core.checks import register as register_check
from django.core.exceptions import ImproperlyConfigured

from aitbc.core.sqlcipher import keys


def register() -> None:
    register_check(visibility_timeout, "aitbc")
    register_check(database_key, "aitbc")


def require() -> None:
    """What commands and Celery ask when they start, for servers, which nobody asks."""
    if faults := [message for message in run_checks(tags=["aitbc"]) if message.is_serious()]:
        raise ImproperlyConfigured("; ".join(map(str, faults)))


def visibility_timeout(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Redis redelivers a task after the visibility timeout, also one that is still running."""
    if settings.CELERY_VISIBILITY_TIMEOUT > settings.MAX_JOB_SECONDS:
        return []
    return [
        Error(
            "CELERY_VISIBILITY_TIMEOUT must be longer than MAX_JOB_SECONDS",
            hint="otherwise a long job is delivered to a second worker while the first still runs it",
            id="aitbc.E001",
        )
    ]


def database_key(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """A host with neither the key nor the database, a web server say, needs neither; connecting refuses."""
    path, database = Path(settings.DB_ENCRYPTION_KEY_PATH), Path(str(settings.DATABASES["chain"]["NAME"]))
    try:
        if settings.DB_ENCRYPTION_ENABLED and (path.exists() or database.exists()):
            keys.read(path)
    except ImproperlyConfigured as error:
        return [Error(str(error), id="aitbc.E002")]
    return []
