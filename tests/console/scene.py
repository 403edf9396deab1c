"""A platform with at least two rows behind every page, made by the services where there are any."""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
from django.contrib.auth.models import Group
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from aitbc.accounts import audit, parameters
from aitbc.chain.models import Block, Deployment, FinalEvent, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.core import db, ticks
from aitbc.core.ids import uuid7
from aitbc.core.models import DeadTask
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT, Person, Seller, job_body
from apps.gpu.models import Artifact, ArtifactGrant, Heartbeat, Miner, Waiter
from apps.gpu.services import challenges
from apps.marketplace import tasks
from apps.marketplace.models import Region, Rule
from apps.marketplace.services.offers import NewOffer, list_offer
from apps.marketplace.services.orders import accept, cancel, quote
from apps.trading.models import Deposit, DepositAddress, PayoutBatch, PayoutLeaf, PayoutTarget, ReserveCheck, Withdrawal
from apps.trading.services import settlement, streams
from apps.trading.services.escrow import call


@dataclass
class Scene:
    """Alice buys, Mike and Nora sell: 2 jobs completed, 2 waiting, 2 tried and failed once."""

    alice: Person
    mike: Seller
    nora: Seller
    completed: list[UUID]
    queued: list[UUID]
    dead: DeadTask


def build() -> Scene:
    alice, mike, nora = _people()
    completed = [_run(alice, seller) for seller in (mike, nora)]
    for seller in (mike, nora):
        _settle(seller)
    tried = [_fail(alice, seller) for seller in (mike, nora)]
    queued = [_submit(alice, kind="vision.ocr", input=PICTURE) for _ in range(2)]
    for seller in (mike, nora):
        challenges.issue_missing(Miner.objects.get(pk=seller.miner_id))
        _price(seller, list_offer(seller=seller.principal, offer=NewOffer(price="0.002")).pk)
    for seller in (mike, nora):
        asked = quote(client=alice.id, ask={"seconds": 60, "type": "on_demand", "wants": {}, "failover": False})
        cancel(user=None, order=orjson.loads(accept(client=alice.id, quote=orjson.loads(asked)["id"]))["id"])
        cast.fund(seller.id, AIT)
        for action in ("bond_deposit", "bond_withdraw"):
            call(action, seller.id, 5)
        db.rows("UPDATE marketplace_bond_withdrawal SET due_at = clock_timestamp()")
        call("bond_next")
    Region.objects.create(code="us", name="United States", status="active")
    tasks.roll_prices()
    tasks.watch()
    for who in (alice, mike):  # the database notes the rest only when it commits
        audit.note("login.succeeded", f"user:{who.id}", {})
    for sealed in (False, True):
        wish = {"wants": {}, "seconds": 60, "ceiling": "60", "deposit": "5", "sealed": sealed, "award": "manual"}
        wish |= {"closes": time.time() + 3600, "reveal_seconds": 60, "failover": False}
        call("auction_open", alice.id, orjson.dumps(wish).decode())
    _reputation(alice, completed)
    _platform(alice)
    _storage(alice, completed)
    _money(alice, mike)
    _chain()
    _schedules()
    return Scene(alice, mike, nora, completed, [*queued, *tried], DeadTask.objects.earliest("failed_at"))


PICTURE = {"image": "aGVsbG8gd29ybGQh" * 8}


def _price(seller: Seller, offer: UUID) -> None:
    """A strategy for the offer, and a rule."""
    body = {"strategy": "demand", "min": {"amount": "0.001"}, "max": {"amount": "0.1"}}
    assert seller.put(f"/v1/marketplace/offers/{offer}/strategy", body).status_code == 200
    condition = {"field": "price", "operator": "gt", "value": 1, "message": "too dear"}
    Rule.objects.create(name=f"Rule {offer}", category="pricing", effect="warning", **condition)


def _people() -> tuple[Person, Seller, Seller]:
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    for value in (300, 250):
        parameters.change(name="fee_bps", value=value, by=alice.user)
    for name in ("Support", "Auditors"):
        Group.objects.create(name=name)
    return alice, cast.seller("mike"), cast.seller("nora")


def _submit(alice: Person, **changes: Any) -> UUID:
    response = alice.post("/v1/jobs", job_body(**changes))
    assert response.status_code == 201, response.content
    return UUID(orjson.loads(response.content)["id"])


def _run(alice: Person, seller: Seller) -> UUID:
    job = _submit(alice)
    (lease,) = seller.poll()
    response = seller.deliver(lease, MATMUL_OUTPUT)
    assert response.status_code == 200, response.content
    return job


def _fail(alice: Person, seller: Seller) -> UUID:
    job = _submit(alice)
    (lease,) = seller.poll()
    body = {
        "lease_token": lease["lease_token"],
        "code": "runtime.out_of_memory",
        "message": "no memory left",
        "retryable": True,
    }
    response = seller.post(f"/v1/miners/{lease['id']}/fail", body)
    assert response.status_code == 200, response.content
    return job


def _reputation(alice: Person, deals: list[UUID]) -> None:
    tasks.collect()
    ratings = dict.fromkeys(("overall", "performance", "communication", "reliability", "value"), 4)
    for deal in deals:
        response = alice.post("/v1/reputation/reviews", {"deal": deal, "ratings": ratings, "text": "as promised"})
        assert response.status_code == 201, response.content


def _settle(seller: Seller) -> None:
    """Seal one receipt and let its anchor be final, as the chain worker reports it."""
    batch = settlement.seal_batch(limit=1)
    assert batch is not None
    intent = Intent.objects.get(business_key=f"anchor:{batch.pk}")
    intent.state, intent.tx_hash = Intent.State.FINAL, "0x" + uuid4().hex * 2
    intent.block_number, intent.gas_used = 42, 61_234
    intent.save()
    settlement.finish_batch(intent)


def _platform(alice: Person) -> None:
    ticks.tick("relay")
    ticks.tick("web")
    for number in range(2):
        url = f"https://example.com/{number}"
        hook = db.value("SELECT webhooks_create(%s, %s, '{}', 'nonce')->>'id'", (alice.id, url))
        db.rows("SELECT webhooks_test(%s, %s)", (alice.id, UUID(hook)))
        DeadTask.objects.create(
            task_id=f"task-{number}",
            name="trading.mature",
            queue="settlement",
            args=[],
            kwargs={"limit": 10},
            error="Unavailable('chain.unreachable')",
            traceback="Traceback (most recent call last): ...",
        )
        Waiter.objects.create(process=f"web-{number}", until=timezone.now() + timedelta(seconds=30))
        for miner in Miner.objects.all():
            Heartbeat.objects.create(
                miner=miner,
                sequence=number + 1,
                previous="0x" + "00" * 32,
                head="0x" + f"{number:02x}" * 32,
                received_at=timezone.now(),
                signature="0x" + "ab" * 65,
            )


def _storage(alice: Person, jobs: list[UUID]) -> None:
    for number, job in enumerate(jobs):
        artifact = Artifact.objects.create(sha256="0x" + f"{number + 1:02x}" * 32, size=3_500_000 * (number + 1))
        ArtifactGrant.objects.create(artifact=artifact, user=alice.user, job=job)
        ArtifactGrant.objects.create(artifact=artifact, user=alice.user)


def _money(alice: Person, mike: Seller) -> None:
    for rate in (1, 2):
        streams.open_stream(owner=alice.id, payees={mike.id: rate}, deposit=1_000_000)
    for number, user in enumerate((alice.user, mike.user)):
        address = "0x" + f"{number + 1:02x}" * 20
        DepositAddress.objects.create(network="ait-devnet", user=user, address=address)
        Deposit.objects.create(
            id=uuid7(),
            network="ait-devnet",
            user=user,
            booked="user",
            asset="AIT",
            amount=AIT // 4,
            sender=address,
            address=address,
            tx_hash="0x" + "cd" * 32,
            ordinal=number,
            block_number=7,
        )
        PayoutTarget.objects.create(user=user, network="ait-devnet", address=address, set_at=timezone.now())
        batch = PayoutBatch.objects.create(id=uuid7(), network="ait-devnet", root="0x" + "ef" * 32, total=AIT, count=1)
        PayoutLeaf.objects.create(batch=batch, position=0, user=user, address=address, amount=AIT, hold=uuid4())
        now = timezone.now()
        Withdrawal.objects.create(
            id=uuid7(),
            user=user,
            network="ait-devnet",
            address=address,
            amount=AIT // 2,
            created_at=now,
            not_before=now,
        )
        ReserveCheck.objects.create(
            network="ait-devnet",
            asset="AIT",
            block_number=40 + number,
            block_hash="0x" + "12" * 32,
            contract=3 * AIT,
            unswept=0,
            liabilities=3 * AIT - number,
            pending=0,
            difference=number,
        )


def _chain() -> None:
    for number, network in enumerate(("ait-devnet", "ait-testnet")):
        NetworkStatus.objects.create(network=network, chain_id=31337, height=60 + number, final_height=55)
        for name in ("AIT", "Settlement"):
            Deployment.objects.create(
                network=network, name=name, address="0x" + "34" * 20, tx_hash="0x" + "56" * 32, block_number=1
            )
        FinalEvent.objects.create(
            network=network,
            contract="AIT",
            name="Transfer",
            args={"value": "1"},
            block_number=5,
            block_hash="0x" + "78" * 32,
            block_time=timezone.now(),
            tx_hash="0x" + "9a" * 32,
            ordinal=number,
            log_index=0,
        )
        SignedTransaction.objects.create(
            intent_id=uuid4(),
            sender="0x" + "34" * 20,
            nonce=number,
            raw=b"secret bytes",
            epoch=1,
            gas=100_000,
            max_fee=2_000_000_000,
            tx_hash="0x" + f"{number:02x}" * 32,
        )
        block = Block.objects.create(
            number=number, hash="0x" + "bc" * 32, parent="0x" + "de" * 32, timestamp=1_700_000_000
        )
        Log.objects.create(
            block=block,
            tx_hash="0x" + "9a" * 32,
            ordinal=0,
            log_index=0,
            address="0x" + "34" * 20,
            topics=["0x01"],
            data="0x",
        )


def _schedules() -> None:
    for number in (1, 2):
        every = IntervalSchedule.objects.create(every=number, period="minutes")
        PeriodicTask.objects.create(name=f"sweep {number}", task="gpu.sweep", interval=every)
        CrontabSchedule.objects.create(minute=str(number))
        SolarSchedule.objects.create(event="sunset", latitude=number, longitude=9)
        ClockedSchedule.objects.create(clocked_time=timezone.now() + timedelta(days=number))
