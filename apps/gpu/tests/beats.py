"""Heartbeats as an honest miner sends them: chained, and signed when asked to."""

from typing import Any

from django.conf import settings
from django.http import HttpResponse

from aitbc.chain import signing
from aitbc.core.testing.cast import Seller
from apps.gpu import statements
from apps.gpu.models import Miner


def beat_values(miner: Seller, *, running=(), telemetry=(), **changes: Any) -> dict[str, Any]:
    row = Miner.objects.get(pk=miner.miner_id)
    values = {
        "miner": str(row.pk),
        "sequence": row.sequence + 1,
        "previous": bytes.fromhex(row.head[2:]),
        "running": [str(job) for job in running],
        "telemetry": list(telemetry),
    }
    return statements.heartbeat_values(**values | changes)


def sign_beat(miner: Seller, values: dict[str, Any]) -> str:
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.HEARTBEAT, values)
    return signing.sign(miner.private_key, digest)


def beat(miner: Seller, *, running=(), telemetry=(), signed: bool = False, **changes: Any) -> HttpResponse:
    """The next heartbeat after the last accepted one; `changes` override members of the body."""
    values = beat_values(miner, running=running, telemetry=telemetry)
    body = {
        "sequence": values["sequence"],
        "previous": "0x" + values["previous"].hex(),
        "running": [str(job) for job in running],
        "telemetry": list(telemetry),
    }
    if signed:
        body["signature"] = sign_beat(miner, values)
    return miner.post("/v1/miners/heartbeat", body | changes)
