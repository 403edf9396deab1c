"""The database's helpers: transactions where they must and must not be, locks that die with their holder."""

import gc
import threading
import weakref

import psycopg
import pytest
from django.db import DatabaseError, DataError, IntegrityError, connections, transaction

from aitbc.core import clock, db
from aitbc.core.errors import Unavailable
from aitbc.core.ids import uuid7


@pytest.fixture(autouse=True)
def _database(request):
    request.getfixturevalue("committed_db" if "in_threads" in request.fixturenames else "db")


def test_rows_row_and_value():
    assert db.rows("SELECT n, n * 2 FROM generate_series(1, 3) n") == [(1, 2), (2, 4), (3, 6)]
    assert db.rows("SELECT 1 WHERE false") == []
    assert (db.row("SELECT 1 WHERE false"), db.row("SELECT %s::int, %s::text", (1, "a"))) == (None, (1, "a"))
    assert db.value("SELECT %s::int[]", ([1, 2],)) == [1, 2]
    assert db.rows("SET LOCAL search_path = public") == []


def test_without_a_transaction_the_same_statements_run_prepared(in_threads):
    def run(_):
        assert db.rows("SELECT n, n * 2 FROM generate_series(1, 3) n") == [(1, 2), (2, 4), (3, 6)]
        assert db.value("SELECT %s::int[]", ([1, 2],)) == [1, 2]
        for value in (1, None, 2**40):
            assert db.value("SELECT %s::bigint", (value,)) == value
        assert db.rows("SELECT %s::text, '%%s'", ("a%s",)) == [("a%s", "%s")]
        assert db.rows("SELECT 1 WHERE false") == []
        assert db.rows("SET search_path = public") == []
        with pytest.raises(DataError):
            db.value("SELECT 1 / %s::int", (0,))
        names = db.rows("SELECT name FROM pg_prepared_statements")
        assert len([1 for (name,) in names if name.startswith("aitbc_")]) >= 6

    in_threads(run, 1)


def test_a_rollback_that_drops_the_prepared_statements_costs_nothing(in_threads):
    def run(_):
        assert db.value("SELECT %s::int", (1,)) == 1
        with transaction.atomic():
            db.rows("SELECT 2")  # prepared by psycopg, which drops all of them with the rollback
            transaction.set_rollback(True)
        assert db.rows("SELECT name FROM pg_prepared_statements WHERE name LIKE 'aitbc_0'") == []
        assert db.value("SELECT %s::int", (3,)) == 3

    in_threads(run, 1)


def test_a_closed_connection_is_forgotten_with_its_statements(in_threads):
    def run(_):
        seen = []
        for _ in range(5):
            assert db.value("SELECT %s::int", (1,)) == 1
            seen.append(weakref.ref(connections["default"].connection))
            connections["default"].close()
        assert db.value("SELECT %s::int", (2,)) == 2
        gc.collect()
        assert [old() for old in seen] == [None] * 5

    in_threads(run, 1)


def test_parameters_are_values_and_never_text_of_the_statement():
    evil = "'; DROP TABLE core_outbox; -- %s"
    assert db.value("SELECT %s::text", (evil,)) == evil


def test_errors_are_djangos():
    with pytest.raises(IntegrityError), transaction.atomic():
        db.rows("INSERT INTO core_platform_tick (process, at, resumed_at) VALUES ('x', NULL, now())")
    with pytest.raises(DatabaseError), transaction.atomic():
        db.rows("SELECT nonsense")
    assert db.value("SELECT 1") == 1


def test_outside_effects_are_refused_inside_a_transaction():
    db.outside_transaction()  # what the test wraps around itself is none of ours
    with transaction.atomic(), pytest.raises(transaction.TransactionManagementError, match="outside effects"):
        db.outside_transaction()
    db.outside_transaction()


def test_outside_effects_are_refused_with_real_transactions_too(in_threads):
    db.outside_transaction()
    with transaction.atomic(), transaction.atomic(), pytest.raises(transaction.TransactionManagementError):
        db.outside_transaction()
    with transaction.atomic(using="owner"):
        db.outside_transaction()
        with pytest.raises(transaction.TransactionManagementError):
            db.outside_transaction("owner")


def test_a_helper_that_needs_a_transaction_says_so(in_threads):
    with pytest.raises(transaction.TransactionManagementError):
        db.inside_transaction()
    with transaction.atomic():
        db.inside_transaction()


def test_a_lock_is_held_by_one_and_free_afterwards():
    name = str(uuid7())
    with db.advisory_lock(name) as first, db.advisory_lock(name) as second, db.advisory_lock("other" + name) as third:
        assert (first, second, third) == (True, False, True)
    with db.advisory_lock(name) as again:
        assert again is True


def test_a_lock_is_free_after_an_exception():
    name = str(uuid7())
    with pytest.raises(ZeroDivisionError), db.advisory_lock(name):
        raise ZeroDivisionError
    with db.advisory_lock(name) as free:
        assert free


def test_of_sixteen_one_holds_the_lock(in_threads):
    name, done = str(uuid7()), threading.Barrier(16, timeout=30)

    def hold(_):
        with db.advisory_lock(name) as held:
            done.wait()
            return held

    assert sum(in_threads(hold, 16)) == 1


def test_a_killed_holder_frees_its_lock(in_threads):
    name = str(uuid7())
    kill = """SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_locks
               WHERE locktype = 'advisory'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)"""
    try:
        with db.advisory_lock(name) as held:
            assert held
            with connections["owner"].cursor() as cursor:
                cursor.execute(kill, (name,))
                assert cursor.fetchone() == (1,)
            with db.advisory_lock(name) as free:
                assert free
    except psycopg.OperationalError:  # the dead holder's connection cannot end in order
        pass


def test_a_lock_without_a_database_is_unavailable(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "/nowhere")
    with pytest.raises(Unavailable) as caught, db.advisory_lock("x"):
        pass
    assert caught.value.code == "database.unavailable"


def test_a_slow_read_is_stopped_and_the_old_limit_returns():
    before = db.value("SHOW statement_timeout")
    with pytest.raises(Unavailable) as caught, db.bounded(50):
        db.rows("SELECT pg_sleep(5)")
    assert caught.value.code == "database.slow"
    with db.bounded(5000):
        assert db.value("SHOW statement_timeout") == "5s"
    assert db.value("SHOW statement_timeout") == before == "20s"


def test_timeouts_form_a_ladder():
    lock, statement, idle = (
        db.value(f"SELECT extract(epoch FROM current_setting('{name}')::interval)::int")
        for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    )
    assert 0 < lock < statement < idle


def test_the_databases_clock_runs_inside_a_transaction():
    first = clock.database_now()
    assert clock.database_now() > first
