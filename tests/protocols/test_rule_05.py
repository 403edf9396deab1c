"""Rule 5: contract + unswept deposit addresses = what the ledger owes, at one final block."""

import random

import pytest

from aitbc.accounts.models import User
from aitbc.chain import reads
from aitbc.chain.addresses import bytes32
from aitbc.chain.testing import AIT, Actor
from apps.trading.services.deposits import deposit_address
from apps.trading.services.reserves import check_reserves


@pytest.mark.parametrize("seed", range(2))
def test_reserves_hold_after_random_inflows(committed_net, monkeypatch, seed):
    net, rng = committed_net, random.Random(seed)
    monkeypatch.setattr(reads, "client", lambda: net.client)
    users = [User.objects.create_user(f"{name}@example.com").pk for name in ("alice", "bob", "carol")]
    stranger, worker = Actor(net.client), net.worker()
    total = 0
    for _ in range(12):
        user, amount = rng.choice(users), rng.randrange(1, AIT)
        way = rng.choice(["address", "early", "contract", "sweep"])
        if way == "address":
            net.mint(deposit_address(user=user), amount)
        elif way == "early":
            net.mint(net.settlement.read("depositAddress", bytes32(user)), amount)
        elif way == "contract":
            net.mint(net.settlement.address, amount)
        else:
            net.settlement.send(stranger, "sweep", bytes32(user))
            amount = 0
        total += amount
        worker.tick()
    for user in users:
        deposit_address(user=user)
    net.settle(worker)

    check = check_reserves()
    assert (check.difference, check.pending) == (0, 0)
    assert check.contract + check.unswept == check.liabilities == total
