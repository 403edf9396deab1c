"""Files that must outlive a power cut, whole, and that nobody else may read. Needs no Django settings."""

import os
import secrets
from pathlib import Path


def write_private(path: Path, content: bytes) -> None:
    """Create `path`, or raise FileExistsError; never readable by others, never half written."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    sync(draft)
    try:
        os.link(draft, path)
    finally:
        draft.unlink()
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
