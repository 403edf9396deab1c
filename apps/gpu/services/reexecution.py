"""Work done again elsewhere: outputs are compared here, `sql/reexecution.sql` draws miners and counts votes."""

from collections import Counter
from typing import Any, Final

from orjson import dumps, loads

from aitbc.core import db
from apps.gpu.runtimes import runtimes
from apps.gpu.services.artifacts import path_of
from apps.trading.services.escrow import call

TOLERANCES: Final = dumps({r.kind: r.tolerance for r in runtimes().values() if r.deviation}).decode()


def judge(limit: int = 20) -> dict[str, int]:
    """Compare the runs that are over, then take every step that is due -> how many of each."""
    done: Counter[str] = Counter()
    for run, kind, tolerance, *found in db.rows("SELECT * FROM rerun_due(%s)", (limit,)):
        failed, came, others = (loads(text or "null") for text in found)
        state, measured, like = _compared(kind, tolerance, came, others) if came else (failed["state"], failed, [])
        call("rerun_record", run, state, dumps(measured).decode(), like)
        done[state] += 1
    while done.total() < 1000 and (step := call("reexecution_next")) is not None:
        done[step] += 1
    return {**done}


def _compared(kind: str, tolerance: float, mine: Any, others: Any) -> tuple[str, dict[str, Any], list[int]]:
    """State of a run, what was measured, and the other runs that it agrees with; number 0 is the original."""
    far: Any = runtimes()[kind].deviation
    off = {other["number"]: far(_output(mine), _output(other)) for other in others}
    measured = {"deviation": {str(n): off[n] for n in off}, "tolerance": tolerance} | mine["measured"]
    like = [number for number in off if off[number] <= tolerance]
    return "agrees" if 0 in like else "differs", measured, [number for number in like if number]


def _output(of: Any) -> Any:
    return loads(path_of(of["artifact"]).read_bytes()) if of.get("artifact") else of["output"]
