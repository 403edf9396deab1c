"""Start-up checks that Django's own do not know."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import register as register_check


def register() -> None:
    register_check(visibility_timeout, "aitbc")


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
