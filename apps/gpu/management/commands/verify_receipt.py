"""`manage.py verify_receipt FILE`: needs no store, no network and no password."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.chain import keystore, networks, signing
from aitbc.core.errors import DomainError
from apps.gpu import statements, verification


class Command(BaseCommand):
    help = "Verify a receipt offline; exit 0 only when it is valid. Prints {valid, checks, reason}."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="a receipt as canonical JSON (RFC 8785)")
        parser.add_argument(
            "--platform-address", action="append", help="a receipt key to trust instead of this platform's"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object; it always does")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            raw = options["file"].read_bytes()
        except OSError as error:
            raise CommandError(f"cannot read {options['file']}: {error.strerror}") from error
        verdict = verify_file(raw, trusted(options["platform_address"]))
        self.stdout.write(json.dumps(verdict.as_json()))
        if not verdict.valid:
            raise CommandError(f"NOT valid: {verdict.reason}")


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
            return verification.refuse("the file is not canonical JSON (RFC 8785): some byte was changed or added")
    except (orjson.JSONDecodeError, DomainError) as error:
        return verification.refuse(f"the file is not JSON: {error}")
    return verification.verify(document, platform_addresses=addresses, chain_id=networks.chain_id())
