"""pytest plugin: real PostgreSQL and Redis, a test database with the application's lesser role, fixed people.

Loaded by pyproject's addopts. `db` (pytest-django) rolls back; `committed_db` commits for tests with
several connections or processes, and empties the tables afterwards through the owner's role.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aitbc.settings.test")


def pytest_configure(config: pytest.Config) -> None:
    """The stores must run before Django's settings ask where they are."""
    if not os.environ.get("DATABASE_URL"):
        from aitbc import stack

        stack.up(("postgres", "redis"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A copy of the migrated template; the application's role is pointed at the same database."""
    name = f"test_aitbc_{os.environ.get('PYTEST_XDIST_WORKER', '')}{os.getpid()}"
    chain = tmp_path_factory.mktemp("chain") / "chain.db"
    with django_db_blocker.unblock():
        template, chain_template = _templates()
        with _admin() as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        shutil.copyfile(chain_template, chain)
        _point_at(name, chain)
    yield
    with django_db_blocker.unblock():
        _point_at(name, chain)
        with _admin() as admin:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _templates() -> tuple[str, Path]:
    """The databases as the migrations of this working tree make them: built once per state of the tree."""
    from django.conf import settings

    state = _fingerprint()
    template, chain = f"test_template_{state}", settings.VAR_DIR / "test" / f"chain-{state}.db"
    with _admin() as admin:
        admin.execute("SELECT pg_advisory_lock(hashtextextended('test template', 0))")
        known = admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (template,)).fetchone()
        if known is None or not chain.exists():
            _build(admin, template, chain)
    return template, chain


def _fingerprint() -> str:
    root = Path(__file__).resolve().parents[3]
    digest = hashlib.sha256()
    for pattern in ("*/**/migrations/*.py", "*/**/sql/*.sql", "aitbc/core/management/commands/migrate.py"):
        for file in sorted(root.glob(pattern)):
            if "node_modules" not in file.parts:
                digest.update(file.read_bytes())
    digest.update((root / "aitbc/accounts/parameters.py").read_bytes())
    return digest.hexdigest()[:16]


def _build(admin: Any, template: str, chain: Path) -> None:
    from django.core.management import call_command

    draft = f"{template}_draft"
    admin.execute(f'DROP DATABASE IF EXISTS "{draft}" WITH (FORCE)')
    admin.execute(f'DROP DATABASE IF EXISTS "{template}" WITH (FORCE)')
    admin.execute(f'CREATE DATABASE "{draft}"')
    chain.parent.mkdir(parents=True, exist_ok=True)
    chain.unlink(missing_ok=True)
    _point_at(draft, chain.with_suffix(".draft"))
    chain.with_suffix(".draft").unlink(missing_ok=True)
    call_command("migrate", verbosity=0, interactive=False)
    _fold_wal()
    _close_all()
    os.replace(chain.with_suffix(".draft"), chain)
    admin.execute(f'ALTER DATABASE "{draft}" RENAME TO "{template}"')


def _point_at(name: str, chain: Path) -> None:
    from django.conf import settings
    from django.db import connections

    _close_all()
    for alias, target in (("owner", name), ("default", name), ("chain", str(chain))):
        connections[alias].settings_dict["NAME"] = target
        settings.DATABASES[alias]["NAME"] = target


def _close_all() -> None:
    from django.db import connections

    connections.close_all()


def _fold_wal() -> None:
    from aitbc.core.db import shutdown_db

    shutdown_db("chain")


def _admin() -> Any:
    import psycopg
    from django.conf import settings

    return psycopg.connect(settings.DATABASE_OWNER_URL, autocommit=True)


@pytest.fixture
def committed_db(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Real commits; afterwards every table is emptied and the seeds are put back."""
    from django.db import connections

    from aitbc.core.management.commands.migrate import seed

    with django_db_blocker.unblock():
        yield
        empty_tables()
        seed()
        connections.close_all()


def empty_tables() -> None:
    """TRUNCATE as the owner, with the append-only triggers off: tests alone may do this."""
    from django.db import connections

    with connections["owner"].cursor() as cursor:
        cursor.execute(
            """SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'
                AND tablename NOT IN ('django_migrations', 'django_content_type', 'auth_permission')"""
        )
        tables = ", ".join(name for (name,) in cursor.fetchall())
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        cursor.execute("SET session_replication_role = origin")
    with connections["chain"].cursor() as cursor:
        for table in connections["chain"].introspection.table_names(cursor):
            if table != "django_migrations":
                cursor.execute(f'DELETE FROM "{table}"')


@pytest.fixture
def keys_dir(settings: Any, tmp_path: Path) -> Path:
    settings.KEYS_DIR = tmp_path / "keys"
    return tmp_path / "keys"


@pytest.fixture
def in_threads() -> Callable[..., list[Any]]:
    """Run a function n times at once, each on a database connection of its own; results in order."""
    from django.db import connections

    def run(function: Callable[[int], Any], n: int) -> list[Any]:
        gate = threading.Barrier(n, timeout=60)

        def one(index: int) -> Any:
            try:
                connections["default"].ensure_connection()  # so that all start at once, not one by one
                gate.wait()
                return function(index)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(n) as pool:
            return list(pool.map(one, range(n)))

    return run
