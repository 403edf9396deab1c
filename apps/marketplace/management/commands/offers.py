from argparse import ArgumentParser
from typing import Any, get_args

import orjson
from django.core.management.base import BaseCommand, CommandError

from aitbc.core.errors import DomainError
from apps.marketplace.selectors.offers import Order, search

_OFFER = "{id}  {price[on_demand][amount]} AIT/s  {score}  {device_count} x {model}, {memory_gb} GB, {region}"
_REASON = "{filter}: {fits} fit it alone, {without} all others"


class Command(BaseCommand):
    help = "Search the market in the filter language, as GET /v1/marketplace/offers does: docs/search.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("q", nargs="?", default="", help="e.g. 'model in [H200, \"RTX 4090\"] and price < 0.002'")
        parser.add_argument("--sort", choices=get_args(Order), default="price")
        parser.add_argument("--limit", type=int, choices=range(1, 201), default=20, metavar="1-200")
        parser.add_argument("--explain", action="store_true", help="how many offers each filter leaves")
        parser.add_argument("--json", action="store_true", help="print the API's answer, with the exact count")

    def handle(self, *args: Any, **told: Any) -> None:
        wanted = {name: told[name] for name in ("q", "sort", "limit", "explain")}
        try:
            text = search(**wanted, cursor=None, count=told["json"])
        except DomainError as error:
            raise CommandError(f"{error.message} ({error.code})") from error
        page = {} if told["json"] else orjson.loads(text)
        lines = [_OFFER.format(**offer) for offer in page.get("items", ())]
        lines += [_REASON.format(**reason) for reason in page.get("explain") or ()]
        self.stdout.write(text if told["json"] else "\n".join(lines))
