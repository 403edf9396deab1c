import json
import threading

import pytest

from aitbc.stack import paths
from aitbc.stack.errors import StackError


def test_the_folder_is_that_of_the_environment_or_var_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("AITBC_VAR", str(tmp_path))
    assert paths.current().root == tmp_path

    monkeypatch.setenv("AITBC_VAR", "")
    assert paths.current().root == paths.REPOSITORY / "var"

    monkeypatch.delenv("AITBC_VAR")
    assert paths.current().root == paths.REPOSITORY / "var"


def test_keys_and_logs_are_the_owners_alone_whatever_the_umask(tmp_path):
    var = paths.Var(root=tmp_path / "var")

    var.create()

    modes = {path.name: path.stat().st_mode & 0o777 for path in (var.root, var.run, var.log, var.keys)}
    assert modes == {"var": 0o711, "run": 0o711, "log": 0o700, "keys": 0o700}


def test_a_folder_that_was_there_is_opened_for_passing_and_keeps_its_other_rights(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    tmp_path.chmod(0o1777)

    paths.Var(root=tmp_path).create()

    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "keys").stat().st_mode & 0o7777 == 0o700


def test_a_secret_is_made_once_even_by_many_at_once(tmp_path):
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(paths.secret(tmp_path / "keys" / "it"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 43
    assert (tmp_path / "keys" / "it").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["it"]


def test_what_is_remembered_is_recalled_and_the_rest_kept(tmp_path):
    memory = tmp_path / "stack.json"
    paths.remember(memory, "redis", {"port": 1})
    paths.remember(memory, "postgres", {"socket": "/s"})
    paths.remember(memory, "redis", {"port": 2})

    assert paths.recall(memory, "redis") == {"port": 2}
    assert paths.recall(memory, "postgres") == {"socket": "/s"}
    assert paths.recall(memory, "anvil") == {}
    assert json.loads(memory.read_text()) == {"redis": {"port": 2}, "postgres": {"socket": "/s"}}


def test_a_damaged_memory_is_refused_by_name(tmp_path):
    (tmp_path / "stack.json").write_text("{")

    with pytest.raises(StackError, match=r"stack\.json is not valid JSON"):
        paths.recall(tmp_path / "stack.json", "redis")


def test_a_lock_is_held_by_one_and_freed_at_the_end(tmp_path):
    with paths.locked(tmp_path / "lock", seconds=1):
        with pytest.raises(StackError, match="another process has held"), paths.locked(tmp_path / "lock", seconds=0.1):
            pytest.fail("two held it")
    with paths.locked(tmp_path / "lock", seconds=0):
        pass
