"""Rule 7: without a chain there is CREDIT, an asset of its own: it pays for work, and never becomes AIT."""

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, person
from aitbc.core.testing.snapshot import nothing_changes
from apps.trading.models import Account, Payment
from apps.trading.selectors.balances import of_user
from apps.trading.services import ledger
from apps.trading.services.audit import audit

UNIT = 10**18


@pytest.fixture
def carol(db) -> Person:
    """With 100 CREDIT and nothing else."""
    who = person("carol", scopes=("money:read", "money:write"))
    call_command("grant_credit", "--user", who.user.email.upper(), "--amount", "100")
    return who


def balance(who: Person, asset: str, field: str = "available") -> str:
    [row] = [row for row in of_user(who.id) if row["asset"] == asset]
    return row[field]


def test_an_operator_grants_it_and_the_books_balance(carol):
    assert (balance(carol, "CREDIT"), balance(carol, "AIT")) == ("100", "0")
    assert Account.objects.get(asset="CREDIT", kind="external").posted == -100 * UNIT
    assert audit() == []


@pytest.mark.parametrize(("user", "amount"), [("nobody@example.com", "1"), (None, "0"), (None, "-1"), (None, "x")])
def test_a_wrong_grant_changes_nothing(carol, user, amount):
    with nothing_changes(), pytest.raises(CommandError), transaction.atomic():
        call_command("grant_credit", "--user", user or carol.user.email, f"--amount={amount}")


def test_it_pays_for_work_from_escrow_to_the_providers_balance(carol):
    mike, job = person("mike"), uuid7()
    opened = db.value(
        "SELECT payments_open(%s::uuid[], %s::uuid[], %s::uuid[], %s::numeric[], 'CREDIT')",
        ([uuid7()], [job], [carol.id], [10 * UNIT]),
    )
    assert opened == ["ok"]
    assert balance(carol, "CREDIT", "held") == "10"
    terms = [job], [mike.id], [4 * UNIT], [UNIT]
    settled = "SELECT payments_settle(%s::uuid[], %s::uuid[], %s::numeric[], %s::numeric[])"
    assert db.value(settled, terms) == 1
    assert Payment.objects.get(job=job).asset == "CREDIT"
    assert balance(mike, "CREDIT", "maturing") == "3"
    assert (balance(carol, "CREDIT"), balance(mike, "AIT")) == ("96", "0")
    assert db.value("SELECT sum(posted) FROM trading_account WHERE asset_id = 'CREDIT'") == 0
    assert audit() == []


def test_it_is_never_withdrawn(carol):
    body = {"amount": "1", "asset": "CREDIT", "address": "0x" + "12" * 20}
    with nothing_changes():
        answer = carol.post("/v1/withdrawals", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "withdrawal.not_withdrawable")
    with nothing_changes():
        answer = carol.post("/v1/withdrawals", body | {"asset": "AIT"})
    assert answer.json()["code"] == "chain.not_deployed"  # AIT needs a chain, whatever CREDIT she has


def test_it_is_never_converted(carol):
    mine, ait = (ledger.account_id(owner=carol.id, kind="available", asset=a) for a in ("CREDIT", "AIT"))
    with nothing_changes():
        [code] = ledger.apply([ledger.Item(uuid7(), "transfer", "test.swap", mine, ait, UNIT)])
    assert code == "asset_mismatch"


@pytest.mark.parametrize(
    ("kind", "chain"), [("claimable", "ait-devnet"), ("external", "ait-devnet"), ("unattributed", "")]
)
def test_the_database_gives_it_no_place_on_a_chain(carol, kind, chain):
    with nothing_changes(), pytest.raises(IntegrityError, match="account_credit_stays"), transaction.atomic():
        ledger.account_id(owner=carol.id, kind=kind, asset="CREDIT", chain=chain)


def test_reserves_and_liabilities_do_not_count_it(carol):
    assert db.rows("SELECT * FROM liabilities_prove('ait-devnet')") == []
    ledger.account_id(owner=carol.id, kind="available")
    [(_, root, owed, users)] = db.rows("SELECT * FROM liabilities_prove('ait-devnet')")
    assert (root[:2], owed, users) == ("0x", 0, 1)
