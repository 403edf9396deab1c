"""Health of the GPUs, by really running a small job of every kind on the platform's own worker."""

import time

from celery import current_app
from kombu.exceptions import OperationalError

from aitbc.core import db
from aitbc.core.errors import Unavailable
from apps.trading.services.escrow import call

WAIT_SECONDS = 15.0
TICK_SECONDS = 0.1


def report(*, deep: bool) -> str:
    """`sql/advice.sql` has the verdicts. A deep one older than a minute is made anew: one caller of all asks
    a worker and waits for it, the others get what there is."""
    if deep and db.value("SELECT gpu_probe_ask()"):
        try:  # by its name: the worker's modules are no load for the web
            current_app.send_task("gpu.probe", expires=WAIT_SECONDS)
        except OperationalError as error:
            raise Unavailable("broker.unavailable", "Redis does not answer") from error
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not db.value("SELECT gpu_probe_answered()"):
            time.sleep(TICK_SECONDS)
    return str(call("gpu_health", deep))
