"""C1: whatever forks come, what was derived from the chain equals a fresh scan, and nothing is early.

Each seed is a chain with forks of up to 32 blocks and a finality of its own. A fork that contradicts what was
final halts the network; every other one is repaired in silence.
"""

import copy
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from structlog.testing import capture_logs

from aitbc.accounts.models import User
from aitbc.chain import indexer, keystore
from aitbc.chain import worker as worker_module
from aitbc.chain.client import Client
from aitbc.chain.models import Block, Deployment, FinalEvent, Log, NetworkStatus
from aitbc.chain.testing.net import db_of_chain  # noqa: F401 - fixture
from aitbc.chain.tests.rpc_server import Reply, ok, serving
from aitbc.chain.tests.simulated import Event, SimulatedChain, Transaction, address, transfer
from aitbc.chain.worker import Worker
from aitbc.core import db
from aitbc.core.errors import Unavailable
from apps.trading.models import Deposit
from apps.trading.services.deposits import deposit_address

NETWORK = "ait-devnet"
TOKEN, SETTLEMENT, FORWARDER, STRANGER = map(address, (0xA17, 0x5E77, 0xF0, 0x57A))
SHORT, FULL = 8, 500


class World:
    """A simulated chain, the worker that follows it, and users with deposit addresses."""

    def __init__(self, url: str, chain: SimulatedChain) -> None:
        self.rng, self.chain = chain.rng, chain
        self.client = Client(url, chain.chain_id)
        for name, at in (("AIT", TOKEN), ("Settlement", SETTLEMENT), ("DepositForwarder", FORWARDER)):
            Deployment.objects.create(network=NETWORK, name=name, address=at, tx_hash="0x" + "00" * 32, block_number=0)
        people = [User.objects.create_user(f"{name}@example.com").pk for name in ("alice", "bob", "carol")]
        self.users = {deposit_address(user=user): user for user in people}
        self.worker = Worker(self.client)
        self.highest = 0
        self.countdown = 0  # answers until the chain forks under the worker's hands

    @property
    def status(self) -> NetworkStatus:
        return NetworkStatus.objects.get()

    def grow(self, blocks: int, again: list[Transaction] | None = None) -> None:
        """Random blocks; some of the transactions `again` come back in them, whole and at another place."""
        waiting = [t for t in again or [] if self.rng.random() < 0.7]
        for _ in range(blocks):
            made = [self._random() for _ in range(self.rng.choice((0, 0, 1, 2, 5)))]
            while waiting and self.rng.random() < 0.5:
                made.insert(self.rng.randrange(len(made) + 1), waiting.pop())
            self.chain.mine(made)

    def fork(self, depth: int, growth: int) -> None:
        depth = min(depth, self.chain.head)
        self.grow(max(depth + growth, 0), self.chain.drop(depth))

    def _random(self) -> Transaction:
        return self.chain.transaction(*(self._event() for _ in range(self.rng.choice((0, 1, 1, 2, 4)))))

    def _event(self) -> Event:
        to = self.rng.choice([*self.users, STRANGER])
        token = self.rng.choice((TOKEN, TOKEN, STRANGER))
        return transfer(token, STRANGER, to, self.rng.randrange(1, 10**20))

    def answer(self, method: str, params: list[Any]) -> Any:
        if self.countdown:
            self.countdown -= 1
            if self.countdown == 0:
                self.fork(self.rng.randrange(1, self.reach), self.rng.randrange(0, 3))
        return self.chain.answer(method, params)

    def tick(self, *, calm: bool = True) -> None:
        """A round of the worker; halted exactly if the chain contradicts what was final."""
        before, booked = self.status, deposits()
        self.reach = min(33, self.chain.head - before.final_height + 1)  # what is final now stays
        self.countdown = 0 if calm or self.reach < 2 else self.rng.randrange(2, 40)
        behind = self.chain.head < before.final_height
        changed = not behind and (
            before.final_hash is not None and self.chain.hash_at(before.final_height) != before.final_hash
        )
        self.highest = max(self.highest, self.chain.head)
        with pytest.raises(Unavailable, match="behind") if behind else nullcontext() if calm else moving():
            self.worker.tick()
        self.countdown = 0
        self.highest = max(self.highest, self.chain.head)
        assert bool(self.status.halted) == changed, self.status.halted
        if changed or behind:
            assert deposits() == booked
        limit = self.highest - self.finality
        assert all(number <= limit for number in Deposit.objects.values_list("block_number", flat=True))

    @property
    def finality(self) -> int:
        from django.conf import settings

        return int(settings.CHAIN_FINALITY_DEPTH)

    def assert_equals_fresh_scan(self) -> None:
        final = self.status.final_height
        assert final == self.chain.head - self.finality
        derived = held()
        assert derived[1] == self.chain.truth([TOKEN, SETTLEMENT, FORWARDER])
        Block.objects.all().delete()
        indexer.follow(self.client, network=NETWORK, final_height=-1)
        assert derived == held()
        truth = self.chain.truth([TOKEN], end=final)
        events = FinalEvent.objects.order_by("id").values_list(
            "block_number", "tx_hash", "ordinal", "log_index", "args__value"
        )
        assert list(events) == [(*row[:4], str(int(row[6], 16))) for row in truth]
        owed: Counter[str] = Counter()
        for *_, topics, data in truth:
            owed[topics[2][-40:]] += int(data, 16)
        for at, user in self.users.items():
            assert balance(user) == owed[at[2:].lower()]


@contextmanager
def moving() -> Iterator[None]:
    """A chain that changes while it is read may leave a round without an end, never with a wrong one."""
    try:
        yield
    except Unavailable as error:
        if error.code != "chain.unknown_block":
            raise


def balance(user: object) -> int:
    return int(db.value("SELECT coalesce(sum(posted), 0) FROM trading_account WHERE owner_id = %s", (str(user),)))


def deposits() -> set[tuple[object, ...]]:
    return set(Deposit.objects.values_list("tx_hash", "ordinal", "user_id", "amount", "block_number"))


def held() -> tuple[list[object], list[object]]:
    logs = Log.objects.order_by("block_id", "log_index")
    columns = ("block_id", "tx_hash", "ordinal", "log_index", "address", "topics", "data")
    return list(Block.objects.order_by("number").values()), list(logs.values_list(*columns))


@pytest.fixture
def world(request, db_of_chain, settings, keys_dir, monkeypatch) -> Iterator[World]:  # noqa: F811
    monkeypatch.setattr(worker_module, "IMPORT_LIMIT", 2)  # nothing can be sent here, so little is tried
    seed = getattr(request, "param", 0)
    settings.CHAIN_NETWORK, settings.CHAIN_EMBEDDED = NETWORK, False
    keystore.load_or_create("operator")
    rng = random.Random(seed)
    settings.CHAIN_FINALITY_DEPTH = rng.choice((5, 12, 33, 33, 40))
    chain = SimulatedChain(rng)
    made: list[World] = []
    with serving(lambda payload: Reply(ok(payload, made[0].answer))) as url:
        made.append(World(url, chain))
        yield made[0]


SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(SHORT, FULL))]


@pytest.mark.parametrize("world", SEEDS, indirect=True, ids=lambda seed: f"seed{seed}")
def test_after_any_forks_the_derived_state_equals_a_fresh_scan(world):
    for _ in range(world.rng.randrange(8, 16)):
        if world.rng.random() < 0.5:
            world.grow(world.rng.randrange(1, 20))
        else:
            world.fork(world.rng.randrange(1, 33), world.rng.randrange(-2, 4))
        if world.rng.random() < 0.7:
            world.tick(calm=world.rng.random() < 0.6)
        if world.status.halted:
            return assert_stays_halted(world)
    world.grow(world.finality + 40)
    world.tick()
    if not world.status.halted:
        world.assert_equals_fresh_scan()


def assert_stays_halted(world: World) -> None:
    booked, events = deposits(), FinalEvent.objects.count()
    world.grow(60)
    with capture_logs():
        assert world.worker.tick() is False
        assert Worker(world.client).tick() is False
    assert (deposits(), FinalEvent.objects.count()) == (booked, events)


def test_a_fork_of_two_hundred_blocks_is_repaired_where_finality_allows_it(world, settings):
    settings.CHAIN_FINALITY_DEPTH = 256
    world.grow(230)
    world.tick()
    assert Block.objects.count() == 231
    world.fork(200, 1)
    world.tick()
    assert Deposit.objects.count() == 0
    world.grow(256)
    world.tick()
    assert world.status.final_height >= 231
    world.assert_equals_fresh_scan()


def test_a_fork_of_one_block_more_than_finality_halts_with_an_alarm(world, settings):
    settings.CHAIN_FINALITY_DEPTH = 200
    world.grow(230)
    world.tick()
    assert world.status.final_height == 30
    booked, blocks = deposits(), held()
    world.fork(201, 1)
    with capture_logs() as logs:
        world.tick()
    assert "30 was final" in world.status.halted
    assert [entry["event"] for entry in logs if entry["log_level"] == "critical"] == ["network halted"]
    assert (deposits(), held()) == (booked, blocks)


def test_a_fork_exactly_as_deep_as_finality_is_repaired(world, settings):
    settings.CHAIN_FINALITY_DEPTH = 200
    world.grow(230)
    world.tick()
    world.fork(200, 1)
    world.tick()
    assert world.status.halted == ""
    world.assert_equals_fresh_scan()


def test_two_nodes_that_disagree_are_waited_for(world, settings):
    settings.CHAIN_FINALITY_DEPTH = 5
    world.grow(12)
    world.tick()
    agreed, booked = world.status.final_height, deposits()
    other = copy.deepcopy(world.chain)
    with serving(lambda payload: Reply(ok(payload, other.answer))) as second:
        worker = Worker(Client(f"{world.client.url},{second}", world.chain.chain_id))
        world.grow(30)  # the other node is behind
        worker.tick()
        assert (world.status.final_height, deposits()) == (agreed, booked)
        other.rng = random.Random(99)
        for _ in range(40):  # and then on a fork of its own
            other.mine([])
        worker.tick()
        assert (world.status.final_height, deposits()) == (agreed, booked)
        assert world.status.halted == ""
        other.blocks = world.chain.blocks
        other.known = world.chain.known
        worker.tick()
    assert world.status.halted == ""
    world.assert_equals_fresh_scan()
