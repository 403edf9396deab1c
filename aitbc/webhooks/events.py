"""What users may hear of: each app declares its events here, and tells of them in SQL, by `webhooks_tell`."""

from typing import Final

from aitbc.core import db
from aitbc.core.events import Event, receiver, receivers

CATALOGUE: Final[dict[str, str]] = {}  # event -> the scope that a key needs to have it sent somewhere


def declare(scope: str, *names: str) -> None:
    for name in names:
        CATALOGUE[name] = scope
        receiver(name)(fan_out)


def fan_out(event: Event) -> None:
    """Write its deliveries; an event's version is its row in the outbox."""
    db.rows("SELECT webhooks_fan_out(ARRAY[%s::bigint])", (event.version,))


def take(partition: int, limit: int) -> int:
    """The same for all events of a partition that nobody else receives, in one statement; how many."""
    ours = [name for name in CATALOGUE if receivers(name) == [fan_out]]
    return int(db.value("SELECT webhooks_take(%s, %s, %s)", (partition, limit, ours)))
