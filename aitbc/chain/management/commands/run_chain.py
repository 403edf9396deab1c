"""`manage.py run_chain`: indexer, intents and confirmations of one network, one worker at a time."""

import signal
import threading
from argparse import ArgumentParser
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from aitbc.chain.client import client
from aitbc.chain.models import NetworkStatus
from aitbc.chain.worker import Worker
from aitbc.core import db
from aitbc.core.errors import Unavailable

log = structlog.get_logger(__name__)
BUSY_SECONDS, IDLE_SECONDS, STANDBY_SECONDS = 0.2, 1.0, 2.0


class Command(BaseCommand):
    help = "Index the chain and send what is requested of it; a second one waits as a stand-by."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="work until all is final, then end")

    def handle(self, *, once: bool, **options: Any) -> None:
        try:
            connections["chain"].ensure_connection()  # a faulty key ends it here, also a stand-by
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        self._stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        try:
            while not self._stop.is_set():
                with db.advisory_lock(f"chain:{settings.CHAIN_NETWORK}") as held:
                    if held:
                        return self._work(once=once)
                if once:
                    raise CommandError("another chain worker holds this network")
                self._stop.wait(STANDBY_SECONDS)
        finally:
            db.shutdown_db()

    def _work(self, *, once: bool) -> None:
        worker: Worker | None = None
        while not self._stop.is_set():
            try:
                worker = worker or Worker(client())
                waiting = worker.tick()
            except Unavailable as error:
                log.warning("chain is out of reach", code=error.code, reason=error.message)
                NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).update(problem=error.message)
                waiting = True
            if once and not waiting:
                return
            self._stop.wait(BUSY_SECONDS if waiting else IDLE_SECONDS)
