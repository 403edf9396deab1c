"""Migrations run on the owner's connection; the application's own role cannot change the schema."""

from typing import Any


class OwnerRouter:
    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "owner"

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool | None:
        """`default` and `owner` are two roles on one database."""
        pair = {obj1._state.db, obj2._state.db}
        return True if pair <= {"default", "owner"} else None
