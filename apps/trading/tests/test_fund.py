"""Test money comes from real deposits only."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from aitbc.accounts.models import User
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT
from aitbc.core import db
from apps.trading.models import Deposit, Transfer


@pytest.fixture
def alice(net):
    return User.objects.create_user("alice@example.com").pk


def fund(*args: str) -> dict:
    out = io.StringIO()
    call_command("fund", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def available(user) -> int:
    found = db.value(
        "SELECT coalesce(sum(posted), 0) FROM trading_account WHERE owner_id = %s AND kind = 'available'", (user,)
    )
    return int(found)


def test_minted_tokens_are_credited_by_the_indexer(net, alice):
    printed = fund("--user", "Alice@example.com", "--amount", "2.5")
    assert printed["state"] == "requested"
    assert available(alice) == 0
    net.settle()
    assert available(alice) == 25 * AIT // 10
    assert net.balance(net.settlement.address) == 25 * AIT // 10


def test_direct_money_comes_out_of_a_treasury_that_was_funded(net, alice):
    with pytest.raises(CommandError, match="insufficient_funds"):
        fund("--user", "alice@example.com", "--amount", "1", "--direct")
    assert Transfer.objects.count() == 0

    fund("--treasury", "--amount", "5")
    net.settle()
    assert fund("--user", "alice@example.com", "--amount", "4", "--direct")["state"] == "credited"
    assert available(alice) == 4 * AIT
    with pytest.raises(CommandError, match="insufficient_funds"):
        fund("--user", "alice@example.com", "--amount", "2", "--direct")
    assert available(alice) == 4 * AIT
    assert Deposit.objects.get().booked == "treasury"


def test_waiting_ends_with_the_credit_or_says_why_not(net, alice, monkeypatch):
    with pytest.raises(CommandError, match="run_chain"):
        fund("--user", "alice@example.com", "--amount", "1", "--wait", "0.2")
    monkeypatch.setattr("apps.trading.management.commands.fund.time.sleep", lambda _: net.worker().tick())
    assert fund("--user", "alice@example.com", "--amount", "1", "--wait", "30")["state"] == "credited"


def test_an_unknown_user_a_bad_amount_and_production_are_refused(net, alice, settings):
    with pytest.raises(CommandError, match="no user"):
        fund("--user", "bob@example.com", "--amount", "1")
    with pytest.raises(CommandError, match=r"money\.amount"):
        fund("--user", "alice@example.com", "--amount", "-1")
    with pytest.raises(CommandError, match="from the treasury to a user"):
        fund("--treasury", "--amount", "1", "--direct")
    settings.DEVELOPMENT = False
    with pytest.raises(CommandError, match="development chain only"):
        fund("--user", "alice@example.com", "--amount", "1")
    assert Intent.objects.count() == 0
