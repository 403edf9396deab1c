"""The loop of long-running commands: stops on SIGTERM or Ctrl-C between two rounds, survives a lost store."""

import signal
import threading
from collections.abc import Callable

import structlog
from django.db import Error, connections

from aitbc.core.errors import Unavailable

log = structlog.get_logger(__name__)


def run(name: str, work: Callable[[], int], *, idle_seconds: float, busy_seconds: float = 0.0) -> None:
    """Call `work` until told to stop; sleep `idle_seconds` after a round that found nothing.

    A database or dependency that is away is waited for: the rows are the queue, nothing is lost.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("started", process=name)
    while not stop.is_set():
        stop.wait(busy_seconds if _round(name, work) else idle_seconds)
    connections.close_all()
    log.info("stopped", process=name)


def _round(name: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except (Error, Unavailable) as error:
        log.warning("a store is away; trying again", process=name, error=str(error).split("\n")[0])
        connections.close_all()
        return 0
