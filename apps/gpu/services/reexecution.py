"""Work done again elsewhere: outputs are compared here, `sql/reexecution.sql` draws miners and counts votes."""

from collections import Counter
from typing import Any
from uuid import UUID

import orjson

from aitbc.core import db
from aitbc.core.errors import Conflict
from apps.gpu.runtimes import runtimes
from apps.gpu.services.artifacts import path_of
from apps.trading.services.escrow import call


def open_dispute(*, client: UUID, payment: UUID) -> str:
    """Decide the client's dispute by re-execution; Conflict "reexecution.not_reproducible" for other kinds."""
    found = db.row(
        "SELECT j.kind FROM trading_payment p JOIN gpu_job j ON j.id = p.job WHERE p.id = %s AND p.client_id = %s",
        (payment, client),
    )
    rule = runtimes()[found[0]].reproducible if found else None
    if found and rule is None:
        raise Conflict("reexecution.not_reproducible", f"machines need not agree on {found[0]}: an operator decides")
    return str(call("reexecution_open", client, payment, float(rule.tolerance) if rule else 0.0))


def judge(limit: int = 20) -> dict[str, int]:
    """Compare the runs that are over, then take every step that is due -> how many of each."""
    done: Counter[str] = Counter()
    for run, *came in db.rows(
        "SELECT id, kind, tolerance, ms, failed::text, came::text, others::text FROM rerun_due(%s)", (limit,)
    ):
        state, measured, agrees = _verdict(*came)
        call("rerun_record", run, state, orjson.dumps(measured).decode(), agrees)
        done[state] += 1
    while done.total() < 1000 and (step := call("reexecution_next")) is not None:
        done[step] += 1
    return {**done}


def _verdict(
    kind: str, tolerance: float, ms: int | None, failed: str | None, came: str | None, others: str
) -> tuple[str, Any, list[int]]:
    """State of a run, what was measured, and the earlier runs that it agrees with."""
    if came is None:
        why = orjson.loads(failed or "null")
        return "differs" if why["blamed"] else "nothing", why, []
    rule = runtimes()[kind].reproducible
    assert rule is not None  # or it would not have been run again
    mine = orjson.loads(came)
    off = {other["number"]: rule.deviation(_output(mine), _output(other)) for other in orjson.loads(others)}
    measured = {"ms": ms, "tolerance": tolerance, "deviation": {str(number): off[number] for number in off}}
    like = [number for number, deviation in off.items() if deviation <= tolerance]
    return "agrees" if 0 in like else "differs", measured | {"metrics": mine["metrics"]}, [n for n in like if n]


def _output(of: Any) -> Any:
    return orjson.loads(path_of(of["artifact"]).read_bytes()) if of.get("artifact") else of["output"]
