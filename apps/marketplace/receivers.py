"""Offers follow their miners. Each event only says "look again": a repeat or a late one does no harm."""

from uuid import UUID

from aitbc.core import db
from aitbc.core.events import Event, receiver
from apps.marketplace.services.following import follow_miner
from apps.trading.services.escrow import call


@receiver("gpu.miner_registered")
@receiver("gpu.miner_returned")
@receiver("gpu.miner_draining")
@receiver("gpu.miner_left")
@receiver("gpu.device_measured")
@receiver("gpu.device_doubted")
@receiver("gpu.miner_rated")
def look_again(event: Event) -> None:
    follow_miner(miner_id=UUID(event.payload["miner"]))


@receiver("gpu.miner_registered")
@receiver("gpu.miner_left")
def look_at_orders(event: Event) -> None:
    db.rows("SELECT orders_of_gone(%s)", (UUID(event.payload["miner"]),))


@receiver("marketplace.order_ended")
def note_order(event: Event) -> None:
    call("reputation_note_order", UUID(event.payload["order"]))
