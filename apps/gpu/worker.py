"""The agent inside a Celery worker process of the queue `gpu`: registered once, fed by tasks.

A process registers when its first task comes, so that workers of other queues never become miners.
"""

import os
from functools import cache

import structlog
from celery import signals
from django.conf import settings

from aitbc.core.errors import Unavailable
from apps.gpu.agent.detect import detect, parse_cpus
from apps.gpu.agent.identity import load_identity, read_api_key
from apps.gpu.agent.loop import Agent, Config
from apps.gpu.agent.sandbox import Sandbox
from apps.gpu.services import first_party

log = structlog.get_logger(__name__)
_running: list[tuple[Agent, Sandbox]] = []


@cache
def agent() -> Agent:
    """This process's agent, attached; refused registrations are raised, so that the task says why."""
    token, prefix = read_api_key(first_party.own_key(_number()))
    principal = first_party.keys.find_principal(token)
    if principal is None:
        raise Unavailable("worker.key", "the gpu worker's key is not valid any more: remove its key file")
    detection = detect(cpus=parse_cpus(settings.GPU_WORKER_CPUS) if settings.GPU_WORKER_CPUS else (), only=())
    sandbox = Sandbox(tier=None, threads=max(1, len(detection.devices[0].cpus)))
    made = Agent(
        transport=first_party.LocalTransport(principal),
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
    _running.append((made, sandbox))
    return made


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
