"""Receipts as files, and what `manage.py verify_receipt` says of them while every store is down."""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aitbc.demo.client import chunks
from aitbc.demo.failure import require
from aitbc.stack import process

MOST_FILES = 2000  # of one command


def write_all(folder: Path, receipts: Mapping[str, bytes]) -> list[Path]:
    """One file per receipt, named by its job; the files of an earlier run go."""
    shutil.rmtree(folder, ignore_errors=not folder.exists())
    folder.mkdir(parents=True, mode=0o755)
    files = [folder / f"{job}.json" for job in receipts]
    for file, content in zip(files, receipts.values(), strict=True):
        file.write_bytes(content)
    return files


def verdicts(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The command's answer for every file, in order."""
    found: list[dict[str, Any]] = []
    for chunk in chunks(files, MOST_FILES):
        done = process.manage("verify_receipt", *chunk, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        require(len(lines) == len(chunk), f"verify_receipt judged {len(lines)} of {len(chunk)} files: {done.stderr}")
        require(
            (done.returncode == 0) == all(line["valid"] for line in lines),
            f"verify_receipt's exit code {done.returncode} does not fit",
        )
        found += lines
    return found


def require_all_valid(files: Sequence[Path]) -> None:
    for file, verdict in zip(files, verdicts(files), strict=True):
        require(verdict["valid"], f"{file.name} is not valid: {verdict['reason']}")
        require(verdict["checks"]["merkle"] is True, f"{file.name} is not anchored")


def require_all_refused(contents: Sequence[bytes], folder: Path) -> None:
    """Every one of the changed receipts must be refused."""
    files = write_all(folder, {str(number): content for number, content in enumerate(contents)})
    try:
        accepted = [file for file, verdict in zip(files, verdicts(files), strict=True) if verdict["valid"]]
        require(not accepted, f"{len(accepted)} of {len(files)} changed receipts were accepted")
    finally:
        shutil.rmtree(folder)


def every_byte_changed(content: bytes) -> list[bytes]:
    """As many copies as the receipt has bytes, each with another byte changed to a random other value."""
    return [change_byte(content, place) for place in range(len(content))]


def change_byte(content: bytes, place: int) -> bytes:
    other = content[place] ^ random.randrange(1, 256)
    return content[:place] + bytes([other]) + content[place + 1 :]
