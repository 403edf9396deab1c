"""Deploying once, whatever interrupts it."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from aitbc.chain import deploy as deploy_module
from aitbc.chain import keystore
from aitbc.chain.client import Client
from aitbc.chain.deploy import created_address, deploy, resend_all
from aitbc.chain.intents import request_intent
from aitbc.chain.models import Block, Deployment, FinalEvent, NetworkStatus, SignedTransaction
from aitbc.chain.testing import AIT, wait
from aitbc.chain.testing.net import DEPTH, build_net
from aitbc.core.errors import Conflict
from aitbc.core.models import OutboxEvent

LIMITS = {"daily_cap": 10 * AIT, "approval_threshold": AIT}


def test_contracts_are_deployed_with_their_roles_and_a_repeat_changes_nothing(net, chain):
    before = list(Deployment.objects.values_list("name", "address", "tx_hash", "block_number"))
    deploy(chain, **LIMITS)

    assert sorted(row[0] for row in before) == ["AIT", "DepositForwarder", "Settlement"]
    assert list(Deployment.objects.values_list("name", "address", "tx_hash", "block_number")) == before
    for role in ("operator", "approver", "guardian", "owner"):
        assert net.settlement.read(role) == keystore.address(role).lower()
    assert net.token.read("owner") == keystore.load("owner").address.lower()
    assert net.settlement.read("TOKEN") == net.token.address.lower()
    assert net.settlement.read("dailyCap") == 10**6 * AIT
    assert chain.nonce(keystore.load("deployer").address, chain.head()) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_deployment_killed_around_its_broadcast_makes_no_twin(db_of_chain, chain, monkeypatch, when):
    send = Client.send_raw

    def killed(self, raw):
        if when == "after":
            send(self, raw)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "send_raw", killed)
    with pytest.raises(KeyboardInterrupt):
        deploy(chain, **LIMITS)
    monkeypatch.setattr(Client, "send_raw", send)
    if when == "after":
        wait(lambda: chain.receipt(SignedTransaction.objects.get().tx_hash))

    rows = deploy(chain, **LIMITS)

    deployer = keystore.load("deployer").address
    assert chain.nonce(deployer, chain.head()) == 2
    assert rows["AIT"].address == created_address(deployer, 0)
    assert all(row.block_number for row in rows.values())


def test_a_reset_chain_comes_back_at_the_same_addresses(db_of_chain, chain):
    snapshot = chain.call("evm_snapshot")
    before = {name: row.address for name, row in deploy(chain, **LIMITS).items()}
    chain.call("evm_revert", snapshot)
    assert chain.code(before["Settlement"], chain.head()) == "0x"

    assert resend_all(chain) == 2

    after = {name: row.address for name, row in deploy(chain, **LIMITS).items()}
    assert after == before
    assert resend_all(chain) == 0


def test_a_lost_contract_without_its_bytes_is_an_error_not_a_second_contract(db_of_chain, chain):
    snapshot = chain.call("evm_snapshot")
    deploy(chain, **LIMITS)
    chain.call("evm_revert", snapshot)
    SignedTransaction.objects.all().delete()
    with pytest.raises(Conflict, match=r"chain\.contract_missing"):
        deploy(chain, **LIMITS)
    assert SignedTransaction.objects.count() == 0


def test_an_existing_token_is_adopted_and_must_exist(net, chain):
    Deployment.objects.all().delete()
    with pytest.raises(Conflict, match=r"chain\.contract_missing"):
        deploy(chain, **LIMITS, token="0x" + "12" * 20)
    rows = deploy(chain, **LIMITS, token=net.token.address)
    assert rows["AIT"].address == net.token.address
    assert rows["Settlement"].address != net.settlement.address


def test_created_addresses_are_those_of_the_yellow_paper():
    # The worked example that is quoted wherever this rule is explained.
    sender = "0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0"
    assert created_address(sender, 0) == "0xcd234A471b72ba2F1Ccf0A70FCABA648a5eeCD8d"
    assert created_address(sender, 1) == "0x343c43A37D37dfF08AE8C4A11544c718AbB4fCF8"


def test_the_command_prints_one_object(net, chain, monkeypatch):
    monkeypatch.setattr("aitbc.chain.management.commands.deploy_contracts.client", lambda: chain)
    out = io.StringIO()
    call_command("deploy_contracts", "--json", stdout=out)
    printed = json.loads(out.getvalue())
    assert printed["network"] == "ait-devnet"
    assert printed["contracts"]["Settlement"]["address"] == net.settlement.address
    assert printed["contracts"]["AIT"]["block"] > 0


def test_resync_is_refused_outside_development(net, settings):
    Block.objects.create(number=1, hash="0x" + "00" * 32, parent="0x" + "00" * 32, timestamp=0)
    settings.DEVELOPMENT = False
    with pytest.raises(CommandError, match="development chain only"):
        call_command("chain_resync")
    assert Block.objects.count() == 1


@pytest.fixture
def halted(net, chain, subscribe, monkeypatch):
    """Two transfers were booked; a fork below finality keeps one and brings another."""
    monkeypatch.setattr("aitbc.chain.management.commands.chain_resync.client", lambda: chain)
    net.booked = []
    subscribe("chain.event:AIT.Transfer", lambda event: net.booked.append(int(event.args["value"])))
    sent: list[bytes] = []
    send = Client.send_raw
    monkeypatch.setattr(Client, "send_raw", lambda self, raw: sent.append(raw) or send(self, raw))
    net.settle()
    snapshot = chain.call("evm_snapshot")
    for amount in (1, 2):
        net.mint("0x" + "12" * 20, amount)
    worker = net.settle()
    assert net.booked == [1, 2]
    chain.call("evm_revert", snapshot)
    chain.send_raw(sent[-2])
    net.mint("0x" + "12" * 20, 3)
    net.mine(20)
    while worker.tick():
        pass
    assert net.status().halted
    return net


def test_a_halt_is_announced_once(halted):
    [event] = OutboxEvent.objects.filter(event="chain.halted")
    assert event.aggregate == "chain:ait-devnet"
    assert "was final" in event.payload["reason"]


def test_a_halt_is_lifted_only_by_who_knows_what_is_gone(halted, settings):
    settings.DEVELOPMENT = False
    gone = FinalEvent.objects.get(name="Transfer", args__value="2")
    reason = halted.status().halted
    for guess in ("0", "2"):
        with pytest.raises(CommandError, match=f"1 booked events are not on the chain\n{gone.pk}: AIT.Transfer"):
            call_command("chain_resync", "--gone", guess)
        assert halted.status().halted == reason
    assert halted.worker().tick() is False

    call_command("chain_resync", "--gone", "1")
    halted.settle(halted.worker())

    assert halted.status().halted == ""
    assert halted.booked == [1, 2, 3]  # what was booked once is not booked again
    assert halted.status().final_height == halted.client.head() - DEPTH


def test_events_that_were_final_but_not_booked_are_forgotten_with_the_fork(halted, settings):
    settings.DEVELOPMENT = False
    status = halted.status()
    stale = FinalEvent.objects.get(name="Transfer", args__value="2")
    NetworkStatus.objects.update(event_cursor=stale.pk - 1)  # as if the halt had come before its turn
    call_command("chain_resync", "--gone", "0")
    halted.booked.clear()
    halted.settle(halted.worker())
    assert halted.booked == [3]
    assert not FinalEvent.objects.filter(args__value="2").exists()
    assert halted.status().event_cursor > status.event_cursor


def test_a_reverted_deployment_is_told(db_of_chain, chain, monkeypatch):
    monkeypatch.setattr(deploy_module, "estimate", lambda *a, **k: 1_000_000)  # too little gas
    with pytest.raises(Conflict, match="reverted"):
        deploy(chain, **LIMITS)


def test_resync_rebuilds_a_reset_chain_and_repeats_no_effect(db_of_chain, chain, monkeypatch):
    monkeypatch.setattr("aitbc.chain.management.commands.chain_resync.client", lambda: chain)
    snapshot = chain.call("evm_snapshot")
    net = build_net(chain)
    with transaction.atomic():
        to = "0x" + "12" * 20
        request_intent("test.mint", "mint", "mint", [to, str(AIT)], contract="AIT", role="owner")
    anchor = net.anchor()
    net.settle()
    events = list(FinalEvent.objects.order_by("id").values_list("tx_hash", "ordinal", "name"))
    chain.call("evm_revert", snapshot)

    out = io.StringIO()
    call_command("chain_resync", "--json", stdout=out)
    net.settle(net.worker())

    assert json.loads(out.getvalue()) == {"sent": 4}
    assert net.balance("0x" + "12" * 20) == AIT
    assert net.settlement.read("anchored", anchor.args[0]).hex() == anchor.args[1][2:]
    assert list(FinalEvent.objects.order_by("id").values_list("tx_hash", "ordinal", "name")) == events
    assert net.status().halted == ""
