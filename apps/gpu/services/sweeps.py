"""What time does to jobs and miners, always by the database's clock; each sweep may run twice.

The platform's own outages count for nobody (protocols 16): expiry waits a full lease after one, and
when many miners fall silent at once it is suspended, because then the fault is more likely ours.
"""

from datetime import timedelta
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import QuerySet

from aitbc.accounts import parameters
from aitbc.core import clock, db, ticks
from apps.gpu.models import Miner
from apps.gpu.services import miners

log = structlog.get_logger(__name__)
BATCH = 500
MASS_SILENCE = 0.2
MASS_MINIMUM = 5


def sweep() -> dict[str, int]:
    """One round of everything -> how many rows each part touched."""
    found = {"expired": db.value("SELECT gpu_expire_queued(%s) + gpu_end_order_jobs(%s)", (BATCH, BATCH))}
    if ticks.in_grace(parameters.get("lease_seconds")) or mass_silence():
        return found
    return found | {
        "suspect": _suspect(),
        "dead": _dead(),
        "leases": _end_overdue(
            "lease_expires_at <= clock_timestamp()", "lease.expired", "the miner stopped renewing the lease"
        ),
        "unstarted": _end_overdue(
            # Without artifacts the clock runs from the lease on, and no start need be reported.
            "state = 'leased' AND leased_at <= clock_timestamp() - CASE WHEN cardinality(artifacts) > 0 "
            "THEN parameter_value('start_deadline_seconds') * interval '1 second' "
            "ELSE (max_ms + 5000) * interval '1 ms' END",
            "lease.not_started",
            "the miner did not start in time",
        ),
        "overtime": _end_overdue(
            "state = 'running' AND started_at + (max_ms + 5000) * interval '1 ms' <= clock_timestamp()",
            "runtime.timeout",
            "the job ran longer than its escrow pays for",
            fault="client",
        ),
        "holds": settle_final(),
    }


def mass_silence() -> bool:
    """Did more than a fifth of the miners fall silent within one minute?

    For the minute after they became overdue only: whoever stays silent longer is dead, else a power cut
    at one large owner would keep his jobs leased for ever.
    """
    living, silent = db.rows(
        """WITH limits AS (
             SELECT clock_timestamp() - parameter_value('dead_seconds') * interval '1 second' AS dead)
           SELECT count(*), count(*) FILTER (WHERE m.last_seen_at < limits.dead) FROM gpu_miner m, limits
            WHERE m.state IN ('online', 'suspect', 'draining', 'dead')
              AND m.last_seen_at > limits.dead - interval '1 minute'"""
    )[0]
    mass: bool = silent >= MASS_MINIMUM and silent > MASS_SILENCE * living
    if mass:
        log.error("expiry is suspended: many miners fell silent at once", silent=silent, living=living)
    return mass


def _suspect() -> int:
    return Miner.objects.filter(
        state=Miner.State.ONLINE,
        last_seen_at__lt=clock.database_now() - timedelta(seconds=parameters.get("suspect_seconds")),
    ).update(state=Miner.State.SUSPECT)


def _dead() -> int:
    """Silent for too long: leases go back with an attempt counted."""
    limit = clock.database_now() - timedelta(seconds=parameters.get("dead_seconds"))
    silent = Miner.objects.filter(state__in=("online", "suspect", "draining"), last_seen_at__lt=limit)
    return sum(_bury(miner, silent) for miner in silent.order_by("pk").values_list("pk", flat=True)[:BATCH])


@transaction.atomic
def _bury(miner: UUID, silent: QuerySet[Miner]) -> bool:
    """One transaction for each: two miners' jobs around one client's account could deadlock with a result."""
    found = silent.select_for_update(no_key=True, skip_locked=True).filter(pk=miner).first()
    if found is None:
        return False  # it spoke again, or another sweep was faster
    miners.leave(found, Miner.State.DEAD, "miner.dead", "the miner stopped answering")
    return True


def _end_overdue(condition: str, code: str, message: str, fault: str = "provider") -> int:
    count: int = db.value(
        f"""SELECT gpu_end_attempt(coalesce(array_agg(x.id), '{{}}'), %s::text, %s::text, %s::text, true)
              FROM (SELECT id FROM gpu_job WHERE state IN ('leased', 'running') AND {condition}
                     ORDER BY id LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED) x""",
        (code, message, fault),
    )
    return count


def settle_final() -> int:
    """Return what is still held for a job that is over: the state machine alone resolves holds."""
    count: int = db.value(
        """SELECT coalesce(payments_settle(
             array_agg(x.job), array_agg(NULL::uuid), array_agg(0::numeric), array_agg(0::numeric),
             array_agg(x.state = 'expired')), 0)
             FROM (SELECT p.job, j.state FROM trading_payment p JOIN gpu_job j ON j.id = p.job
                    WHERE p.state = 'escrowed' AND j.state IN ('failed', 'canceled', 'expired')
                    LIMIT %s) x""",
        (BATCH,),
    )
    return count
