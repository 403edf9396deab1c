"""`manage.py deploy_contracts`: AIT and Settlement on this network, once."""

import json
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from aitbc.chain.client import client
from aitbc.chain.deploy import deploy
from aitbc.core import db, money
from aitbc.core.answers import AnswerCommand


class Command(AnswerCommand):
    help = "Deploy the contracts of this network; a repeat shows what is there."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--token", help="address of an AIT that exists already")
        parser.add_argument("--daily-cap", default="1000000", help="AIT that may leave per day")
        parser.add_argument("--approval-threshold", default="10000", help="AIT above which two keys sign")

    def answer(self, **options: Any) -> tuple[Any, str]:
        limits = {name: money.units(options[name], 18) for name in ("daily_cap", "approval_threshold")}
        with db.advisory_lock(f"chain.deploy:{settings.CHAIN_NETWORK}") as free:
            if not free:
                raise CommandError("another deployment is running")
            rows = deploy(client(), **limits, token=options["token"])
        shown = {n: {"address": r.address, "tx_hash": r.tx_hash, "block": r.block_number} for n, r in rows.items()}
        result = {"network": settings.CHAIN_NETWORK, "contracts": shown}
        return result, json.dumps(result, indent=2)
