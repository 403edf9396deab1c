import gc
from typing import Any

from django.core.management.base import BaseCommand

from aitbc.core import daemon
from aitbc.webhooks.sender import Sender


class Command(BaseCommand):
    help = "Send webhooks that are due."

    def handle(self, *args: Any, **options: Any) -> None:
        sender = Sender()
        gc.freeze()  # what is loaded stays: searching it again and again would take a third of the time
        gc.set_threshold(20_000, 50, 50)
        daemon.run("webhooks", sender.round, idle_seconds=0.1)
        sender.close()
