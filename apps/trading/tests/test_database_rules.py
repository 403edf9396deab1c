"""What the database itself refuses: to the application's role, and even to the owner of the tables."""

import pytest
from django.db import DatabaseError, NotSupportedError, ProgrammingError, connections, transaction

from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.management.commands.migrate import seed
from aitbc.core.testing.plugin import empty_tables
from apps.trading.services import escrow, ledger, streams
from apps.trading.services.audit import audit
from apps.trading.tests.books import TABLES, account, balance, books, opened, post, transfer, user, void

MONEY = TABLES


@pytest.fixture(scope="module", autouse=True)
def _filled(django_db_setup, django_db_blocker):
    """A transfer, an open hold, a posted and a voided one, and an escrowed payment: committed once, as
    no test here may change anything."""
    with django_db_blocker.unblock():
        _fill()
        before = books()
        yield
        assert books() == before
        assert audit() == []
        empty_tables()
        seed()
        connections.close_all()


def _fill():
    alice, bob = account(100), account()
    first, second = opened(alice, 5), opened(alice, 5)
    ledger.apply_all([transfer(alice, bob, 10), post(first, bob, 3), void(second)])
    opened(alice, 7)
    client = user("client").pk
    account(50, owner=client)
    opening = "SELECT payments_open(%s, %s, %s, %s, 'AIT')"
    paid, job = uuid7(), uuid7()
    assert db.value(opening, ([uuid7(), paid], [uuid7(), job], [client] * 2, [20, 10])) == ["ok"] * 2
    provider = user("provider").pk
    assert db.value("SELECT payments_settle(%s, %s, %s, %s)", ([job], [provider], [10], [1])) == 1
    escrow.act("dispute", user=client, payment=paid, job=job, reason="wrong")
    streams.open_stream(owner=client, payees={provider: 1}, deposit=10)


def attempt(alias, sql):
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.rowcount


def refused(alias, sql, *, by, error=DatabaseError):
    before = books()
    with pytest.raises(error, match=by):
        attempt(alias, sql)
    assert books() == before


FORBIDDEN = {
    "update": "UPDATE {table} SET {key} = {key}",
    "delete": "DELETE FROM {table}",
    "insert": "INSERT INTO {table} SELECT * FROM {table}",
    "truncate": "TRUNCATE {table} CASCADE",
    "copy": "COPY {table} FROM STDIN",
    "lock": "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
    "select for update": "SELECT 1 FROM {table} FOR UPDATE",
    "disable triggers": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "add a trigger": "CREATE TRIGGER mine BEFORE INSERT ON {table} EXECUTE FUNCTION trading_refuse_change()",
    "drop": "DROP TABLE {table}",
    "take over": "ALTER TABLE {table} OWNER TO CURRENT_USER",
}
KEYS = {"trading_dispute": "payment_id", "trading_stream_deposit": "stream_id", "trading_stream_payee": "stream_id"}


@pytest.mark.parametrize("table", MONEY)
@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_application_cannot(what, table):
    sql = FORBIDDEN[what].format(table=table, key=KEYS.get(table, "id"))
    refused("default", sql, by="permission denied|must be owner", error=ProgrammingError)


@pytest.mark.parametrize(
    "sql",
    [
        "SET session_replication_role = replica",
        "SET ROLE {owner}",
        "SET SESSION AUTHORIZATION {owner}",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "CREATE TABLE public.mine (id int)",
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION ledger_apply SECURITY INVOKER",
        "DROP FUNCTION ledger_apply",
        "CREATE SCHEMA mine",
        "INSERT INTO trading_asset VALUES ('MINE', 'Mine', 18)",
        "UPDATE trading_asset SET decimals = 0",
        "SELECT setval('trading_account_id_seq', 1)",
        "COPY trading_entry TO PROGRAM 'true'",
    ],
)
def test_the_application_has_no_way_around(sql):
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT current_user")
        (owner,) = cursor.fetchone()
    by = "permission denied|must be owner|[Oo]nly roles|requires"
    refused("default", sql.format(owner=owner), by=by, error=(ProgrammingError, NotSupportedError))


@pytest.mark.parametrize("table", MONEY)
def test_the_application_reads_money_and_has_no_other_right_on_it(table):
    assert attempt("default", f"SELECT * FROM {table}") > 0
    rights = "SELECT array_agg(DISTINCT privilege) FROM unnest(%s::text[]) AS r(privilege) {}"
    given = rights.format("WHERE has_table_privilege(%s, privilege)")
    every = [*("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")]
    assert db.value(given, (every, table)) == ["SELECT"]


def test_the_application_has_no_special_role():
    special = """SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication,
                        (SELECT count(*) FROM pg_auth_members WHERE member = r.oid)
                   FROM pg_roles r WHERE rolname = current_user"""
    assert db.row(special) == (False, 0)


def test_a_temporary_table_cannot_stand_in_for_a_real_one():
    """A SECURITY DEFINER function that looked into pg_temp first would book into the caller's tables."""
    with transaction.atomic(), connections["default"].cursor() as cursor:
        alice, bob = account(10), account()
        cursor.execute("CREATE TEMP TABLE trading_account AS SELECT * FROM public.trading_account")
        cursor.execute("UPDATE trading_account SET posted = 1000000")
        assert ledger.apply([transfer(alice, bob, 1000)]) == ["insufficient_funds"]
        transaction.set_rollback(True)


FUNCTIONS = """
SELECT p.proname, p.prosecdef, coalesce(array_to_string(p.proconfig, ';'), ''),
       EXISTS (SELECT 1 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                WHERE a.grantee = 0),
       has_function_privilege('aitbc_app', p.oid, 'EXECUTE'),
       p.proowner = (SELECT oid FROM pg_roles WHERE rolname = 'aitbc_app')
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname !~ '^test_'"""  # which tests made


def test_functions_are_for_the_application_only_and_the_powerful_ones_have_a_fixed_path():
    found = db.rows(FUNCTIONS)
    powerful = {name for name, definer, *_ in found if definer}
    assert powerful == {
        *("ledger_account", "ledger_apply", "payments_open", "payments_settle", "payments_mature"),
        *("journal_seal", "ledger_expire", "ledger_checkpoint", "liabilities_prove", "audit_row", "audit_write"),
        *(f"payment_{what}" for what in ("release", "refund", "dispute", "resolve")),
        *(f"stream_{what}" for what in ("open", "deposit", "set_rate", "settle", "close", "next", "finish", "prolong")),
        *("reputation_note_order", "gpu_telemetry_partition", "gpu_telemetry_keep"),
        *(f"review_{what}" for what in ("write", "edit", "delete", "moderate")),
        *("reputation_collect", "reputation_rebuild", "rerun_arbiter", "rerun_due", "rerun_record"),
        *("reexecution_open", "reexecution_appeal", "reexecution_next", "dispute_attach", "dispute_shown"),
        *("asset_publish", "asset_withdraw", "asset_check", "bundle_publish", "licence_buy", "licence_revoke"),
    }
    for name, definer, config, public, app, owned_by_app in found:
        assert (public, app, owned_by_app) == (False, True, False), name
        assert not definer or "search_path=public, pg_temp" in config, name


def test_a_function_made_later_is_not_public_either(request):
    with connections["owner"].cursor() as cursor:
        cursor.execute("CREATE FUNCTION test_later() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        request.addfinalizer(lambda: attempt("owner", "DROP FUNCTION test_later()"))
    refused("default", "SELECT test_later()", by="permission denied", error=ProgrammingError)


# -- the owner ---------------------------------------------------------------------------------

ENTRY = "INSERT INTO trading_entry (transfer_id, account_id, amount, created_at)"
SOME = "(SELECT id FROM trading_account ORDER BY id LIMIT 1)"
OTHER = "(SELECT id FROM trading_account ORDER BY id DESC LIMIT 1)"
ID = "(SELECT id FROM trading_transfer WHERE state = 'posted' LIMIT 1)"
OWNERS_ATTEMPTS = {
    "change an entry": ("UPDATE trading_entry SET amount = amount + 1", "rows of trading_entry stay"),
    "change no entry": ("UPDATE trading_entry SET amount = amount WHERE false", "rows of trading_entry stay"),
    "delete entries": ("DELETE FROM trading_entry", "rows of trading_entry stay"),
    "truncate entries": ("TRUNCATE trading_entry", "rows of trading_entry stay"),
    "delete transfers": ("DELETE FROM trading_transfer", "rows of trading_transfer stay"),
    "truncate transfers": ("TRUNCATE trading_transfer CASCADE", "rows of trading_transfer stay"),
    "delete accounts": ("DELETE FROM trading_account", "rows of trading_account stay"),
    "truncate accounts": ("TRUNCATE trading_account CASCADE", "rows of trading_account stay"),
    "delete payments": ("DELETE FROM trading_payment", "rows of trading_payment stay"),
    "insert half a transfer": (f"{ENTRY} VALUES ({ID}, {SOME}, 5, now())", "do not sum to zero"),
    "insert unequal legs": (
        f"{ENTRY} VALUES ({ID}, {SOME}, 5, now()), ({ID}, {OTHER}, -4, now())",
        "do not sum to zero",
    ),
    "balance over two transfers": (
        f"{ENTRY} VALUES ({ID}, {SOME}, 5, now()), (gen_random_uuid(), {OTHER}, -5, now())",
        "do not sum to zero",
    ),
    "insert an empty leg": (f"{ENTRY} VALUES ({ID}, {SOME}, 0, now())", "entry_not_zero"),
    "overdraw": (f"UPDATE trading_account SET held = posted + 1 WHERE id = {OTHER}", "account_not_overdrawn"),
    "hold less than nothing": ("UPDATE trading_account SET held = -1", "account_held_not_negative"),
    "make a second account": (
        "INSERT INTO trading_account (asset_id, kind, chain, shard, posted, held, overdraft, created_at) "
        "SELECT asset_id, kind, chain, shard, 0, 0, overdraft, created_at FROM trading_account "
        f"WHERE id = {SOME}",
        "account_one_per_kind",
    ),
    "insert a transfer of nothing": (
        "INSERT INTO trading_transfer SELECT gen_random_uuid(), kind, state, 0, hold, reference, created_at, "
        "resolved_at, credit_id, debit_id FROM trading_transfer WHERE state = 'posted' LIMIT 1",
        "transfer_amount_positive",
    ),
    "release more than was held": (
        "UPDATE trading_payment SET state = 'released', released = held + 1",
        "payment_adds_up",
    ),
    "refund less than nothing": (
        "UPDATE trading_payment SET state = 'released', released = held + 1, refunded = -1, matures_at = now()",
        "payment_parts_not_negative",
    ),
}


@pytest.mark.parametrize("what", OWNERS_ATTEMPTS)
def test_even_the_owner_cannot(what):
    sql, by = OWNERS_ATTEMPTS[what]
    refused("owner", sql, by=by)


@pytest.mark.parametrize(
    "change",
    [
        "amount = amount + 1",
        "debit_id = debit_id + 1",
        "credit_id = coalesce(credit_id, 0) + 1",
        "kind = 'other'",
        "reference = gen_random_uuid()",
        "hold = gen_random_uuid()",
        "id = gen_random_uuid()",
        "created_at = now() + interval '1 day'",
        "state = 'pending'",
        "state = state",
        "resolved_at = now()",
    ],
)
@pytest.mark.parametrize("state", ["pending", "posted", "voided"])
def test_even_the_owner_cannot_change_a_transfers_facts(state, change):
    sql = f"UPDATE trading_transfer SET {change} WHERE state = '{state}'"
    refused("owner", sql, by="resolved once and never changed")


def test_a_pending_transfer_leaves_that_state_with_its_facts_unchanged():
    resolve = "UPDATE trading_transfer SET state = '{}', amount = amount + {} WHERE state = 'pending'"
    refused("owner", resolve.format("posted", 1), by="resolved once and never changed")
    refused("owner", resolve.format("lost", 0), by="resolved once and never changed")
    with transaction.atomic(using="owner"):
        assert attempt("owner", resolve.format("voided", 0)) == 2
        transaction.set_rollback(True, using="owner")


def test_balances_after_all_attempts_are_what_was_booked():
    assert sum(posted for (posted,) in db.rows("SELECT posted FROM trading_account")) == 0
    assert sorted(balance(id)[1] for (id,) in db.rows("SELECT id FROM trading_account WHERE held > 0")) == [7, 20]
