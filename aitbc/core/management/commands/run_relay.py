import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from aitbc.core import daemon, outbox, ports, ticks

SEAL_SECONDS = 1.0


class Command(BaseCommand):
    help = "Deliver outbox events in order, at least once, seal the journals, note that the platform is up."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="deliver what is due and stop")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["once"]:
            self.stdout.write(f"{outbox.relay_once()} events delivered")
            return
        self.next_tick = self.next_seal = 0.0
        daemon.run("relay", self._round, idle_seconds=0.2)

    def _round(self) -> int:
        if time.monotonic() >= self.next_tick:
            ticks.tick()
            self.next_tick = time.monotonic() + ticks.EVERY_SECONDS
        if time.monotonic() >= self.next_seal:
            for seal in ports.subscribers("journal.seal"):
                seal()
            self.next_seal = time.monotonic() + SEAL_SECONDS
        return outbox.relay_once()
