"""Replaces a database file by its copy under another key, or none; checks and copies one that is in use.

The functions of the `db_` commands: their docstrings are the help, what they return is printed.
"""

import contextlib
import hashlib
import os
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from sqlcipher3 import dbapi2

from aitbc.core.files import sync
from aitbc.core.sqlcipher import driver, keys

HEADER = b"SQLite format 3\0"  # how every plain database begins
Found = dict[str, Any]


def generate_key(database: Path, key_file: Path) -> Found:
    """Make the key of a new chain database, or of a plain one that is to be encrypted; never replaces one."""
    if database.exists():
        driver.connect(str(database), None).close()
    keys.generate(key_file)
    return {"key_file": str(key_file)}


def encrypt(database: Path, key_file: Path, *, dry_run: bool = False) -> Found:
    """Encrypt the chain database with the key at DB_ENCRYPTION_KEY_PATH; interrupted, run it again."""
    old = _current(database, key_file)
    return check(database, old) if dry_run else _convert(database, old, key_file)


def decrypt(database: Path, key_file: Path, *, dry_run: bool = False) -> Found:
    """Make the chain database plain; interrupted, run it again."""
    old = _current(database, key_file)
    return check(database, old) if dry_run else _convert(database, old, None)


def rekey(database: Path, key_file: Path, *, dry_run: bool = False) -> Found:
    """Give the chain database and DB_ENCRYPTION_KEY_PATH a new key; interrupted, run it again."""
    successor, previous = Path(f"{key_file}.new"), Path(f"{key_file}.previous")
    if dry_run:
        return check(database, key_file)
    if not successor.exists():
        _head(database)  # there is one: connecting would make it
        driver.connect(str(database), key_file).close()
        keys.generate(successor)
    # It opens the database already if a run before this was killed between the two renames.
    found = _convert(database, _current(database, successor) or key_file, successor)
    previous.unlink(missing_ok=True)
    os.link(key_file, previous)
    successor.replace(key_file)
    sync(key_file.parent)
    return {**found, "changed": True, "previous_key_file": str(previous)}


def check(database: Path, key_file: Path | None, *, backup: str = "") -> Found:
    """Check the chain database, also while the platform runs."""
    if backup and key_file is None:
        raise ImproperlyConfigured("only an encrypted database is copied: run `manage.py db_encrypt` first")
    header = _head(database)
    plain = [path for path in database.parent.glob(f"{database.name}*") if _head(path) == HEADER]
    with closing(driver.connect(str(database), key_file, isolation_level=None, timeout=20)) as connection:
        if backup:
            if os.path.exists(backup):
                raise FileExistsError(f"{backup} exists already: a backup replaces nothing")
            driver.make_private(backup)
            connection.execute("VACUUM INTO ?", (backup,))
            sync(Path(backup))
        connection.execute("BEGIN IMMEDIATE")  # no page may change while each is read by itself
        problems, tables = _examine(connection, key_file)
    problems += [f"{path} is not encrypted: remove it" for path in plain if key_file]
    if backup:
        with closing(driver.connect(backup, key_file)) as copy:
            problems += _examine(copy, key_file)[0]
    facts = {"encrypted": header != HEADER, "header": header.hex(), "problems": problems, "tables": tables}
    return {"ok": not problems, **facts}


def _current(database: Path, key_file: Path) -> Path | None:
    """The key if it opens the database; None where that is plain, or under another: opening will tell.
    FileNotFoundError where there is none: connecting would make one."""
    keys.read(key_file)
    _head(database)
    with contextlib.suppress(ImproperlyConfigured):
        driver.connect(str(database), key_file).close()
        return key_file
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(HEADER))


def _convert(database: Path, old: Path | None, new: Path | None) -> Found:
    """One rename, once the copy is found equal. Killed at any point it leaves the one or the other, whole;
    what is left of its copy goes when any of these commands is run again."""
    draft = Path(f"{database}.draft")
    with closing(driver.connect(str(database), old, isolation_level=None, timeout=0)) as source:
        _take_alone(source, database)
        draft.unlink(missing_ok=True)
        problems, tables = _examine(source, old)
        if problems:
            raise dbapi2.IntegrityError(f"{database} is damaged, restore a backup: {problems[0]}")
        try:
            if old != new:
                _copy(source, draft, new)
                with closing(driver.connect(str(draft), new)) as copy:
                    if _examine(copy, new) != ([], tables):
                        raise dbapi2.IntegrityError(f"the copy of {database} differs: nothing was changed")
                draft.replace(database)
                sync(database.parent)
        finally:
            draft.unlink(missing_ok=True)
    return {"changed": old != new, "encrypted": new is not None, "tables": tables}


def _take_alone(source: dbapi2.Connection, database: Path) -> None:
    """Fold the write-ahead log in and keep everybody out until `source` is closed. No journal may lie beside
    the file when it is replaced: it would be taken for the new one's."""
    modes = ("journal_mode = DELETE", "locking_mode = EXCLUSIVE", "journal_mode = MEMORY")
    try:
        for command in (*(f"PRAGMA {mode}" for mode in modes), "BEGIN EXCLUSIVE", "COMMIT"):
            source.execute(command).fetchall()
    except dbapi2.OperationalError as error:
        cure = "stop the platform (web and chain worker) first"
        raise dbapi2.OperationalError(f"{database} is open in another process: {cure} ({error})") from error


def _copy(source: dbapi2.Connection, draft: Path, new: Path | None) -> None:
    driver.make_private(str(draft))
    source.execute("ATTACH DATABASE ? AS draft KEY ?", (str(draft), driver.key_literal(new)))
    source.execute("PRAGMA draft.journal_mode = OFF").fetchall()  # it would outlive a crash
    source.execute("SELECT sqlcipher_export('draft')").fetchall()
    source.execute("DETACH DATABASE draft")
    sync(draft)


def _examine(connection: dbapi2.Connection, key_file: Path | None) -> tuple[list[str], Found]:
    """What is wrong with the seals of an encrypted one's pages, with indexes, with references; if nothing is,
    what it holds: the rows of the schema and of each table, and a digest over them in their order."""
    for name in (*(["cipher_integrity_check"] if key_file else []), "integrity_check", "foreign_key_check"):
        said = [row for row in connection.execute(f"PRAGMA {name}").fetchall() if row != ("ok",)]
        if said:
            return [f"{name}: {', '.join(map(str, row))}" for row in said], {}
    queries = {"sqlite_master": "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"}
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        queries[name] = f'SELECT * FROM "{name}" ORDER BY rowid'
    tables: Found = {}
    for name, query in queries.items():
        digest, rows = hashlib.sha256(), 0
        for row in connection.execute(query):
            digest.update(repr(row).encode())
            rows += 1
        tables[name] = {"rows": rows, "sha256": digest.hexdigest()}
    return [], tables
