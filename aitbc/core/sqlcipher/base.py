"""Django's SQLite backend on the SQLCipher driver; encrypts where DB_ENCRYPTION_ENABLED says so."""

import datetime
import decimal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

from django.conf import settings
from django.db.backends.sqlite3 import base
from django.db.backends.sqlite3._functions import register as register_functions
from django.utils import dateparse
from sqlcipher3 import dbapi2

from aitbc.core.sqlcipher import driver

sqlite: Any = base  # half of it is missing in the stubs

# Django's backend tells the standard driver the same; each driver has registers of its own.
dbapi2.register_converter("bool", b"1".__eq__)
for _type in ("date", "time", "datetime"):
    dbapi2.register_converter(_type, sqlite.decoder(getattr(dateparse, f"parse_{_type}")))
dbapi2.register_converter("timestamp", sqlite.decoder(dateparse.parse_datetime))
dbapi2.register_adapter(decimal.Decimal, str)
dbapi2.register_adapter(datetime.date, sqlite.adapt_date)
dbapi2.register_adapter(datetime.datetime, sqlite.adapt_datetime)


class Cursor(dbapi2.Cursor):
    """Takes Django's placeholders, as Django's own cursor does for the standard driver."""

    def execute(self, query: str, params: Any = None) -> Any:
        if params is None:
            return super().execute(query)
        return super().execute(_converted(query, params), params)

    def executemany(self, query: str, param_list: Iterable[Any]) -> Any:
        rows = list(param_list)
        return super().executemany(_converted(query, rows[0] if rows else ()), rows)


def _converted(query: str, params: Any) -> str:
    names = list(params) if isinstance(params, Mapping) else None
    return str(sqlite.SQLiteCursorWrapper.convert_query(None, query, param_names=names))


class DatabaseWrapper(base.DatabaseWrapper):
    Database = dbapi2
    connected: "WeakSet[DatabaseWrapper]" = WeakSet()  # by any thread of this process

    def get_new_connection(self, conn_params: dict[str, Any]) -> dbapi2.Connection:
        encrypted = settings.DB_ENCRYPTION_ENABLED and not self.is_in_memory_db()
        key_file = Path(settings.DB_ENCRYPTION_KEY_PATH) if encrypted else None
        connection = driver.connect(str(conn_params.pop("database")), key_file, **conn_params)
        register_functions(connection)
        for command in ("PRAGMA foreign_keys = ON", "PRAGMA legacy_alter_table = OFF", *self.init_commands):  # type: ignore[attr-defined]
            connection.execute(command)
        self.connected.add(self)
        return connection

    def create_cursor(self, name: str | None = None) -> Cursor:
        return self.connection.cursor(factory=Cursor)  # type: ignore[no-any-return]

    def close_everywhere(self) -> None:
        """Fold the write-ahead log in and close this alias in every thread; who needs it connects anew."""
        for database in [each for each in self.connected if each.alias == self.alias and each.connection]:
            database.inc_thread_sharing()
            try:
                database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                database.close()
            finally:
                database.dec_thread_sharing()
