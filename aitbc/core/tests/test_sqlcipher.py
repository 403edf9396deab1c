"""The SQLCipher backend: nothing to read in its files, no faulty key, and Django's rules as on SQLite."""

import datetime
import io
import os
import stat
import threading
from contextlib import closing
from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, OperationalError, connections, models, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.db.models.functions import MD5, Sqrt, TruncDay, TruncMonth
from sqlcipher3 import dbapi2

from aitbc.chain.models import Block, Log, SignedTransaction
from aitbc.core import checks, db
from aitbc.core.sqlcipher import driver, keys
from aitbc.core.tests.cipherfile import HASHES, PLANTED, run

HEADER = b"SQLite format 3\0"


# -- what lies on the disk ---------------------------------------------------------------------


def test_nothing_planted_is_found_in_the_database_its_log_or_its_backup(chain_file, tmp_path):
    chain_file.plant()
    backup = chain_file.var / "backup.db"
    call_command("db_check", backup=str(backup), stdout=io.StringIO())

    assert len(PLANTED) == 20
    assert chain_file.files() == {"chain.db", "chain.db-wal", "chain.db-shm"}
    assert (chain_file.path.parent / "chain.db-wal").stat().st_size > 4096
    assert chain_file.seen() == set()
    assert chain_file.path.read_bytes()[:16] != HEADER != backup.read_bytes()[:16]
    with closing(driver.connect(str(backup), chain_file.key)) as copy:
        assert copy.execute("SELECT count(*) FROM chain_log").fetchone() == (5,)


def test_the_same_search_finds_all_of_it_in_a_plain_database(chain_file, settings):
    connections["chain"].close()
    chain_file.path.unlink()
    settings.DB_ENCRYPTION_ENABLED = False
    chain_file.migrate()
    chain_file.plant()

    assert chain_file.seen() == {"chain.db-wal"}
    db.shutdown_db()
    assert chain_file.seen() == {"chain.db"}
    assert chain_file.path.read_bytes()[:16] == HEADER


def test_files_belong_to_their_owner_alone_whatever_the_umask(chain_file):
    connections["chain"].close()
    chain_file.path.unlink()
    before = os.umask(0)
    try:
        chain_file.migrate()
        chain_file.plant()
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in chain_file.path.parent.iterdir()}
    assert modes == {"chain.db": 0o600, "chain.db-wal": 0o600, "chain.db-shm": 0o600}


def test_a_file_that_was_open_to_others_is_closed_to_them(chain_file):
    connections["chain"].close()
    chain_file.path.chmod(0o644)
    Block.objects.count()
    assert stat.S_IMODE(chain_file.path.stat().st_mode) == 0o600


def test_shutdown_folds_the_log_in_and_closes_the_connections_of_all_threads(chain_file):
    chain_file.plant()
    opened, go = threading.Event(), threading.Event()

    def other():
        Block.objects.count()
        opened.set()
        go.wait(20)
        found.append((connections["chain"].connection, Block.objects.count()))
        connections["chain"].close()

    found: list[object] = []
    thread = threading.Thread(target=other)
    thread.start()
    assert opened.wait(20)
    db.shutdown_db()

    assert connections["chain"].connection is None
    assert chain_file.files() == {"chain.db"}
    go.set()
    thread.join()
    assert found == [(None, 5)]  # closed under it, and opened anew when it needed one


# -- the key -----------------------------------------------------------------------------------


def _without(file):
    file.key.unlink()


def _empty(file):
    file.key.write_bytes(b"")


def _short(file):
    file.key.write_bytes(os.urandom(31))


def _with_a_line_end(file):
    file.key.write_bytes(file.key.read_bytes() + b"\n")


def _as_text(file):
    file.key.write_text(file.key.read_bytes().hex())


def _group(file):
    file.key.chmod(0o640)


def _world(file):
    file.key.chmod(0o604)


def _folder(file):
    file.key.unlink()
    file.key.mkdir()


def _wrong(file):
    file.key.write_bytes(os.urandom(32))


FAULTS = {
    "missing": (_without, "is missing", "db_generate_key"),
    "empty": (_empty, "is empty", "put back the file"),
    "short": (_short, "not 32 raw bytes", "put back the file"),
    "a line end": (_with_a_line_end, "not 32 raw bytes", "no line end"),
    "as text": (_as_text, "not 32 raw bytes", "no text"),
    "open to the group": (_group, "is open to others (mode 640)", "chmod 600"),
    "open to the world": (_world, "is open to others (mode 604)", "db_rekey"),
    "a folder": (_folder, "Is a directory", "it must be a file"),
    "wrong": (_wrong, "does not open", "put back the key that it was encrypted with"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_key_is_refused_by_the_name_of_its_file_with_the_cure(chain_file, fault):
    spoil, what, cure = FAULTS[fault]
    chain_file.plant()
    db.shutdown_db()
    before = chain_file.path.read_bytes()
    spoil(chain_file)

    with pytest.raises(ImproperlyConfigured) as refusal:
        Block.objects.count()
    said = str(refusal.value)
    assert str(chain_file.key) in said
    assert what in said
    assert cure in said
    assert connections["chain"].connection is None
    assert chain_file.path.read_bytes() == before


@pytest.mark.parametrize("fault", FAULTS)
def test_checks_name_it_and_the_chain_worker_does_not_start(chain_file, fault):
    """Only connecting can tell a wrong key."""
    FAULTS[fault][0](chain_file)
    messages = checks.database_key()
    assert [message.id for message in messages] == ([] if fault == "wrong" else ["aitbc.E002"])
    if messages:
        with pytest.raises(ImproperlyConfigured, match=str(chain_file.key)):
            checks.require()
    with pytest.raises(CommandError) as refusal:
        call_command("run_chain", once=True, skip_checks=True)
    assert str(chain_file.key) in str(refusal.value)
    assert FAULTS[fault][2] in str(refusal.value)


def test_a_worker_with_a_wrong_key_ends_with_the_reason_and_no_traceback(chain_file):
    _wrong(chain_file)
    refused = chain_file.manage("run_chain", "--once", DB_ENCRYPTION_ENABLED="1")
    assert refused.returncode == 1
    assert f"the key in {chain_file.key} does not open {chain_file.path}: put back the key" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_web_refuses_to_serve_with_a_faulty_key(chain_file):
    db.shutdown_db()
    chain_file.key.chmod(0o644)
    code = "import aitbc.wsgi"
    refused = run("-c", code, env=chain_file.environment(DB_ENCRYPTION_ENABLED="1"))
    assert refused.returncode == 1
    assert f"the database key {chain_file.key} is open to others (mode 644)" in refused.stderr
    chain_file.key.chmod(0o600)
    assert run("-c", code, env=chain_file.environment(DB_ENCRYPTION_ENABLED="1")).returncode == 0


def test_a_host_without_key_and_database_needs_neither_and_cannot_connect(chain_file, tmp_path):
    connections["chain"].close()
    chain_file.path.unlink()
    chain_file.key.unlink()
    connections["chain"].settings_dict["NAME"] = str(tmp_path / "none.db")
    assert checks.database_key() == []
    with pytest.raises(ImproperlyConfigured, match="is missing"):
        Block.objects.count()
    assert not (tmp_path / "none.db").exists()


def test_a_plain_database_is_refused_where_an_encrypted_one_is_due_and_the_reverse(chain_file, settings):
    db.shutdown_db()
    settings.DB_ENCRYPTION_ENABLED = False
    with pytest.raises(ImproperlyConfigured, match=r"chain\.db is encrypted .* DB_ENCRYPTION_KEY_PATH"):
        Block.objects.count()
    chain_file.path.unlink()
    chain_file.migrate()
    db.shutdown_db()
    settings.DB_ENCRYPTION_ENABLED = True
    with pytest.raises(ImproperlyConfigured, match=r"is not encrypted: .* `manage\.py db_encrypt`"):
        Block.objects.count()


def test_neither_errors_nor_logged_queries_show_the_key(chain_file, settings):
    secret = chain_file.key.read_bytes().hex()
    settings.DEBUG = True
    connections["chain"].force_debug_cursor = True
    try:
        connections["chain"].close()
        Block.objects.count()
        logged = str(connections["chain"].queries)
    finally:
        connections["chain"].force_debug_cursor = False
    assert "chain_block" in logged
    assert secret not in logged
    db.shutdown_db()
    _wrong(chain_file)
    with pytest.raises(ImproperlyConfigured) as refusal:
        Block.objects.count()
    assert chain_file.key.read_bytes().hex() not in str(refusal.value)


def test_the_key_is_taken_raw_not_stretched(chain_file):
    """The same 64 digits as a passphrase open nothing: SQLCipher would derive another key of them."""
    db.shutdown_db()
    with closing(dbapi2.connect(str(chain_file.path))) as connection:
        connection.execute(f"PRAGMA key = '{chain_file.key.read_bytes().hex()}'")
        connection.execute("PRAGMA cipher_log_level = NONE")
        with pytest.raises(dbapi2.DatabaseError, match="not a database"):
            connection.execute("SELECT * FROM sqlite_master")


def test_generated_keys_differ_are_private_and_never_replaced(tmp_path):
    first, second = tmp_path / "a" / "key", tmp_path / "b" / "key"
    keys.generate(first)
    keys.generate(second)
    with pytest.raises(FileExistsError):
        keys.generate(first)
    assert len({keys.read(first), keys.read(second), bytes(32)}) == 3
    assert [path.name for path in first.parent.iterdir()] == ["key"]
    modes = (stat.S_IMODE(first.stat().st_mode), stat.S_IMODE(first.parent.stat().st_mode))
    assert modes == (0o600, 0o700)


# -- what Django asks of a backend -------------------------------------------------------------


def test_the_log_is_written_ahead_and_synchronous(chain_file):
    with connections["chain"].cursor() as cursor:
        asked = [
            cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert asked == ["wal", 2, 1]


def test_connections_stay_open_between_units_of_work(chain_file):
    Block.objects.count()
    raw = connections["chain"].connection
    connections["chain"].close_if_unusable_or_obsolete()
    assert connections["chain"].connection is raw


def _block(number):
    return Block.objects.create(number=number, hash=HASHES[0], parent=HASHES[1], timestamp=number)


@transaction.atomic(using="chain")
def _block_and_failure(number):
    _block(number)
    raise RuntimeError


def test_transactions_roll_back_and_savepoints_inside_them(chain_file):
    with transaction.atomic(using="chain"):
        _block(1)
        with pytest.raises(RuntimeError):
            _block_and_failure(2)
        with transaction.atomic(using="chain"):
            _block(3)
    with pytest.raises(RuntimeError):
        _block_and_failure(4)
    assert [block.number for block in Block.objects.order_by("number")] == [1, 3]


def test_errors_of_the_driver_are_djangos(chain_file):
    _block(1)
    with pytest.raises(IntegrityError):
        _block(1)
    with pytest.raises(OperationalError), connections["chain"].cursor() as cursor:
        cursor.execute("SELECT * FROM nothing")
    with pytest.raises(IntegrityError), transaction.atomic(using="chain"):
        Log.objects.create(
            block_id=99, tx_hash=HASHES[0], ordinal=0, log_index=0, address="0x" + "1" * 40, topics=[], data=""
        )
    assert Log.objects.count() == 0


def test_placeholders_of_both_kinds_and_percent_signs(chain_file):
    with connections["chain"].cursor() as cursor:
        cursor.execute("CREATE TABLE t (a, b)")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", ((n, f"{n}%") for n in range(3)))
        cursor.executemany("INSERT INTO t VALUES (%(a)s, %(b)s)", [{"a": 9, "b": "nine"}])
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [])
        assert cursor.execute("SELECT b FROM t WHERE a = %s", [1]).fetchall() == [("1%",)]
        assert cursor.execute("SELECT b FROM t WHERE a = %(x)s", {"x": 9}).fetchall() == [("nine",)]
        assert cursor.execute("SELECT count(*) FROM t WHERE b LIKE '%%\\%%' ESCAPE '\\'", []).fetchall() == [(3,)]
        assert cursor.execute("SELECT '100%'").fetchall() == [("100%",)]


def test_functions_of_django_run_inside_the_database(chain_file):
    chain_file.plant()
    made = SignedTransaction.objects.filter(nonce=4)
    made.update(created_at=datetime.datetime(2026, 2, 28, 23, 59, tzinfo=datetime.UTC))
    found = made.annotate(
        day=TruncDay("created_at"), month=TruncMonth("created_at"), root=Sqrt("nonce"), digest=MD5(models.Value("a"))
    ).get()
    assert found.day == datetime.datetime(2026, 2, 28, tzinfo=datetime.UTC)
    assert found.month == datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)
    assert (found.root, found.digest) == (2.0, "0cc175b9c0f1b6a831c399e269772661")
    assert Log.objects.filter(data__regex=r"^[0-9a-f]{32}$").count() == 5
    assert Log.objects.filter(data__regex=r"^z").count() == 0
    assert Log.objects.filter(data__iregex=r"^[A-F0-9]+$").count() == 5
    assert Log.objects.filter(topics__0=Log.objects.first().data).count() == 1
    assert Block.objects.aggregate(models.StdDev("number"))["number__stddev"] == pytest.approx(2**0.5)
    assert made.filter(created_at__date=datetime.date(2026, 2, 28), created_at__hour=23).count() == 1


def test_values_come_back_as_what_they_were(chain_file):
    chain_file.plant()
    one = SignedTransaction.objects.get(nonce=2)
    assert (bytes(one.raw)[:4], one.tx_hash) == (PLANTED[12][:4], HASHES[2])
    assert one.created_at.tzinfo is not None
    moment = datetime.datetime.fromisoformat("2026-01-02T03:04:05")  # without a zone, as they are kept
    given = (True, moment.date(), "03:04:05", moment, "2026-01-02 03:04:05", Decimal("1.10"))
    with connections["chain"].cursor() as cursor:
        cursor.execute("CREATE TABLE v (b bool, d date, t time, m datetime, s timestamp, n text)")
        cursor.execute("INSERT INTO v VALUES (%s, %s, %s, %s, %s, %s)", given)
        found = cursor.execute("SELECT * FROM v").fetchone()
    assert found == (True, moment.date(), moment.time(), moment, moment, "1.10")


def test_introspection_sees_the_tables_columns_and_constraints(chain_file):
    look = connections["chain"].introspection
    with connections["chain"].cursor() as cursor:
        assert set(look.table_names(cursor)) == {
            "chain_block", "chain_log", "chain_signedtransaction", "django_migrations"
        }  # fmt: skip
        columns = [each.name for each in look.get_table_description(cursor, "chain_block")]
        found = look.get_constraints(cursor, "chain_log")
        relations = look.get_relations(cursor, "chain_log")
    assert columns == ["number", "hash", "parent", "timestamp"]
    assert found["log_once_per_block"]["unique"] is True
    assert relations["block_id"][:2] == ("number", "chain_block")


def test_migrations_go_back_and_forth_and_alter_tables_that_hold_rows(chain_file):
    chain_file.plant()
    field = models.IntegerField(default=7)
    field.set_attributes_from_name("added")
    with connections["chain"].schema_editor() as editor:
        editor.add_field(Block, field)
    with connections["chain"].cursor() as cursor:
        assert cursor.execute("SELECT DISTINCT added FROM chain_block").fetchall() == [(7,)]
    with connections["chain"].schema_editor() as editor:
        editor.remove_field(Block, field)
    assert Log.objects.filter(block__number=3).count() == 1
    applied = MigrationRecorder(connections["chain"]).applied_migrations()
    assert ("chain", "0001_initial") in applied
    call_command("migrate", "chain", "zero", database="chain", verbosity=0)
    assert "chain_block" not in connections["chain"].introspection.table_names()
    chain_file.migrate()
    assert Block.objects.count() == 0


def test_a_failed_migration_leaves_nothing_behind(chain_file):
    def migrate():
        with connections["chain"].schema_editor(atomic=True) as editor:
            editor.execute("CREATE TABLE half (a)")
            editor.execute("CREATE TABLE half (a)")

    with pytest.raises(DatabaseError, match="already exists"):
        migrate()
    assert "half" not in connections["chain"].introspection.table_names()


def test_many_connections_write_at_once_and_lose_nothing(chain_file, in_threads):
    chain_file.plant()

    def add(_):
        for _ in range(20):
            with transaction.atomic(using="chain"):  # IMMEDIATE: read, then write, is one step
                block = Block.objects.get(number=0)
                block.timestamp += 1
                block.save(update_fields=["timestamp"])

    in_threads(add, 6)
    assert Block.objects.get(number=0).timestamp == 121


def test_readers_are_not_held_up_by_an_open_write(chain_file, in_threads):
    chain_file.plant()
    with transaction.atomic(using="chain"):
        _block(50)
        assert in_threads(lambda _: Block.objects.count(), 2) == [5, 5]
    assert Block.objects.count() == 6


def test_who_opens_a_file_that_is_being_replaced_is_told_to_try_again(chain_file, monkeypatch):
    db.shutdown_db()
    inodes = iter((1, 2))
    monkeypatch.setattr(driver, "make_private", lambda _: next(inodes))
    with pytest.raises(OperationalError, match="was replaced while it was opened"):
        Block.objects.count()
    assert connections["chain"].connection is None


def test_a_database_in_memory_works_without_a_key(chain_file):
    chain_file.key.unlink()
    with closing(driver.connect(":memory:", None)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
