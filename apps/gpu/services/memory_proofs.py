"""The platform's side of the proof of memory; `apps.gpu.agent.memory` says how it works."""

import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from aitbc.accounts import parameters
from aitbc.core import clock
from aitbc.core.errors import Conflict
from apps.gpu.agent import memory
from apps.gpu.models import Challenge
from apps.gpu.services import challenges

WALK_GRACE_SECONDS = 2


@transaction.atomic
def answer(*, key: UUID, challenge: UUID, roots: list[str], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The next of three steps: fill, walk, rows. The readings are timed from the nonce to their roots."""
    found = challenges.locked(key, challenge, *Challenge.OPEN, proof="memory")
    expected = {"issued": 1, "committed": found.steps, "walked": 0}[found.state]
    if len(roots) != expected:
        raise Conflict("challenge.roots", f"this step of the challenge takes {expected} roots")
    now, nonce = clock.database_now(), "0x" + secrets.token_hex(32)
    if now > found.deadline:
        challenges.end(found, f"the memory was {found.state} too long")
    elif found.state == Challenge.State.ISSUED:
        walk = challenges.SLACK * parameters.get("challenge_seconds") / 4 + WALK_GRACE_SECONDS
        found.state, found.committed_at, found.deadline = "committed", now, now + timedelta(seconds=walk)
        found.roots, found.nonce = roots, nonce
    elif found.state == Challenge.State.COMMITTED:
        found.state, found.walked_at, found.deadline = "walked", now, now + timedelta(seconds=60)
        found.roots, found.draw = [*found.roots, *roots], nonce
    else:
        _judge(found, rows)
    found.save()
    done = found.state not in Challenge.OPEN
    return {"nonce": None if done else nonce, "verdict": challenges.verdict(found) if done else None}


def _judge(found: Challenge, rows: list[dict[str, Any]]) -> None:
    assert found.committed_at is not None  # set with the states before this one
    assert found.walked_at is not None
    spec, keys = challenges.spec_of(found), [found.roots[0], found.nonce, *found.roots[1:]]
    if reason := memory.verify(spec, keys=keys, draw=found.draw, rows=rows):
        return challenges.end(found, reason)
    found.memory_gbps = memory.traffic(spec) / (found.walked_at - found.committed_at).total_seconds() / 1e9
    challenges.passed(found, memory_gbps=found.memory_gbps)
