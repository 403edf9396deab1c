"""Sends each table of the chain app to the database its model names; everything else is left alone."""

from typing import Any

from django.apps import apps
from django.db.models import Model


class ChainRouter:
    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return "chain" if getattr(model, "database", None) == "chain" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        if app_label == "chain" and model_name is None:
            return None
        local = app_label == "chain" and self.db_for_read(apps.get_model(app_label, str(model_name)))
        if db == "chain":
            return bool(local)
        return False if local else None
