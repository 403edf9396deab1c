"""The Celery application. Imported by wsgi, stream, manage and the tests, so that `.delay()` finds it."""

import os
from typing import Any

from celery import Celery, signals
from django.db import connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aitbc.settings.local")
app = Celery("aitbc")
app.set_default()  # in every thread of the web, not only in the one that imports this
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
QUEUES = ("default", "gpu", "settlement", "zk", "chain")
app.conf.task_create_missing_queues = True
app.conf.task_routes = {
    "gpu.work": {"queue": "gpu"},
    "gpu.probe": {"queue": "gpu"},
    "trading.settle*": {"queue": "settlement"},
    "chain.*": {"queue": "chain"},
}
app.conf.beat_schedule = {
    "gpu.sweep": {"task": "gpu.sweep", "schedule": 2.0},
    "gpu.dispatch": {"task": "gpu.dispatch", "schedule": 1.0},
    "marketplace.run_orders": {"task": "marketplace.run_orders", "schedule": 1.0},
    "gpu.record": {"task": "gpu.record", "schedule": 60.0},
    "gpu.keep": {"task": "gpu.keep", "schedule": 3600.0},
    "gpu.challenge": {"task": "gpu.challenge", "schedule": 60.0},
    "gpu.rate": {"task": "gpu.rate", "schedule": 300.0},
    "marketplace.sweep": {"task": "marketplace.sweep", "schedule": 5.0},
    "trading.mature": {"task": "trading.mature", "schedule": 5.0},
    "trading.expire_holds": {"task": "trading.expire_holds", "schedule": 5.0},
    "trading.checkpoint": {"task": "trading.checkpoint", "schedule": 3600.0},
    "trading.audit": {"task": "trading.audit", "schedule": 60.0},
    "trading.run_streams": {"task": "trading.run_streams", "schedule": 2.0},
    "trading.settle": {"task": "trading.settle", "schedule": 5.0},
    "trading.settle_reserves": {"task": "trading.settle_reserves", "schedule": 15.0},
    "trading.settle_liabilities": {"task": "trading.settle_liabilities", "schedule": 86_400.0},
    "marketplace.collect": {"task": "marketplace.collect", "schedule": 5.0},
    "marketplace.roll_prices": {"task": "marketplace.roll_prices", "schedule": 300.0},
    "marketplace.apply_strategies": {"task": "marketplace.apply_strategies", "schedule": 10.0},
    "marketplace.watch": {"task": "marketplace.watch", "schedule": 30.0},
    "core.forget_old_keys": {"task": "core.forget_old_keys", "schedule": 3600.0},
}


@signals.task_failure.connect
def bury(sender: Any = None, task_id: str = "", exception: Any = None, **details: Any) -> None:
    """A task that failed for good goes to the dead-letter table, where an operator can requeue it."""
    from aitbc.core.deadletters import bury_task

    bury_task(task=sender, task_id=task_id, error=exception, **details)


@signals.worker_shutdown.connect
@signals.worker_process_shutdown.connect
def close_databases(**_: Any) -> None:
    from aitbc.core.db import shutdown_db

    shutdown_db()
    connections.close_all()
