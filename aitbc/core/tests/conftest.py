import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from aitbc.core.db import shutdown_db
from aitbc.core.sqlcipher import keys
from aitbc.core.tests.cipherfile import ChainFile


def _use(file: ChainFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the alias `chain` of this process, in all its threads."""
    connections["chain"].close()
    monkeypatch.setitem(connections["chain"].settings_dict, "NAME", str(file.path))


@pytest.fixture(scope="session")
def migrated_chain_file(tmp_path_factory: Any, django_db_blocker: Any) -> ChainFile:
    """Encrypted by migrating it; copied for each test, since that takes its time."""
    file = ChainFile(tmp_path_factory.mktemp("template"))
    file.path.parent.mkdir(parents=True)
    keys.generate(file.key)
    on = override_settings(DB_ENCRYPTION_ENABLED=True, DB_ENCRYPTION_KEY_PATH=str(file.key))
    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as monkeypatch, on:
        _use(file, monkeypatch)
        file.migrate()
        shutdown_db()
    return file


@pytest.fixture
def chain_file(
    migrated_chain_file: ChainFile, tmp_path: Path, settings: Any, monkeypatch: Any, django_db_blocker: Any
) -> Iterator[ChainFile]:
    """The alias `chain` on an encrypted file of this test's own, with its key."""
    file = ChainFile(tmp_path / "var")
    shutil.copytree(migrated_chain_file.var, file.var)
    settings.DB_ENCRYPTION_ENABLED, settings.DB_ENCRYPTION_KEY_PATH = True, str(file.key)
    with django_db_blocker.unblock():
        _use(file, monkeypatch)
        yield file
        connections["chain"].close()
