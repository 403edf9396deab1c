"""The steps of the market's stories: quotes, orders, bonds, heartbeats, and letting time pass."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.money import show
from aitbc.core.money import units as parse
from aitbc.core.testing.cast import Person, Seller
from apps.gpu.models import Miner
from apps.gpu.tests.steps import refused
from apps.marketplace.models import Auction, Offer, Order, Quote
from apps.marketplace.services import orders
from apps.marketplace.tests.conftest import read
from apps.trading.services.audit import audit

MILLI = 10**15  # a thousandth of an AIT, in units
SHIFT = """
CREATE OR REPLACE FUNCTION test_age(p_ids uuid[], p_by interval) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET session_replication_role = replica SET search_path = public AS $$
DECLARE span bigint;
BEGIN
  UPDATE marketplace_order SET starts_at = starts_at - p_by, start_deadline = start_deadline - p_by,
    started_at = started_at - p_by, ends_at = ends_at - p_by, ended_at = ended_at - p_by, due_at = due_at - p_by,
    move_at = move_at - p_by WHERE id = ANY (p_ids);
  UPDATE marketplace_quote SET starts_at = starts_at - p_by, expires_at = expires_at - p_by,
    resolved_at = resolved_at - p_by WHERE id = ANY (p_ids);
  UPDATE marketplace_auction SET created_at = created_at - p_by, closes_at = closes_at - p_by,
    reveal_until = reveal_until - p_by, award_until = award_until - p_by, due_at = due_at - p_by WHERE id = ANY (p_ids);
  FOR span IN SELECT id FROM gpu_occupancy WHERE holder = ANY (p_ids) ORDER BY lower(during) LOOP
    UPDATE gpu_occupancy SET during = tstzrange(lower(during) - p_by, upper(during) - p_by) WHERE id = span;
  END LOOP;
  UPDATE trading_stream SET settled_at = settled_at - p_by, ends_at = ends_at - p_by, due_at = due_at - p_by,
    created_at = created_at - p_by WHERE keeper = ANY (p_ids);
  UPDATE gpu_heartbeat SET received_at = received_at - p_by;
  UPDATE core_platform_outage SET began_at = began_at - p_by, ended_at = ended_at - p_by;
END $$"""


def learn_to_age() -> None:
    """Only the owner may change a stream's times; tests do it through this function."""
    role = settings.DATABASES["default"]["USER"]
    database = settings.DATABASES["default"]["NAME"]
    with psycopg.connect(settings.DATABASE_OWNER_URL, dbname=database, autocommit=True) as owner:
        owner.execute(SHIFT)
        owner.execute(f'GRANT EXECUTE ON FUNCTION test_age TO "{role}"')


def age(seconds: float, *ids: str | UUID) -> None:
    """These quotes, orders and auctions (all, when none are named) as they would be so much later."""
    found = ids or {pk for model in (Order, Quote, Auction) for pk in model.objects.values_list("pk", flat=True)}
    db.rows("SELECT test_age(%s::uuid[], %s)", ([UUID(str(one)) for one in found], timedelta(seconds=seconds)))


def set_parameters(**values: int) -> None:
    for name, value in values.items():
        parameters.change(name=name, value=value, by=None)


def quote(client: Person, status: int = 201, **ask: Any) -> dict[str, Any]:
    body = {"seconds": 100} | ask
    found: dict[str, Any] = read(client.post("/v1/marketplace/quotes", body), status)
    return found


def accept(client: Person, asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(client.post(f"/v1/marketplace/quotes/{asked['id']}/accept"), 201)
    return found


def order(client: Person, **ask: Any) -> dict[str, Any]:
    return accept(client, quote(client, **ask))


def start(seller: Seller, placed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(seller.post(f"/v1/miners/orders/{placed['id']}/start"))
    return found


def running(client: Person, seller: Seller, **ask: Any) -> dict[str, Any]:
    return start(seller, order(client, **ask))


def act(who: Person, placed: dict[str, Any], action: str, status: int = 200, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = read(who.post(f"/v1/marketplace/orders/{placed['id']}/{action}", body), status)
    return found


def seen(who: Person, placed: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = read(who.get(f"/v1/marketplace/orders/{placed['id']}"))
    return found


def no(response: Any, status: int, code: str) -> dict[str, Any]:
    return refused(response, status, code)


def bid(amount: str) -> dict[str, Any]:
    return {"type": "spot", "bid": {"amount": amount}}


def bond(seller: Seller, amount: int) -> None:
    read(seller.post("/v1/bonds/deposit", {"amount": show(amount, 18)}))


def terms(offer: dict[str, Any], **values: Any) -> None:
    assert Offer.objects.filter(pk=offer["id"]).update(**values) == 1


def money(owner: UUID, kind: str = "available") -> tuple[int, int]:
    """(posted, held) of somebody's account, in units."""
    found = db.row(
        "SELECT posted, held FROM trading_account WHERE owner_id = %s AND kind = %s AND asset_id = 'AIT'", (owner, kind)
    )
    return (int(found[0]), int(found[1])) if found else (0, 0)


def units(shown: dict[str, Any] | None) -> int:
    assert shown is not None
    return parse(shown["amount"], 18)


def dies(seller: Seller, ago: float = 0) -> None:
    """The miner is dead, last heard of so many seconds ago, and its orders are due."""
    Miner.objects.filter(pk=seller.miner_id).update(state=Miner.State.DEAD)
    db.rows(
        "UPDATE gpu_miner SET last_seen_at = clock_timestamp() - %s * interval '1 second' WHERE id = %s",
        (ago, seller.miner_id),
    )
    db.rows("SELECT orders_of_gone(%s)", (seller.miner_id,))


def beats(seller: Seller, placed: dict[str, Any], minutes: Iterable[int]) -> None:
    """A signed beat in the middle of each of these minutes of an order."""
    for number, minute in enumerate(minutes, 1):
        db.rows(
            """INSERT INTO gpu_heartbeat (miner_id, sequence, previous, head, received_at, signature)
               SELECT %s, %s, '\\x00', '\\x00', started_at + %s * interval '1 minute' + interval '30 seconds', '0x01'
                 FROM marketplace_order WHERE id = %s""",
            (seller.miner_id, 1_000_000 + number, minute, placed["id"]),
        )


def run() -> dict[str, int]:
    return orders.run_due()


def assert_sound() -> None:
    """Books, orders and occupancies agree; nothing is let twice (the constraint keeps that)."""
    assert audit() == []
    assert db.rows("SELECT * FROM audit_orders()") == []
    assert db.rows("SELECT * FROM audit_auctions()") == []
