"""Time. What decides money or leases is judged by the database's clock, never by a process's own."""

from datetime import datetime

from aitbc.core import db


def database_now() -> datetime:
    """The database's wall clock, also inside a long transaction."""
    now: datetime = db.value("SELECT clock_timestamp()")
    return now
