from argparse import ArgumentParser
from typing import Any, get_args

import orjson
from django.core.management.base import BaseCommand, CommandError

from aitbc.core.errors import DomainError
from apps.marketplace.selectors.offers import Order, search


class Command(BaseCommand):
    help = "Search the market in the filter language, as GET /v1/marketplace/offers does: docs/search.md."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("q", nargs="?", default="", help="e.g. 'model in [H200, \"RTX 4090\"] and price < 0.002'")
        parser.add_argument("--sort", choices=get_args(Order), default="price")
        parser.add_argument("--limit", type=int, choices=range(1, 201), default=20, metavar="1-200")
        parser.add_argument("--explain", action="store_true", help="how many offers each filter leaves")
        parser.add_argument("--json", action="store_true", help="print the API's answer, with the exact count")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = {name: options[name] for name in ("q", "sort", "limit", "explain")}
        try:
            text = search(**wanted, cursor=None, count=options["json"])
        except DomainError as error:
            raise CommandError(f"{error.message} ({error.code})") from error
        self.stdout.write(text) if options["json"] else self._show(orjson.loads(text))

    def _show(self, page: dict[str, Any]) -> None:
        for o in page["items"]:
            price, much = o["price"]["on_demand"], f"{o['device_count']} x {o['model']}, {o['memory_gb']} GB"
            self.stdout.write(f"{o['id']}  {price['amount']} {price['asset']}/s  {much}, {o['region']}, {o['score']}")
        for one in page["explain"] or ():
            self.stdout.write(f"{one['filter']}: {one['fits']} fit it alone, {one['without']} fit all the others")
        self.stdout.write(f"{len(page['items'])} offers{' and more' if page['next'] else ''}")
