from typing import Any

from django.core.management.base import BaseCommand

from aitbc.core import daemon
from aitbc.webhooks.sender import Sender


class Command(BaseCommand):
    help = "Send webhooks that are due."

    def handle(self, *args: Any, **options: Any) -> None:
        sender = Sender()
        daemon.run("webhooks", sender.round, idle_seconds=0.1)
        sender.close()
