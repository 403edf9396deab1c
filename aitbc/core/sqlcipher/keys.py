"""The key file of the encrypted database: 32 random bytes, raw, its owner's alone."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from aitbc.core.files import write_private

SIZE = 32


def read(path: Path) -> bytes:
    """The key; ImproperlyConfigured names the file and the cure when it is missing, cannot be read, is open
    to others, or is not exactly 32 bytes long."""
    try:
        with path.open("rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode & 0o777, file.read(SIZE + 1)
    except FileNotFoundError:
        cure = "put it back from where it is kept; `manage.py db_generate_key` makes one for a new database"
        raise ImproperlyConfigured(f"the database key {path} is missing: {cure}") from None
    except OSError as error:
        cure = "it must be a file of the user that runs the platform, mode 600"
        raise ImproperlyConfigured(f"the database key {path}: {error.strerror}; {cure}") from error
    if mode & 0o077:
        cure = f"`chmod 600 {path}`, and `manage.py db_rekey` if somebody may have read it"
        raise ImproperlyConfigured(f"the database key {path} is open to others (mode {mode:o}): {cure}")
    if len(key) != SIZE:
        wrong = "empty" if not key else "not 32 raw bytes"
        cure = "put back the file that `manage.py db_generate_key` made (no text, no line end)"
        raise ImproperlyConfigured(f"the database key {path} is {wrong}: {cure}")
    return key


def generate(path: Path) -> None:
    """Make a key; FileExistsError rather than replace one."""
    write_private(path, secrets.token_bytes(SIZE))
