"""The audit passes on sound books and names the rule that a planted one-unit defect breaks."""

import datetime as dt
import json
import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction

from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.management.commands.migrate import seed
from aitbc.core.testing.plugin import empty_tables
from apps.trading.services import escrow, journal, ledger, streams
from apps.trading.services.audit import RULES, Finding, audit, size
from apps.trading.tests.books import account, books, hold, opened, post, sealed, transfer, user, void


@pytest.fixture(scope="module", autouse=True)
def _filled(django_db_setup, django_db_blocker):
    """Books with every kind of transfer and payment; each test puts back what it broke."""
    with django_db_blocker.unblock():
        _fill()
        before = books()
        yield
        assert books() == before
        empty_tables()
        seed()
        connections.close_all()


def _fill():
    old = hold(account(100), 1, kind="test.old")
    ledger.apply_all([old])
    assert (sealed(), journal.checkpoint()) == (1, 1)
    ledger.apply_all([void(old.id, kind="test.late")])
    alice, bob = account(100), account()
    first, second = opened(alice, 5), opened(alice, 5)
    ledger.apply_all([hold(alice, 2, kind="test.brief", timeout=1)])
    with connections["owner"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # the second passes at once
        cursor.execute("UPDATE trading_transfer SET expires_at = created_at WHERE kind = 'test.brief'")
        cursor.execute("UPDATE trading_holdtimer SET due = now() - interval '1 s'")
        cursor.execute("SET session_replication_role = origin")
    assert db.value("SELECT ledger_expire(10)") == 1
    ledger.apply_all([transfer(alice, bob, 10), post(first, bob, 3), void(second)])
    opened(alice, 7)
    client, provider = user("client").pk, user("provider").pk
    account(1500, owner=client)
    jobs = [uuid7() for _ in range(4)]
    opening = "SELECT payments_open(%s, %s, %s, %s, 'AIT')"
    codes = db.value(opening, ([uuid7() for _ in jobs], jobs, [client] * 4, [100] * 4))
    assert codes == ["ok"] * 4
    assert sealed() == 2
    settling = "SELECT payments_settle(%s::uuid[], %s::uuid[], %s::numeric[], %s::numeric[])"
    assert db.value(settling, (jobs[:3], [provider] * 3, [100, 40, 0], [3, 1, 0])) == 3
    assert sealed() == 3
    _fill_escrows(client, provider)
    assert sealed() == 4


def _fill_escrows(client, provider):
    """A dispute that is open and one that is resolved, a stream that runs and one that was closed."""
    jobs = [uuid7() for _ in range(2)]
    opening = "SELECT payments_open(%s, %s, %s, %s, 'AIT')"
    db.value(opening, ([uuid7() for _ in jobs], jobs, [client] * 2, [90, 100]))
    settling = "SELECT payments_settle(%s::uuid[], %s::uuid[], %s::numeric[], %s::numeric[])"
    db.value(settling, (jobs, [provider] * 2, [60, 100], [20, 20]))
    for job in jobs:
        payment = db.value("SELECT id FROM trading_payment WHERE job = %s", (job,))
        escrow.act("dispute", user=client, payment=payment, job=job, reason="wrong")
    escrow.resolve(operator=user("operator").pk, payment=payment, refund=50, note="half")
    made = [uuid7() for _ in range(2)]
    for stream in made:
        streams.open_stream(owner=client, payees={provider: 1}, deposit=200, stream=stream)
        streams.deposit(user=client, stream=stream, amount=50)
    with connections["owner"].cursor() as cursor:
        back = [f"{name} = {name} - interval '100 seconds'" for name in ("settled_at", "ends_at", "due_at")]
        cursor.execute(f"UPDATE trading_stream SET {', '.join(back)}")
    streams.act("settle", user=None, stream=made[0])
    streams.act("close", user=None, stream=made[1])


def broken(since=None):
    return {finding.rule for finding in audit(since=since)}


def first_checkpoint():
    """A time from which the audit starts at the first checkpoint."""
    return db.value("SELECT sealed_at + interval '1 us' FROM trading_journalblock WHERE number = 1")


A_TRANSFER = "(SELECT id FROM trading_transfer WHERE kind = 'test.transfer' ORDER BY id DESC LIMIT 1)"
A_LEG = f"id = (SELECT max(id) FROM trading_entry WHERE transfer_id = {A_TRANSFER})"
ALICE = "(SELECT debit_id FROM trading_transfer WHERE kind = 'test.hold' LIMIT 1)"
POSTED_HOLD = "(SELECT hold FROM trading_transfer WHERE kind = 'test.post')"
VOIDED_HOLD = "(SELECT hold FROM trading_transfer WHERE kind = 'test.void')"
OPEN_STREAM = "(SELECT id FROM trading_stream WHERE state = 'open')"
OPEN_HOLD = "(SELECT id FROM trading_transfer WHERE kind = 'test.hold' AND state = 'pending')"

# What is planted, and every rule that must see it.
DEFECTS: dict[str, tuple[str, set[str]]] = {
    "a unit too many in a leg": (
        f"UPDATE trading_entry SET amount = amount + 1 WHERE {A_LEG}",
        {"transfer_balances", "balance_is_fold_of_entries", "posted_transfer_has_its_two_entries"},
    ),
    "a unit on a balance": (
        f"UPDATE trading_account SET posted = posted + 1 WHERE id = {ALICE}",
        {"asset_sums_to_zero", "balance_is_fold_of_entries"},
    ),
    "a unit from one balance to another": (
        f"UPDATE trading_account SET posted = posted + CASE WHEN id = {ALICE} THEN 1 ELSE -1 END "
        f"WHERE id = {ALICE} OR kind = 'external'",
        {"balance_is_fold_of_entries"},
    ),
    "a unit more held": (
        f"UPDATE trading_account SET held = held + 1 WHERE id = {ALICE}",
        {"held_is_sum_of_open_holds"},
    ),
    "a unit less held": (
        f"UPDATE trading_account SET held = held - 1 WHERE id = {ALICE}",
        {"held_is_sum_of_open_holds"},
    ),
    "more held than there is": (
        f"ALTER TABLE trading_account DROP CONSTRAINT account_not_overdrawn;"
        f"UPDATE trading_account SET held = posted + 1 WHERE id = {ALICE}",
        {"available_not_negative", "held_is_sum_of_open_holds"},
    ),
    "both legs a unit too large": (
        f"UPDATE trading_entry SET amount = amount + sign(amount) WHERE transfer_id = {A_TRANSFER};"
        f"UPDATE trading_account a SET posted = posted + (SELECT sign(amount) FROM trading_entry "
        f"WHERE transfer_id = {A_TRANSFER} AND account_id = a.id) "
        f"WHERE id IN (SELECT account_id FROM trading_entry WHERE transfer_id = {A_TRANSFER})",
        {"posted_transfer_has_its_two_entries"},
    ),
    "a transfer's amount": (
        f"UPDATE trading_transfer SET amount = amount + 1 WHERE id = {A_TRANSFER}",
        {"posted_transfer_has_its_two_entries"},
    ),
    "two more legs": (
        f"INSERT INTO trading_entry (transfer_id, account_id, amount, created_at) "
        f"SELECT {A_TRANSFER}, {ALICE}, x, now() FROM (VALUES (1), (-1)) v(x)",
        {"posted_transfer_has_its_two_entries", "entries_belong_to_the_transfer"},
    ),
    "no legs at all": (
        f"DELETE FROM trading_entry WHERE transfer_id = {A_TRANSFER}",
        {"posted_transfer_has_its_two_entries", "balance_is_fold_of_entries"},
    ),
    "legs of a hold": (
        f"INSERT INTO trading_entry (transfer_id, account_id, amount, created_at) "
        f"SELECT {OPEN_HOLD}, {ALICE}, x, now() FROM (VALUES (1), (-1)) v(x)",
        {"posted_transfer_has_its_two_entries"},
    ),
    "a leg on another account": (
        f"UPDATE trading_entry SET account_id = (SELECT min(id) FROM trading_account WHERE kind = 'fees') "
        f"WHERE {A_LEG}",
        {"entries_belong_to_the_transfer", "balance_is_fold_of_entries"},
    ),
    "legs the wrong way round": (
        f"UPDATE trading_transfer SET debit_id = credit_id, credit_id = debit_id WHERE id = {A_TRANSFER}",
        {"entries_belong_to_the_transfer"},
    ),
    "entries of no transfer": (
        f"INSERT INTO trading_entry (transfer_id, account_id, amount, created_at) "
        f"SELECT gen_random_uuid(), {ALICE}, 1, now()",
        {"transfer_balances", "entries_belong_to_the_transfer", "balance_is_fold_of_entries"},
    ),
    "a unit more posted than held": (
        f"UPDATE trading_transfer SET amount = 2 WHERE id = {POSTED_HOLD}",
        {"one_resolution_per_hold"},
    ),
    "a hold posted at two moments": (
        "UPDATE trading_transfer SET created_at = created_at + interval '1 ms' WHERE kind = 'job.fee'",
        {"one_resolution_per_hold"},
    ),
    "a hold that is open again": (
        f"UPDATE trading_transfer SET state = 'pending' WHERE id = {POSTED_HOLD}",
        {"one_resolution_per_hold", "held_is_sum_of_open_holds", "resolution_has_its_hold"},
    ),
    "a hold posted by nobody": (
        f"UPDATE trading_transfer SET state = 'posted' WHERE id = {OPEN_HOLD};"
        f"UPDATE trading_account SET held = held - 7 WHERE id = {ALICE}",
        {"one_resolution_per_hold"},
    ),
    "a void that is gone": ("DELETE FROM trading_transfer WHERE kind = 'test.void'", {"one_resolution_per_hold"}),
    "a void of a posted hold": (
        f"UPDATE trading_transfer SET hold = {POSTED_HOLD} WHERE kind = 'test.void'",
        {"one_resolution_per_hold", "resolution_has_its_hold"},
    ),
    "a void of another amount": (
        "UPDATE trading_transfer SET amount = amount - 1 WHERE kind = 'test.void'",
        {"resolution_has_its_hold"},
    ),
    "a posting out of nothing": (
        f"UPDATE trading_transfer SET hold = gen_random_uuid() WHERE id = {A_TRANSFER}",
        {"resolution_has_its_hold"},
    ),
    "a posting out of another's hold": (
        f"UPDATE trading_transfer SET debit_id = (SELECT min(id) FROM trading_account WHERE kind = 'fees') "
        f"WHERE id = {POSTED_HOLD}",
        {"resolution_has_its_hold"},
    ),
    "a unit more held by a payment": (
        "UPDATE trading_payment SET held = held + 1 WHERE state = 'escrowed'",
        {"payment_agrees_with_its_hold"},
    ),
    "a unit of fee called released": (
        "UPDATE trading_payment SET fee = fee - 1, released = released + 1 WHERE state = 'released'",
        {"payment_agrees_with_its_hold", "maturing_is_sum_of_unmatured_payments"},
    ),
    "a unit refunded twice": (
        "UPDATE trading_payment SET refunded = refunded + 1, released = released - 1 "
        "WHERE state = 'partially_released'",
        {"payment_agrees_with_its_hold", "maturing_is_sum_of_unmatured_payments"},
    ),
    "a payment called resolved": (
        "UPDATE trading_payment SET state = 'refunded', refunded = held WHERE state = 'escrowed'",
        {"payment_agrees_with_its_hold"},
    ),
    "a payment of another job": (
        "UPDATE trading_payment SET job = gen_random_uuid() WHERE state = 'escrowed'",
        {"payment_agrees_with_its_hold"},
    ),
    "a job's hold without its payment": (
        "DELETE FROM trading_payment WHERE state = 'escrowed'",
        {"job_hold_has_its_payment"},
    ),
    "an earning called matured": (
        "UPDATE trading_payment SET matured_at = now() WHERE state = 'released'",
        {"maturing_is_sum_of_unmatured_payments"},
    ),
    "an earning of another provider": (
        "UPDATE trading_payment SET provider_id = client_id WHERE state = 'released'",
        {"maturing_is_sum_of_unmatured_payments"},
    ),
    "an expiry before its time": (
        "UPDATE trading_transfer SET expires_at = resolved_at + interval '1 s' WHERE kind = 'test.brief'",
        {"resolution_has_its_hold"},
    ),
    "an expiry of a hold without a time-out": (
        "UPDATE trading_transfer SET expires_at = NULL WHERE kind = 'test.brief'",
        {"resolution_has_its_hold"},
    ),
    "a unit on a checkpoint": (
        "UPDATE trading_balance SET posted = posted + 1 "
        "WHERE account_id = (SELECT debit_id FROM trading_transfer WHERE kind = 'test.late')",
        {"checkpoint_is_fold_of_entries"},
    ),
    "a unit of a returned fee that was an earning": (
        "UPDATE trading_payment SET fee = fee + 1, released = released - 1 "
        "WHERE state = 'partially_released' AND held = 100 AND fee = 10",
        {"payment_agrees_with_its_hold", "maturing_is_sum_of_unmatured_payments"},
    ),
    "a unit less refunded by a dispute": (
        "UPDATE trading_dispute SET refund = refund - 1 WHERE refund IS NOT NULL",
        {"dispute_agrees_with_its_payment"},
    ),
    "a dispute that is gone": ("DELETE FROM trading_dispute WHERE refund IS NULL", {"dispute_agrees_with_its_payment"}),
    "a dispute about a unit more": (
        "UPDATE trading_dispute SET total = total + 1 WHERE refund IS NULL",
        {"dispute_agrees_with_its_payment"},
    ),
    "a disputed payment that matures": (
        "UPDATE trading_payment SET state = 'partially_released', matures_at = now() WHERE state = 'disputed'",
        {"dispute_agrees_with_its_payment"},
    ),
    "a disputed payment called matured": (
        "ALTER TABLE trading_payment DROP CONSTRAINT payment_state_fits;"
        "UPDATE trading_payment SET matured_at = now() WHERE state = 'disputed'",
        {"dispute_agrees_with_its_payment", "maturing_is_sum_of_unmatured_payments"},
    ),
    "a unit more deposited": (
        "UPDATE trading_stream_deposit SET amount = amount + 1 WHERE number = 1 AND returned = 0",
        {"stream_adds_up"},
    ),
    "a unit more returned": (
        "UPDATE trading_stream_deposit SET returned = returned - 1 WHERE returned > 0",
        {"stream_adds_up"},
    ),
    "a unit more paid to a payee": (
        f"UPDATE trading_stream_payee SET paid = paid + 1 WHERE stream_id = {OPEN_STREAM}",
        {"stream_adds_up"},
    ),
    "a unit of a stream's fee called an earning": (
        f"UPDATE trading_stream_payee SET paid = paid + 1, fee = fee - 1 WHERE stream_id = {OPEN_STREAM};"
        f"UPDATE trading_stream SET paid = paid + 1, fees = fees - 1 WHERE id = {OPEN_STREAM}",
        {"stream_adds_up", "stream_agrees_with_its_transfers"},
    ),
    "a unit more in a stream": (
        "UPDATE trading_stream_deposit SET amount = amount + 1 "
        f"WHERE number = 1 AND stream_id = {OPEN_STREAM};"
        f"UPDATE trading_stream SET deposited = deposited + 1 WHERE id = {OPEN_STREAM}",
        {"stream_agrees_with_its_transfers", "stream_ends_when_its_funds_do", "escrow_is_sum_of_open_streams"},
    ),
    "a rate a unit higher": (
        f"UPDATE trading_stream SET rate = rate + 1 WHERE id = {OPEN_STREAM}",
        {"stream_adds_up", "stream_ends_when_its_funds_do"},
    ),
    "a microsecond more": (
        f"UPDATE trading_stream SET ends_at = ends_at + interval '1 us' WHERE id = {OPEN_STREAM}",
        {"stream_ends_when_its_funds_do"},
    ),
    "a unit moved between two streams": (
        "UPDATE trading_account SET posted = posted + CASE kind WHEN 'escrow' THEN 1 ELSE -1 END WHERE id IN "
        "((SELECT min(id) FROM trading_account WHERE kind = 'escrow'), "
        "(SELECT min(id) FROM trading_account WHERE kind = 'external'))",
        {"balance_is_fold_of_entries", "escrow_is_sum_of_open_streams"},
    ),
    "a stream's transfer of another stream": (
        "UPDATE trading_transfer SET reference = gen_random_uuid() WHERE kind = 'stream.return'",
        {"stream_agrees_with_its_transfers"},
    ),
    "a sealed row's time": (
        f"UPDATE trading_transfer SET created_at = created_at + interval '1 us' WHERE id = {A_TRANSFER}",
        {"journal_chain_verifies"},
    ),
    "a row slipped in among the sealed": (
        "UPDATE trading_transfer SET xact = (SELECT min(upto) FROM trading_journalblock) - 1 WHERE kind = 'job.fee'",
        {"journal_chain_verifies"},
    ),
    "a block's digest": (
        "UPDATE trading_journalblock SET digest = sha256('other') WHERE number = 2",
        {"journal_chain_verifies"},
    ),
    "a block's head": (
        "UPDATE trading_journalblock SET head = sha256('other') WHERE number = 1",
        {"journal_chain_verifies"},
    ),
    "a block that is gone": ("DELETE FROM trading_journalblock WHERE number = 1", {"journal_chain_verifies"}),
}


# What is sealed also breaks the chain, whichever other rule sees it; only a transfer's state may change.
CHAIN = {"journal_chain_verifies"}
CHANGES_A_FACT = re.compile(r"(UPDATE|DELETE FROM) trading_(entry|transfer) (?!SET state)")


# What an audit since the first checkpoint sees otherwise.
BEFORE_THE_CHECKPOINT = {"a row slipped in among the sealed", "a unit on a checkpoint"}
BY_OTHER_ROWS = {"held_is_sum_of_open_holds"}  # the states of holds here, their resolutions there


def test_every_rule_has_its_defect():
    assert set().union(*(rules for _, rules in DEFECTS.values())) | {"order_agrees_with_its_money"} == set(RULES)


@pytest.fixture
def planted(monkeypatch):
    """Break the books as the owner with the triggers off, look at them on his connection, and undo it."""
    owner = connections["owner"]

    def plant(sql):
        with owner.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute(sql)
            cursor.execute("SET LOCAL session_replication_role = origin")

    monkeypatch.setattr(db, "connections", {"default": owner})
    with transaction.atomic(using="owner"):
        yield plant
        transaction.set_rollback(True, using="owner")


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found_by_its_rules(defect, planted):
    sql, rules = DEFECTS[defect]
    since = first_checkpoint()
    assert broken() == broken(since) == set()
    planted(sql)
    assert broken() - CHAIN == rules - CHAIN
    assert broken() & CHAIN == (CHAIN if CHANGES_A_FACT.search(sql) else rules & CHAIN)
    if defect not in BEFORE_THE_CHECKPOINT:
        assert broken(since)
        assert broken(since) - BY_OTHER_ROWS == broken() - BY_OTHER_ROWS


def test_an_audit_since_a_checkpoint_stands_on_its_balances(planted):
    planted(DEFECTS["a unit on a checkpoint"][0])
    assert broken(first_checkpoint()) == {"balance_is_fold_of_entries"}


def test_a_newer_checkpoint_is_checked_on_the_older_one(planted):
    since = first_checkpoint()
    planted("SELECT ledger_checkpoint()")
    assert broken() == broken(since) == set()
    planted(f"UPDATE trading_balance SET posted = posted + 1 WHERE block_id > 1 AND account_id = {ALICE}")
    assert broken() == broken(since) == {"checkpoint_is_fold_of_entries"}


def test_an_audit_since_a_time_before_all_checkpoints_is_a_whole_one(planted):
    planted("UPDATE trading_transfer SET reference = gen_random_uuid() WHERE kind = 'test.old'")
    assert broken(dt.datetime(2020, 1, 1, tzinfo=dt.UTC)) == {"journal_chain_verifies"}
    assert broken(first_checkpoint()) == set()


def test_a_finding_counts_the_offenders_and_names_one(planted):
    planted(f"UPDATE trading_account SET held = held + 1 WHERE id = {ALICE}")
    alice = db.value(f"SELECT {ALICE}::text")
    assert audit() == [Finding("held_is_sum_of_open_holds", 1, alice)]


def test_sound_books_are_sound():
    assert audit() == []
    assert size() == db.value("SELECT count(*) FROM trading_entry") > 0


def run(*arguments):
    out = StringIO()
    try:
        call_command("audit_ledger", *arguments, stdout=out)
    except CommandError as error:
        return error.returncode, out.getvalue(), str(error)
    return 0, out.getvalue(), ""


def test_the_command_says_what_it_covered():
    code, out, error = run()
    assert (code, error) == (0, "")
    assert out.startswith(f"sound: {len(RULES)} rules over {size()} entries in ")


def test_the_command_answers_in_json():
    code, out, _ = run("--json")
    report = json.loads(out)
    assert code == 0
    assert report.pop("seconds") >= 0
    assert report == {"ok": True, "rules": len(RULES), "entries": size(), "findings": []}


@pytest.mark.parametrize("since", ["2026-11-23T10:00:00+00:00", "PT2H"])
def test_the_command_takes_a_time_or_a_duration(since):
    code, out, _ = run("--since", since)
    assert (code, out[:7]) == (0, "sound: ")


@pytest.mark.parametrize("since", ["yesterday", "2026-11-23T10:00:00", ""])
def test_a_since_that_is_no_time_is_refused(since):
    with pytest.raises(CommandError, match="--since"):
        call_command("audit_ledger", "--since", since)


def test_the_command_fails_and_names_the_broken_rules(planted):
    planted(f"UPDATE trading_account SET posted = posted + 1 WHERE id = {ALICE}")
    code, out, error = run()
    assert code == 1
    assert error == "the ledger is NOT sound: asset_sums_to_zero, balance_is_fold_of_entries"
    assert out.splitlines()[0] == "BROKEN asset_sums_to_zero: 1, for example AIT"


def test_the_command_fails_in_json_too(planted):
    planted(f"UPDATE trading_account SET held = held + 1 WHERE id = {ALICE}")
    code, out, error = run("--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    (finding,) = report["findings"]
    assert finding == {"rule": "held_is_sum_of_open_holds", "count": 1, "example": db.value(f"SELECT {ALICE}::text")}
    assert "held_is_sum_of_open_holds" in error
