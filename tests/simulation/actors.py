"""Who lives in the simulated market: miners that beat, start, fail and come back; clients that buy and quarrel."""

from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings

from aitbc.accounts.models import User
from aitbc.chain import signing
from aitbc.core import db
from aitbc.core.testing import cast
from apps.gpu import statements
from apps.gpu.models import Miner
from apps.gpu.services import heartbeats
from apps.gpu.services.miners import DeviceClaim
from apps.marketplace.services import offers
from apps.marketplace.services.offers import NewOffer, Terms
from apps.trading.services.escrow import call

CARDS = {"NVIDIA H200": (143_771, 3000), "NVIDIA A100": (81_920, 1200), "NVIDIA RTX 4090": (24_564, 400)}
REGIONS = ("eu-west", "us-east", "ap-south")
AIT = cast.AIT


@dataclass
class Seller:
    """A registered miner with one card and one offer. `away_until`: simulated seconds; before it, it is silent."""

    who: cast.Seller
    price: int
    sequence: int
    head: str
    away_until: float = 0.0
    lazy: bool = False

    @property
    def id(self) -> UUID:
        return self.who.miner_id

    def beat(self) -> None:
        """The next heartbeat, signed, as the daemon sends it once a minute."""
        values = statements.heartbeat_values(
            miner=str(self.id),
            sequence=self.sequence + 1,
            previous=bytes.fromhex(self.head[2:]),
            running=[],
            telemetry=[],
        )
        digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.HEARTBEAT, values)
        heartbeats.beat(
            key=self.who.principal.key_id,
            sequence=self.sequence + 1,
            previous=self.head,
            running=[],
            telemetry=[],
            signature=signing.sign(self.who.private_key, digest),
            samples=[],
        )
        self.sequence, self.head = self.sequence + 1, "0x" + statements.HEARTBEAT.hash(values).hex()


def open_shop(rng: Random, number: int) -> Seller:
    model = rng.choice(list(CARDS))
    memory, base = CARDS[model]
    price = base * 10**9 * rng.randint(80, 120)  # smallest units per device second
    who = cast.seller(
        f"miner{number}",
        region=rng.choice(REGIONS),
        concurrency=2,
        price=_decimal(price),
        device=DeviceClaim(uuid=f"GPU-{uuid4()}", kind="cuda", model=model, memory_mb=memory, cuda="12.8"),
    )
    row = Miner.objects.get(pk=who.miner_id)
    cast.fund(who.id, 1000 * AIT)
    call("bond_deposit", who.id, rng.choice((1, 50, 500)) * AIT)
    terms = Terms(
        spot_price=price // 2 if rng.random() < 0.5 else None,
        reserved_discount_bps=2000 if rng.random() < 0.5 else None,
    )
    promised = rng.choice((None, 9500, 9900, 9990))
    sla = (promised, rng.random() < 0.2) if promised else None
    offer = NewOffer(price=_decimal(price), miner_id=who.miner_id, terms=terms, sla=sla)
    offers.list_offer(seller=who.principal, offer=offer)
    return Seller(who, price, row.sequence, row.head, lazy=rng.random() < 0.2)


def _decimal(units: int) -> str:
    return f"{units // AIT}.{units % AIT:018d}"


def crowd(number: int) -> list[UUID]:
    """Clients with money; they have no keys, because the services ask for a person, not for a key."""
    people = User.objects.bulk_create(
        User(email=f"client{n}-{uuid4().hex[:6]}@example.com", role="client", password="!") for n in range(number)
    )
    for person in people:
        cast.fund(person.pk, 1000 * AIT)
    return [person.pk for person in people]


def ask(rng: Random) -> dict[str, Any]:
    """What a client wants this time, as the API's edge hands it on."""
    kind = rng.choices(("on_demand", "spot", "reserved"), (60, 30, 10))[0]
    wants: dict[str, Any] = {"model": rng.choice(list(CARDS))}
    if rng.random() < 0.3:
        wants["region"] = rng.choice(REGIONS)
    base = CARDS[wants["model"]][1] * 10**9
    return {
        "wants": wants,
        "type": kind,
        "bid": base * rng.randint(40, 110) if kind == "spot" else None,
        "seconds": min(14_400, max(120, int(rng.expovariate(1 / 1800)))),
        "failover": rng.random() < 0.5,
    }


def keep_alive(miners: list[UUID]) -> None:
    """Those who let nothing are heard of without a log: a week of everybody's heartbeats would be five million rows."""
    db.rows("UPDATE gpu_miner SET last_seen_at = clock_timestamp() WHERE id = ANY (%s::uuid[])", (miners,))
