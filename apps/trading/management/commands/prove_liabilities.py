from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.core import money
from aitbc.core.errors import DomainError
from apps.trading.services import reserves


class Command(BaseCommand):
    help = "Build the tree of what is owed to users, compare it with the chain, publish and anchor its root."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def handle(self, **options: Any) -> None:
        try:
            made = reserves.check_reserves(prove=True)
        except DomainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        self.stdout.write(
            f"{made.users} users are owed {money.show(made.owed or 0, 18)} AIT, root {made.root}"
        )
