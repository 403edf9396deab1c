"""`manage.py chain_resync`: development only; brings a reset embedded chain back from the stored bytes."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from aitbc.chain.client import client
from aitbc.chain.deploy import resend_all
from aitbc.chain.models import Block, NetworkStatus
from aitbc.core import db
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Send every stored transaction again, in its order, and read the chain from its start."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *, as_json: bool, **options: Any) -> None:
        if not (settings.CHAIN_EMBEDDED and getattr(settings, "DEVELOPMENT", False)):
            raise CommandError("chain_resync is for the embedded development chain only")
        with db.advisory_lock(f"chain:{settings.CHAIN_NETWORK}") as held:
            if not held:
                raise CommandError("stop the chain worker first")
            try:
                sent = resend_all(client())
            except DomainError as error:
                raise CommandError(f"{error.code}: {error.message}") from error
            self._forget()
        self.stdout.write(json.dumps({"sent": sent}) if as_json else f"{sent} transactions sent again")

    def _forget(self) -> None:
        """Events that were consumed keep their identity (transaction and ordinal) and stay consumed."""
        with transaction.atomic(using="chain"):
            Block.objects.all().delete()
        NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).update(
            height=-1, final_height=-1, final_hash=None, halted="", problem=""
        )
