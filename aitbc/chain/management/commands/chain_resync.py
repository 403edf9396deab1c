"""`manage.py chain_resync`: brings a reset embedded chain back, or a reviewed network out of its halt."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.chain import indexer
from aitbc.chain.client import client
from aitbc.chain.deploy import resend_all
from aitbc.chain.models import Block, FinalEvent, Log, NetworkStatus
from aitbc.core import db
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Embedded chain: send every stored transaction again, in order; then read the chain from its start."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
        parser.add_argument("--gone", type=int, help="lift a halt; so many booked events are known to be gone")

    def handle(self, *, as_json: bool, gone: int | None, **options: Any) -> None:
        if gone is None and not (settings.CHAIN_EMBEDDED and getattr(settings, "DEVELOPMENT", False)):
            raise CommandError("chain_resync without --gone is for the embedded development chain only")
        with db.advisory_lock(f"chain:{settings.CHAIN_NETWORK}") as held:
            if not held:
                raise CommandError("stop the chain worker first")
            Block.objects.all().delete()
            try:
                sent = resend_all(client()) if gone is None else 0
                if gone is not None:
                    self._review(gone)
            except DomainError as error:
                raise CommandError(f"{error.code}: {error.message}") from error
            # Events that were consumed keep their identity (transaction and ordinal) and stay consumed.
            NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).update(
                height=-1, final_height=-1, final_hash=None, halted="", problem=""
            )
        self.stdout.write(json.dumps({"sent": sent}) if as_json else f"{sent} transactions sent again")

    def _review(self, expected: int) -> None:
        """Refuse, naming them, unless so many booked events are gone; those not booked yet are read again."""
        indexer.follow(client(), network=settings.CHAIN_NETWORK, final_height=-1)
        there = set(Log.objects.values_list("tx_hash", "ordinal"))
        status = NetworkStatus.objects.get(network=settings.CHAIN_NETWORK)
        events = FinalEvent.objects.filter(network=status.network).order_by("id")
        booked = events.filter(id__lte=status.event_cursor)
        gone = [f"{each.pk}: {each}, {each.tx_hash}" for each in booked if (each.tx_hash, each.ordinal) not in there]
        if len(gone) != expected:
            raise CommandError("\n".join([f"{len(gone)} booked events are not on the chain", *gone]))
        events.filter(id__gt=status.event_cursor).delete()
