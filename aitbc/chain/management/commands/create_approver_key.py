import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.chain import keystore, signing
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Make the approver's key; its passphrase is read from standard input and stored nowhere."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--password-stdin", action="store_true", required=True)

    def handle(self, **options: Any) -> None:
        passphrase = sys.stdin.readline().rstrip("\n")
        if len(passphrase) < 15:  # NIST SP 800-63B-4, for a password that stands alone
            raise CommandError("the passphrase needs at least 15 characters")
        key, cost = signing.new_private_key(), keystore.PERSONAL_SCRYPT_N
        try:
            made = keystore.store("approver", key, passphrase=passphrase, cost=cost)
        except DomainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        self.stdout.write(made.address)
