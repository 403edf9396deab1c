"""`manage.py deploy_contracts`: AIT and Settlement on this network, once."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.chain.client import client
from aitbc.chain.deploy import deploy
from aitbc.core import db, money
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Deploy the contracts of this network; a repeat shows what is there."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--token", help="address of an AIT that exists already")
        parser.add_argument("--daily-cap", default="1000000", help="AIT that may leave per day")
        parser.add_argument("--approval-threshold", default="10000", help="AIT above which two keys sign")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, **options: Any) -> None:
        limits = {name: money.units(options[name], 18) for name in ("daily_cap", "approval_threshold")}
        try:
            with db.advisory_lock(f"chain.deploy:{settings.CHAIN_NETWORK}") as free:
                if not free:
                    raise CommandError("another deployment is running")
                rows = deploy(client(), **limits, token=options["token"])
        except DomainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        shown = {n: {"address": r.address, "tx_hash": r.tx_hash, "block": r.block_number} for n, r in rows.items()}
        result = {"network": settings.CHAIN_NETWORK, "contracts": shown}
        self.stdout.write(json.dumps(result, indent=None if options["as_json"] else 2))
