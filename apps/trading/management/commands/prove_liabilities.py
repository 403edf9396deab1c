from typing import Any

from django.core.management.base import BaseCommand

from apps.trading.services import reserves


class Command(BaseCommand):
    help = "Build the tree of what is owed to users, compare it with the chain, publish and anchor its root."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def handle(self, **options: Any) -> None:
        made = reserves.check_reserves(prove=True)
        self.stdout.write(f"{made.owed} units are owed to {made.users} users, root {made.root}")
