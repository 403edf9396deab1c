"""What users may hear of: each app declares its events here, and tells of them in SQL, by `webhooks_tell`."""

from typing import Final

from aitbc.core import db, events, ports

CATALOGUE: Final[dict[str, str]] = {}  # event -> the scope that a key needs to have it sent somewhere


def declare(scope: str, *names: str) -> None:
    for name in names:
        CATALOGUE[name] = scope
        ports.subscribe(f"events:{name}", fan_out)


def fan_out(told: list[events.Event]) -> None:
    """Write the deliveries of a relay's batch; an event's version is its row in the outbox."""
    db.rows("SELECT webhooks_fan_out(%s::bigint[])", ([event.version for event in told],))
