"""pytest plugin: real PostgreSQL and Redis, a test database with the application's lesser role, fixed people.

Loaded by pyproject's addopts. `db` (pytest-django) rolls back; `committed_db` commits for tests with
several connections or processes, and empties the tables afterwards through the owner's role.
"""

import os
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

        stack.up(services=("postgres", "redis"))


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Create and migrate as the owner, then point the application's role at the same database."""
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    name = f"test_aitbc_{worker}{os.getpid()}"
    with django_db_blocker.unblock():
        _recreate(name)
        for alias in ("owner", "default"):
            connections[alias].close()
            connections[alias].settings_dict["NAME"] = name
            settings.DATABASES[alias]["NAME"] = name
        chain = tmp_path_factory.mktemp("chain") / "chain.db"
        connections["chain"].close()
        connections["chain"].settings_dict["NAME"] = str(chain)
        settings.DATABASES["chain"]["NAME"] = str(chain)
        call_command("migrate", verbosity=0, interactive=False)
        connections.close_all()
    yield
    with django_db_blocker.unblock():
        connections.close_all()
        _drop(name)


def _admin() -> Any:
    import psycopg
    from django.conf import settings

    return psycopg.connect(settings.DATABASE_OWNER_URL, autocommit=True)


def _recreate(name: str) -> None:
    with _admin() as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{name}"')


def _drop(name: str) -> None:
    with _admin() as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


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
        gate = threading.Barrier(n)

        def one(index: int) -> Any:
            gate.wait()
            try:
                return function(index)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(n) as pool:
            return list(pool.map(one, range(n)))

    return run
