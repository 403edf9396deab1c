"""`manage.py create_approver_key`: the second key, whose passphrase only its owner knows."""

import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from aitbc.chain import keystore, signing
from aitbc.core.errors import DomainError

SHORTEST: Final = 15  # NIST SP 800-63B-4 for a password that stands alone


class Command(BaseCommand):
    help = "Make the approver's key; its passphrase is read from standard input and stored nowhere."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--password-stdin", action="store_true", required=True)

    def handle(self, **options: Any) -> None:
        passphrase = sys.stdin.readline().rstrip("\n")
        if len(passphrase) < SHORTEST:
            raise CommandError(f"the passphrase needs at least {SHORTEST} characters")
        key, cost = signing.new_private_key(), keystore.PERSONAL_SCRYPT_N
        try:
            made = keystore.store(keystore.APPROVER, key, passphrase=passphrase, cost=cost)
        except DomainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        self.stdout.write(made.address)
