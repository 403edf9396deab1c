"""Rule 8: keys by role, never shared; a stolen one takes no more than its limits."""

import pytest

from aitbc.chain import keystore
from aitbc.chain.testing import AIT, Actor
from aitbc.core.errors import Conflict

THIEF = "0x" + "00" * 18 + "dead"


def test_every_role_has_a_key_of_its_own(net):
    addresses = {role: keystore.load(role).address for role in keystore.ROLES}
    assert len(set(addresses.values())) == len(keystore.ROLES)
    assert net.settlement.read("operator") == addresses["operator"].lower()
    assert net.settlement.read("approver") == addresses["approver"].lower()


def test_the_operators_key_alone_takes_no_more_than_the_threshold(net):
    net.mint(net.settlement.address, 1000 * AIT)
    stolen = Actor(net.client)
    stolen.signer = keystore.load("operator")
    stolen.address = stolen.signer.address
    threshold = net.settlement.read("approvalThreshold")
    with pytest.raises(Conflict, match="NotApproved"):
        net.settlement.send(stolen, "withdraw", "0x" + "01" * 32, THIEF, str(threshold + 1), "0x")
    assert net.balance(THIEF) == 0


@pytest.mark.parametrize("role", ["receipt", "approver", "guardian", "deployer"])
def test_no_other_key_moves_anything(net, role):
    net.mint(net.settlement.address, 10 * AIT)
    stolen = Actor(net.client)
    stolen.signer = keystore.load(role)
    stolen.address = stolen.signer.address
    net.client.call("anvil_setBalance", stolen.address, hex(10**20))
    with pytest.raises(Conflict, match="NotOperator"):
        net.settlement.send(stolen, "withdraw", "0x" + "01" * 32, THIEF, "1", "0x")
    with pytest.raises(Conflict, match="OwnableUnauthorizedAccount"):
        net.settlement.send(stolen, "setRoles", stolen.address, THIEF, THIEF)
    assert net.balance(THIEF) == 0
