"""Rule 8: keys by role, never shared; a stolen one takes no more than its limits."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from aitbc.chain import keystore
from aitbc.chain.testing import AIT, Actor
from aitbc.core.errors import Conflict, Unavailable

THIEF = "0x" + "00" * 18 + "dead"


def test_every_role_has_a_key_of_its_own(net):
    addresses = {role: keystore.address(role) for role in keystore.ROLES}
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


def test_the_approvers_key_opens_for_no_process_only_for_its_passphrase(net, settings):
    """The chain worker may read every file of the key folder, and still cannot approve."""
    secret = (settings.KEYS_DIR / "password").read_text().strip()
    for passphrase in (None, "", secret):
        with pytest.raises(Unavailable, match=r"keystore\.password"):
            keystore.load("approver", passphrase=passphrase)
    with pytest.raises(Unavailable, match=r"keystore\.password"):
        net.worker()._signer("approver")
    own = (settings.KEYS_DIR / "approver" / "passphrase").read_text()
    assert keystore.load("approver", passphrase=own).address == keystore.address("approver")


def test_in_production_the_passphrase_is_a_persons_and_stored_nowhere(settings, tmp_path, monkeypatch, capsys):
    settings.KEYS_DIR = tmp_path / "production"
    for given in ("short\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        with pytest.raises(CommandError, match="at least 15"):
            call_command("create_approver_key", "--password-stdin")
    assert not settings.KEYS_DIR.exists()
    phrase = "a phrase that a person knows"
    monkeypatch.setattr("sys.stdin", io.StringIO(phrase + "\n"))
    call_command("create_approver_key", "--password-stdin")

    assert capsys.readouterr().out.strip() == keystore.address("approver")
    [file] = [path for path in settings.KEYS_DIR.rglob("*") if path.is_file()]
    assert phrase not in file.read_text()
    assert json.loads(file.read_text())["crypto"]["kdfparams"]["n"] == 2**17
    assert keystore.load("approver", passphrase=phrase).address == keystore.address("approver")
    monkeypatch.setattr("sys.stdin", io.StringIO(phrase + "\n"))
    with pytest.raises(CommandError, match=r"keystore\.exists"):
        call_command("create_approver_key", "--password-stdin")


@pytest.mark.parametrize("role", ["receipt", "approver", "guardian", "deployer"])
def test_no_other_key_moves_anything(net, role):
    net.mint(net.settlement.address, 10 * AIT)
    stolen = Actor(net.client)
    stolen.signer = keystore.load_or_create(role)  # the approver's with its passphrase
    stolen.address = stolen.signer.address
    net.client.call("anvil_setBalance", stolen.address, hex(10**20))
    with pytest.raises(Conflict, match="NotOperator"):
        net.settlement.send(stolen, "withdraw", "0x" + "01" * 32, THIEF, "1", "0x")
    with pytest.raises(Conflict, match="OwnableUnauthorizedAccount"):
        net.settlement.send(stolen, "setRoles", stolen.address, THIEF, THIEF)
    assert net.balance(THIEF) == 0
