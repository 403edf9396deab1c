"""Rule 4: a deposit is credited once, at FINAL; a reorganisation below FINAL halts the money."""

from aitbc.accounts.models import User
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT
from apps.trading.models import Deposit
from apps.trading.services.deposits import deposit_address


def test_a_deposit_mined_again_in_another_block_is_one_deposit(net, chain):
    alice = User.objects.create_user("alice@example.com").pk
    address = deposit_address(user=alice)
    snapshot = chain.call("evm_snapshot")
    raw = None

    def remember(data: bytes) -> str:
        nonlocal raw
        raw = data
        return type(chain).send_raw(chain, data)

    net.minter.client = type("Recording", (), {"__getattr__": lambda _, name: getattr(chain, name)})()
    net.minter.client.send_raw = remember
    net.mint(address, AIT)
    worker = net.worker()
    worker.tick()
    chain.call("evm_revert", snapshot)
    net.mine(3)
    chain.send_raw(raw)
    net.settle(worker)

    assert [(d.user_id, d.amount) for d in Deposit.objects.all()] == [(alice, AIT)]


def test_below_final_credits_and_withdrawals_stop(net, chain):
    alice = User.objects.create_user("alice@example.com").pk
    address = deposit_address(user=alice)
    snapshot = chain.call("evm_snapshot")
    net.mint(address, AIT)
    worker = net.settle()
    chain.call("evm_revert", snapshot)
    for _ in range(12):
        net.mint(address, 2 * AIT)
    while worker.tick():
        pass
    assert net.status().halted

    intent = net.anchor()
    net.mine(10)
    for _ in range(5):
        worker.tick()
    intent.refresh_from_db()
    assert intent.state == Intent.State.REQUESTED
    assert [d.amount for d in Deposit.objects.all()] == [AIT]
