from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.accounts.models import User
from aitbc.core import money
from aitbc.core.errors import DomainError
from aitbc.core.ids import uuid7
from apps.trading.services import ledger


class Command(BaseCommand):
    help = "Give a user CREDIT: it pays for work on this platform and is never withdrawn or converted."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="e-mail address of who gets it")
        parser.add_argument("--amount", required=True, help="CREDIT, such as 100 or 0.5")

    def handle(self, *, user: str, amount: str, **options: Any) -> None:
        try:
            owner = User.objects.get(email=user.lower()).pk
            source = ledger.account_id(owner=None, kind="external", asset="CREDIT", chain="platform")
            sides = source, ledger.account_id(owner=owner, kind="available", asset="CREDIT")
            granted = money.units(amount, 18)
            ledger.apply_all([ledger.Item(uuid7(), "transfer", "credit.grant", *sides, granted)])
        except (DomainError, User.DoesNotExist) as error:
            raise CommandError(str(error)) from error
