"""Jobs and miners in figures for the console's dashboard.

Spans of time are judged by `statement_timestamp()`: the volatile `clock_timestamp()` keeps PostgreSQL
from using an index.
"""

from datetime import datetime
from typing import Any

from django.db.models import F

from aitbc.core import db
from apps.gpu.models import Device, Job, Miner

HOURS = 24
DEVICES = 12


def jobs_by_state() -> dict[str, int]:
    """Jobs submitted in the last 24 hours by their state now; every state is there."""
    counted = dict(
        db.rows(
            """SELECT state, count(*) FROM gpu_job
                WHERE created_at > statement_timestamp() - %s * interval '1 hour' GROUP BY state""",
            (HOURS,),
        )
    )
    return {state: counted.get(state, 0) for state in Job.State.values}


def queue() -> tuple[list[tuple[str, int]], datetime | None]:
    """(waiting jobs by kind, when the oldest of them was submitted)"""
    found = db.rows(
        """SELECT c.kind, count(*), min(j.created_at) FROM gpu_job_queue q
             JOIN gpu_job_class c ON c.id = q.job_class_id JOIN gpu_job j ON j.id = q.job_id
            GROUP BY c.kind ORDER BY 2 DESC, 1"""
    )
    return [(kind, count) for kind, count, _ in found], min((oldest for *_, oldest in found), default=None)


def miners_by_state() -> dict[str, int]:
    counted = dict(db.rows("SELECT state, count(*) FROM gpu_miner GROUP BY state"))
    return {state: counted.get(state, 0) for state in Miner.State.values}


def completed_per_hour() -> list[tuple[datetime, int]]:
    """(start of the hour, jobs completed in it) for the last 24 hours, the running one last."""
    return [
        (hour, count)
        for hour, count in db.rows(
            """SELECT h.hour, coalesce(d.count, 0)
                 FROM generate_series(date_trunc('hour', statement_timestamp()) - %s * interval '1 hour',
                                      date_trunc('hour', statement_timestamp()), interval '1 hour') AS h(hour)
                 LEFT JOIN (SELECT date_trunc('hour', finished_at) AS hour, count(*) FROM gpu_job
                             WHERE state = 'completed'
                               AND finished_at > statement_timestamp() - %s * interval '1 hour'
                             GROUP BY 1) d ON d.hour = h.hour
                ORDER BY h.hour""",
            (HOURS - 1, HOURS),
        )
    ]


def devices() -> dict[str, Any]:
    """Active devices: how many, how many verified, and those with the freshest telemetry."""
    active, verified = db.rows("SELECT count(*), count(*) FILTER (WHERE verified) FROM gpu_device WHERE active")[0]
    freshest = (
        Device.objects.filter(active=True)
        .select_related("miner")
        .order_by(F("sampled_at").desc(nulls_last=True), "-id")[:DEVICES]
    )
    return {"active": active, "verified": verified, "freshest": list(freshest)}
