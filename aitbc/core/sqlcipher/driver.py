"""Opens a database file with SQLCipher, or plain without a key; refuses at once what it cannot read."""

import contextlib
import os
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from sqlcipher3 import dbapi2

from aitbc.core.sqlcipher import keys


def key_literal(key_file: Path | None) -> str:
    """A raw key: SQLCipher takes `x'<64 hex>'` as it is, and stretches anything else (PBKDF2, 80 ms)."""
    return f"x'{keys.read(key_file).hex()}'" if key_file else ""


def connect(database: str, key_file: Path | None, **options: Any) -> dbapi2.Connection:
    """A connection that has read the file. ImproperlyConfigured, naming file and cure, when the key is faulty
    or does not open it; OperationalError when the file was replaced meanwhile."""
    key = key_literal(key_file)
    inode = make_private(database)
    connection = dbapi2.connect(database, **options)
    try:
        if key:
            connection.execute(f'PRAGMA key = "{key}"')
        connection.execute("PRAGMA cipher_log_level = NONE")  # what is wrong is said below
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if inode != make_private(database):  # who waited for a db_ command has what it replaced
            raise dbapi2.OperationalError(f"{database} was replaced while it was opened: try again")
    except BaseException as error:
        connection.close()
        if type(error) is dbapi2.DatabaseError:
            raise ImproperlyConfigured(_reason(database, key_file)) from None
        raise
    return connection


def make_private(database: str) -> int:
    """0600 from its first byte, as are the logs that SQLite puts beside it; its inode, 0 for one in memory.
    What exists is not opened: closing it would drop the locks of this process's connections."""
    if ":memory:" in database or "mode=memory" in database:
        return 0
    with contextlib.suppress(FileExistsError):
        os.close(os.open(database, os.O_CREAT | os.O_EXCL, 0o600))
    for path in (f"{database}-wal", f"{database}-shm", database):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_mode & 0o077:
                os.chmod(path, 0o600)
    return os.stat(database).st_ino


def _reason(database: str, key_file: Path | None) -> str:
    if key_file is None:
        cure = "set DB_ENCRYPTION_ENABLED=1, and DB_ENCRYPTION_KEY_PATH to the file with its key"
        return f"{database} is encrypted (or damaged): {cure}"
    with contextlib.suppress(ImproperlyConfigured):
        connect(database, None).close()
        return f"{database} is not encrypted: stop the platform and run `manage.py db_encrypt`"
    cure = "put back the key that it was encrypted with, or restore a backup that was made under this key"
    if os.path.exists(f"{key_file}.new"):
        cure = "a db_rekey was interrupted; run it again"
    return f"the key in {key_file} does not open {database}: {cure}"
