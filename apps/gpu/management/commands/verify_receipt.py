"""`manage.py verify_receipt FILE...`: needs no store, no network and no password."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.chain import keystore, signing
from aitbc.core.errors import DomainError
from apps.gpu import statements, verification


class Command(BaseCommand):
    help = "Verify receipts offline; exit 0 only when all are valid. Prints {valid, checks, reason} for each."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="receipts as canonical JSON (RFC 8785)")
        parser.add_argument(
            "--platform-address", action="append", help="a receipt key to trust instead of this platform's"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object; it always does")

    def handle(self, *args: Any, **options: Any) -> None:
        files, addresses = options["files"], trusted(options["platform_address"])
        verdicts = [verify_file(_read(file), addresses) for file in files]
        for verdict in verdicts:
            self.stdout.write(json.dumps(verdict.as_json()))
        refused = [(file, v.reason) for file, v in zip(files, verdicts, strict=True) if not v.valid]
        if refused and len(files) > 1:
            file, reason = refused[0]
            raise CommandError(f"{len(refused)} of {len(files)} are NOT valid, the first {file}: {reason}")
        if refused:
            raise CommandError(f"NOT valid: {refused[0][1]}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error


def trusted(given: list[str] | None) -> list[str]:
    """The addresses given, else this installation's receipt key and those it was configured with."""
    try:
        if given:
            return [signing.checksum_address(signing.parse_address(text)) for text in given]
        return [keystore.address("receipt"), *settings.RECEIPT_ADDRESSES]
    except DomainError as error:
        raise CommandError(f"whose receipts? {error.message}; give --platform-address") from error


def verify_file(raw: bytes, addresses: list[str]) -> verification.Verdict:
    """Only the canonical bytes will do: a space more would be a byte that nobody signed."""
    try:
        document = orjson.loads(raw)
        if statements.canonical(document) != raw:
            return verification.refuse("not canonical JSON (RFC 8785): some byte was changed or added")
    except (orjson.JSONDecodeError, DomainError) as error:
        return verification.refuse(f"the file is not JSON: {error}")
    return verification.verify(document, platform_addresses=addresses, chain_id=settings.CHAIN_ID)
