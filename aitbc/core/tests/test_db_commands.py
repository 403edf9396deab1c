"""`db_encrypt`, `db_decrypt`, `db_rekey`, `db_check`, `db_generate_key`: verified, refused while in use, and
after `kill -9` at any step the data is there and nothing lies about in the clear."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from aitbc.chain.models import Log
from aitbc.core import db
from aitbc.core.sqlcipher import driver, keys
from aitbc.core.tests.cipherfile import ROOT, run

# Dies, as by a power cut, before the n-th call of a named function, or in the midst of the export.
DIE = """
import os, pathlib, signal, sys
import django
django.setup()
from aitbc.core.sqlcipher import conversion, keys

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name, number):
    original, calls = getattr(owner, name), []
    def counted(*arguments, **named):
        calls.append(name)
        if len(calls) == number:
            die()
        return original(*arguments, **named)
    setattr(owner, name, counted)

def in_the_export(steps):
    original = conversion._copy
    def copy(source, draft, new):
        done = iter(range(steps))
        source.set_progress_handler(lambda: next(done, None) is None and die(), 1)
        return original(source, draft, new)
    conversion._copy = copy

point, number = os.environ["DIE_AT"].split(":")
owners = {"_take_alone": conversion, "_examine": conversion, "_copy": conversion, "sync": conversion,
          "generate": keys, "replace": pathlib.Path, "link": os}
in_the_export(int(number)) if point == "export" else before(owners[point], point, int(number))
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
COUNT = """
import django
django.setup()
from aitbc.chain.models import Log
print(Log.objects.count(), flush=True)
"""
CONVERT = (
    "_take_alone:1", "_examine:1", "_copy:1", "export:100", "export:1500",
    "sync:1", "_examine:2", "replace:1", "sync:2",
)  # fmt: skip
REKEY = ("generate:1", "link:1", *CONVERT, "link:2", "replace:2", "sync:3")


def die_at(file, point, command):
    env = file.environment(DIE_AT=point)
    done = run("-c", DIE, command, "--json", env=env)
    assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.stdout}{done.stderr}"


def command(name, **options):
    out = io.StringIO()
    call_command(name, as_json=True, stdout=out, **options)
    return json.loads(out.getvalue())


@pytest.fixture
def encrypted(chain_file):
    chain_file.plant()
    db.shutdown_db()
    return chain_file


@pytest.fixture
def plain(encrypted, settings):
    command("db_decrypt")
    settings.DB_ENCRYPTION_ENABLED = False
    return encrypted


def clean(file):
    """Nothing but the encrypted database with all its rows, as its own check finds as well."""
    db.shutdown_db()
    assert file.seen() == set()
    assert file.files() == {"chain.db"}
    assert file.rows(file.key) == 5
    file.path.with_name("chain.db-wal").unlink(missing_ok=True)


# -- what they do ------------------------------------------------------------------------------


def test_encrypting_keeps_every_row_and_leaves_nothing_in_the_clear(plain, settings):
    Log.objects.create(
        block_id=0, tx_hash="0x" + "ab" * 32, ordinal=1, log_index=1, address="0x" + "1" * 40, topics=[], data=""
    )
    with connections["chain"].cursor() as cursor:
        cursor.execute("ANALYZE")  # its tables are copied as well
    db.shutdown_db()
    before = command("db_check")
    assert (before["encrypted"], before["ok"], before["header"]) == (False, True, b"SQLite format 3\0".hex())

    found = command("db_encrypt")

    assert (found["changed"], found["encrypted"]) == (True, True)
    assert found["tables"] == before["tables"]
    assert found["tables"]["chain_log"]["rows"] == 6
    assert {"sqlite_master", "sqlite_sequence", "sqlite_stat1", "chain_block"} <= set(found["tables"])
    assert plain.seen() == set()
    assert plain.files() == {"chain.db"}
    settings.DB_ENCRYPTION_ENABLED = True
    after = command("db_check")
    assert (after["encrypted"], after["problems"], after["tables"]) == (True, [], before["tables"])
    assert Log.objects.count() == 6
    again = command("db_encrypt") if db.shutdown_db() is None else None
    assert (again["changed"], again["tables"]) == (False, before["tables"])


def test_rows_that_are_only_in_the_log_of_a_killed_process_are_encrypted_too(plain, tmp_path):
    with closing(driver.connect(str(plain.path), None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE chain_log SET data = 'changed'")
        connection.commit()
        crashed = {path.name: path.read_bytes() for path in plain.path.parent.iterdir()}
    for name in ("chain.db", "chain.db-wal"):
        plain.path.with_name(name).write_bytes(crashed[name])

    command("db_encrypt")

    assert plain.files() == {"chain.db"}
    with closing(driver.connect(str(plain.path), plain.key)) as connection:
        assert connection.execute("SELECT DISTINCT data FROM chain_log").fetchall() == [("changed",)]


def test_decrypting_and_encrypting_again_is_the_same_database(encrypted):
    before = command("db_check")["tables"]
    db.shutdown_db()
    assert command("db_decrypt")["tables"] == before
    assert encrypted.path.read_bytes()[:16] == b"SQLite format 3\0"
    assert encrypted.path.stat().st_mode & 0o777 == 0o600
    assert command("db_decrypt")["changed"] is False
    assert command("db_encrypt")["tables"] == before
    clean(encrypted)


def test_rekeying_changes_the_key_file_and_keeps_the_old_one_for_older_backups(encrypted):
    old = keys.read(encrypted.key)
    backup = encrypted.var / "backup.db"
    before = command("db_check", backup=str(backup))["tables"]
    db.shutdown_db()

    found = command("db_rekey")

    previous = encrypted.key.with_name("db_encryption.key.previous")
    assert (found["tables"], found["previous_key_file"]) == (before, str(previous))
    assert keys.read(previous) == old != keys.read(encrypted.key)
    assert not encrypted.key.with_name("db_encryption.key.new").exists()
    clean(encrypted)
    assert encrypted.rows(encrypted.key) == 5
    with pytest.raises(Exception, match="does not open"):
        driver.connect(str(encrypted.path), previous)
    driver.connect(str(backup), previous).close()


@pytest.mark.parametrize("name", ["db_encrypt", "db_decrypt", "db_rekey"])
def test_a_dry_run_checks_and_changes_nothing(encrypted, name):
    before = {path: path.read_bytes() for path in (encrypted.path, encrypted.key)}
    found = command(name, dry_run=True)
    assert (found["ok"], found["encrypted"], found["tables"]["chain_log"]["rows"]) == (True, True, 5)
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in encrypted.key.parent.iterdir()} == {"db_encryption.key"}


def test_a_dry_run_finds_a_faulty_key(plain):
    plain.key.write_bytes(b"")
    with pytest.raises(CommandError, match="is empty"):
        command("db_encrypt", dry_run=True)


def test_a_key_is_made_once_and_not_beside_a_database_that_needs_another(encrypted):
    kept = encrypted.key.read_bytes()
    encrypted.key.unlink()
    with pytest.raises(CommandError, match="is encrypted"):
        command("db_generate_key")
    assert not encrypted.key.exists()
    encrypted.path.unlink()
    assert command("db_generate_key") == {"key_file": str(encrypted.key)}
    assert len(encrypted.key.read_bytes()) == 32
    with pytest.raises(CommandError, match="File exists"):
        command("db_generate_key")
    assert encrypted.key.read_bytes() != kept


def test_they_say_so_when_there_is_no_database(chain_file):
    connections["chain"].close()
    chain_file.path.unlink()
    for name in ("db_encrypt", "db_decrypt", "db_rekey", "db_check"):
        with pytest.raises(CommandError, match=r"No such file.*chain\.db"):
            command(name)
    assert chain_file.files() == set()


def test_in_development_migrating_makes_the_key_of_a_new_database_and_of_no_other(encrypted):
    encrypted.path.unlink()
    encrypted.key.unlink()
    migrate = ("migrate", "--database", "chain", "-v", "0")
    made = encrypted.manage(*migrate, DB_ENCRYPTION_ENABLED="1")
    assert (made.returncode, made.stderr) == (0, "")
    assert (encrypted.key.stat().st_mode & 0o777, encrypted.key.stat().st_size) == (0o600, 32)
    assert encrypted.path.read_bytes()[:16] != b"SQLite format 3\0"
    encrypted.key.unlink()
    refused = encrypted.manage(*migrate, DB_ENCRYPTION_ENABLED="1")
    assert refused.returncode == 1
    assert f"the database key {encrypted.key} is missing" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not encrypted.key.exists()


def test_in_production_nobody_makes_a_key_unasked(encrypted, settings):
    settings.DEVELOPMENT = False
    encrypted.path.unlink()
    encrypted.key.unlink()
    with pytest.raises(CommandError, match="is missing"):
        call_command("migrate", database="chain", verbosity=0)
    assert not encrypted.key.exists()
    assert encrypted.files() == set()


# -- what they refuse --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["db_encrypt", "db_decrypt", "db_rekey"])
def test_refused_while_another_process_has_it_open_and_nothing_changes(encrypted, name):
    """The other one is idle: only its open connection stands in the way."""
    code = COUNT + "input()"
    env = encrypted.environment(DB_ENCRYPTION_ENABLED="1")
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == "5\n"
        before = encrypted.path.read_bytes()
        with pytest.raises(CommandError, match="open in another process: stop the platform"):
            command(name)
        assert encrypted.path.read_bytes() == before
        assert command("db_check")["ok"] is True  # which may be asked at any time
    finally:
        other.communicate("\n", timeout=20)
    db.shutdown_db()
    command(name)


def test_a_process_that_comes_meanwhile_waits_and_is_refused_the_old_file(plain, monkeypatch, in_threads):
    from aitbc.core.sqlcipher import conversion

    seen = []
    original = conversion._copy

    def copy(*arguments):
        original(*arguments)
        env = plain.environment(DB_ENCRYPTION_ENABLED="0")
        seen.append(subprocess.Popen([sys.executable, "-c", COUNT], cwd=ROOT, env=env, text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE))  # fmt: skip
        time.sleep(4)

    monkeypatch.setattr(conversion, "_copy", copy)
    command("db_encrypt")
    out, error = seen[0].communicate(timeout=60)
    assert (seen[0].returncode, out) == (1, "")
    assert "was replaced while it was opened" in error or "is encrypted (or damaged)" in error


def test_a_damaged_database_is_not_converted_and_the_check_names_the_page(encrypted):
    size = encrypted.path.stat().st_size
    with encrypted.path.open("r+b") as file:
        file.seek(size - 100)
        byte = file.read(1)[0]
        file.seek(size - 100)
        file.write(bytes([byte ^ 1]))
    before = encrypted.path.read_bytes()
    with pytest.raises(CommandError, match=r"cipher_integrity_check: HMAC verification failed for page \d+"):
        command("db_check")
    with pytest.raises(CommandError, match="damaged"):
        command("db_rekey")
    assert encrypted.path.read_bytes()[4096:] == before[4096:]


def test_a_copy_that_differs_is_thrown_away(plain, monkeypatch):
    from aitbc.core.sqlcipher import conversion

    original = conversion._copy

    def copy(source, draft, new):
        original(source, draft, new)
        with closing(driver.connect(str(draft), new)) as made:
            made.execute("DELETE FROM chain_log WHERE log_index = 0 AND block_id = 3")
            made.commit()

    monkeypatch.setattr(conversion, "_copy", copy)
    before = plain.path.read_bytes()
    with pytest.raises(CommandError, match="differs: nothing was changed"):
        command("db_encrypt")
    assert plain.path.read_bytes() == before
    assert plain.files() == {"chain.db"}


def test_the_check_finds_what_lies_about_in_the_clear(encrypted):
    leftover = encrypted.path.with_name("chain.db.draft")
    leftover.write_bytes(b"SQLite format 3\0" + b"..")
    with pytest.raises(CommandError, match=r"chain\.db\.draft is not encrypted: remove it"):
        command("db_check")
    command("db_encrypt") if db.shutdown_db() is None else None
    assert command("db_check")["ok"] is True


def test_a_backup_replaces_nothing_and_is_of_an_encrypted_database_only(encrypted, settings):
    there = encrypted.var / "there"
    there.write_bytes(b"something")
    with pytest.raises(CommandError, match="exists already"):
        command("db_check", backup=str(there))
    assert there.read_bytes() == b"something"
    db.shutdown_db()
    command("db_decrypt")
    settings.DB_ENCRYPTION_ENABLED = False
    with pytest.raises(CommandError, match="only an encrypted database is copied"):
        command("db_check", backup=str(encrypted.var / "new"))
    assert not (encrypted.var / "new").exists()


def test_no_command_takes_or_prints_a_secret(encrypted):
    said = []
    for name, options in (
        ("db_check", ()),
        ("db_rekey", ("--dry-run",)),
        ("db_rekey", ("--json",)),
        ("db_encrypt", ()),
    ):
        done = encrypted.manage(name, *options, DB_ENCRYPTION_ENABLED="1")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    secret = [
        encrypted.key.read_bytes().hex(),
        encrypted.key.with_name("db_encryption.key.previous").read_bytes().hex(),
    ]
    assert not [one for one in secret if one in "".join(said)]


# -- power cuts --------------------------------------------------------------------------------


@pytest.mark.parametrize("point", CONVERT)
def test_killed_while_encrypting(plain, point):
    die_at(plain, point, "db_encrypt")

    assert plain.seen() <= {"chain.db"}  # the draft, if there is one, tells nothing
    rest = command("db_encrypt")
    assert (rest["encrypted"], rest["tables"]["chain_log"]["rows"]) == (True, 5)
    clean(plain)


@pytest.mark.parametrize("point", REKEY)
def test_killed_while_rekeying(encrypted, point):
    old = keys.read(encrypted.key)
    die_at(encrypted, point, "db_rekey")

    assert encrypted.seen() == set()
    rest = command("db_rekey")
    assert (rest["encrypted"], rest["tables"]["chain_log"]["rows"]) == (True, 5)
    assert keys.read(encrypted.key) != old
    assert encrypted.key.with_name("db_encryption.key.previous").exists()
    clean(encrypted)


def test_between_the_two_renames_of_a_rekey_connecting_says_how_to_go_on(encrypted):
    die_at(encrypted, "replace:2", "db_rekey")
    with pytest.raises(Exception, match="a db_rekey was interrupted; run it again"):
        Log.objects.count()


@pytest.mark.parametrize("point", ["export:1500", "_examine:2", "replace:1", "sync:2"])
def test_killed_while_decrypting_what_was_in_the_clear_goes_when_encrypting(encrypted, point):
    die_at(encrypted, point, "db_decrypt")
    assert encrypted.seen() <= {"chain.db", "chain.db.draft"}
    command("db_encrypt")
    clean(encrypted)


def _killed_at_random(file, seed, rounds):
    """A real command and a real clock: it may be killed before it begins, or after it has ended."""
    chance = random.Random(seed)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    for _ in range(rounds):
        name = chance.choice(("db_encrypt", "db_rekey", "db_rekey"))
        process = subprocess.Popen(
            [sys.executable, "manage.py", name], cwd=ROOT, env=file.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(chance.uniform(0.3, 2.0))
        process.kill()
        process.wait()
        assert file.seen() == set()
        command("db_rekey")
        clean(file)


def test_killed_at_any_moment(encrypted):
    _killed_at_random(encrypted, random.randrange(2**32), 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_many_moments(encrypted):
    _killed_at_random(encrypted, int(os.environ.get("SEED", random.randrange(2**32))), 60)
