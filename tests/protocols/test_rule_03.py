"""Rule 3: two databases never commit together: with the chain database deleted, nothing is paid twice."""

import pytest

from aitbc.chain.models import FinalEvent, Intent
from aitbc.chain.testing import AIT
from aitbc.chain.worker import Superseded

BOB = "0x" + "00" * 18 + "b0b0"


@pytest.mark.parametrize("dropped", [False, True], ids=["the node keeps it", "the node lost it too"])
def test_the_chain_database_is_deleted_after_a_broadcast_and_nothing_is_paid_twice(net, settings, dropped):
    net.mint(net.settlement.address, 10 * AIT)
    net.settle()
    settings.CHAIN_EMBEDDED = False
    net.client.call("evm_setAutomine", False)
    intent = net.withdrawal(BOB)
    worker = net.worker()
    while Intent.objects.get(pk=intent.pk).state != "broadcast":
        worker.tick()

    if dropped:
        net.client.call("anvil_dropTransaction", Intent.objects.get(pk=intent.pk).tx_hash)
    net.lose_chain_database()
    worker = net.worker()
    for _ in range(20):
        net.mine()
        worker.tick()

    assert Intent.objects.get(pk=intent.pk).state == "final"
    assert FinalEvent.objects.filter(name="Withdrawn").count() == 1
    assert net.balance(BOB) == AIT


def test_a_fenced_off_worker_takes_no_nonce(net):
    old = net.worker()
    net.worker()
    intent = net.anchor()
    with pytest.raises(Superseded):
        old.tick()
    intent.refresh_from_db()
    assert (intent.state, intent.nonce) == ("requested", None)
