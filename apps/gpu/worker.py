"""The platform's own miner: the agent inside a Celery worker process of the queue `gpu`, fed by tasks.

It is a miner like any other, with a user, a key and a signing key of its own, and speaks the protocol of all
miners. The PostgreSQL lease decides: a task that is delivered twice finds its job taken and returns. A
process registers when its first task comes, so that workers of other queues never become miners.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import structlog
from celery import signals
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import transaction

from aitbc.accounts import keys
from aitbc.accounts.models import Role, User
from aitbc.core.files import write_private
from apps.gpu.agent import selftest
from apps.gpu.agent.detect import Detection, detect, parse_cpus
from apps.gpu.agent.identity import load_identity, read_api_key
from apps.gpu.agent.loop import Agent, Config
from apps.gpu.agent.sandbox import Sandbox, Slot
from apps.gpu.agent.transport import HttpTransport
from apps.gpu.models import Miner

EMAIL = "gpu-worker@platform.invalid"
log = structlog.get_logger(__name__)
_running: list[tuple[Agent, Sandbox]] = []


def own_key(number: int) -> Path:
    """The key file of the worker's `number`-th process; made on first use, readable by its owner only."""
    path = Path(settings.KEYS_DIR) / f"gpu-worker-{number}.key"
    if not path.exists():
        with transaction.atomic():
            user = User.objects.filter(email=EMAIL).first() or User.objects.create_user(EMAIL, role=Role.MINER)
            _, token = keys.create_key(user=user, name=f"gpu worker {number}", scopes=["miner"])
        write_private(path, token.encode())
    return path


def local_transport(token: str) -> HttpTransport:
    """The miners' protocol without a network: this process answers its own requests."""
    host = settings.ALLOWED_HOSTS[0].removeprefix(".")
    return HttpTransport(f"https://{host}", token, http=httpx.WSGITransport(app=WSGIHandler()))


@cache
def agent() -> Agent:
    """This process's agent, attached; refused registrations are raised, so that the task says why."""
    token, prefix = read_api_key(own_key(_number()))
    detection = _detection()
    sandbox = Sandbox(tier=None, threads=max(1, len(detection.devices[0].cpus)))
    made = Agent(
        transport=local_transport(token),
        identity=load_identity(settings.VAR_DIR / "miners" / prefix / "signing.key"),
        sandbox=sandbox,
        devices=detection.devices,
        config=Config(
            name=f"platform gpu worker {_number()}",
            region=settings.GPU_WORKER_REGION,
            price=settings.GPU_WORKER_PRICE,
            allow_client_code=settings.DEVELOPMENT,
        ),
        prefix=prefix,
    )
    made.attach()
    Miner.objects.filter(key__prefix=prefix).update(first_party=True)
    _running.append((made, sandbox))
    return made


def _detection() -> Detection:
    return detect(cpus=parse_cpus(settings.GPU_WORKER_CPUS) if settings.GPU_WORKER_CPUS else ())


def probe() -> dict[str, Any]:
    """A small job of every kind in this process's sandbox, its devices and what their sensors say."""
    agent()
    (_, sandbox), detection = _running[-1], _detection()
    device = detection.devices[0]
    return selftest.run(detection, sandbox, Slot(device.kind, max(1, len(device.cpus))))


def _number() -> int:
    """Of this process within its pool; a restarted process takes its predecessor's place and key."""
    from billiard.process import current_process

    return int(getattr(current_process(), "index", 0) or 0)


@signals.worker_process_shutdown.connect
def leave(**_: object) -> None:
    for attached, sandbox in _running:
        log.info("the gpu worker signs off", pid=os.getpid())
        attached.detach()
        sandbox.close()
    _running.clear()
