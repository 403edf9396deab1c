"""What time does to jobs and miners; `sql/sweeps.sql` has the rules, and each sweep may run twice.

The platform's own outages count for nobody (protocols 16): expiry waits a full lease after one, and
when many miners fall silent at once it is suspended, because then the fault is more likely ours.
"""

import structlog

from aitbc.accounts import parameters
from aitbc.core import db, ticks

log = structlog.get_logger(__name__)
BATCH = 500
MASS_SILENCE = 0.2
MASS_MINIMUM = 5
_PARTS = {
    "leases": "gpu_end_expired",
    "unstarted": "gpu_end_unstarted",
    "overtime": "gpu_end_overtime",
    "holds": "gpu_settle_final",
}


def sweep() -> dict[str, int]:
    """One round of everything -> how many rows each part touched."""
    found = {"expired": db.value("SELECT gpu_expire_queued(%s) + gpu_end_order_jobs(%s)", (BATCH, BATCH))}
    if ticks.in_grace(parameters.get("lease_seconds")) or mass_silence():
        return found
    found |= {"suspect": db.value("SELECT gpu_suspect()"), "dead": _dead()}
    return found | {name: db.value(f"SELECT {function}(%s)", (BATCH,)) for name, function in _PARTS.items()}


def mass_silence() -> bool:
    """Did more than a fifth of the miners fall silent within one minute?"""
    living, silent = db.rows("SELECT * FROM gpu_silence()")[0]
    mass: bool = silent >= MASS_MINIMUM and silent > MASS_SILENCE * living
    if mass:
        log.error("expiry is suspended: many miners fell silent at once", silent=silent, living=living)
    return mass


def _dead() -> int:
    """One transaction for each: two miners' jobs around one client's account could deadlock with a result."""
    silent = db.rows("SELECT gpu_dying(%s)", (BATCH,))
    return sum(db.value("SELECT gpu_bury(%s)", miner) for miner in silent)
