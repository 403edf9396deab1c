import json
import os
import shutil
import signal
import socket
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aitbc import stack
from aitbc.stack import process
from aitbc.stack.anvil import Anvil
from aitbc.stack.errors import StackError
from aitbc.stack.paths import Var


def pids(services=stack.SERVICES) -> dict[str, int | None]:
    return {service.name: service.pid for service in stack.status(services)}


def servers_of(var) -> list[str]:
    """Command lines of everything that runs on this folder, whoever started it."""
    running = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [command(entry) for entry in running if process.identify(int(entry.name)) and uses(entry, var.root)]


def uses(entry: Path, root: Path) -> bool:
    try:
        return Path(os.readlink(entry / "cwd")).is_relative_to(root) or str(root) in command(entry)
    except (FileNotFoundError, PermissionError):  # it ended meanwhile, or is no process of ours
        return False


def command(entry: Path) -> str:
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_up_starts_all_of_it_healthy_twice_is_the_same_and_down_stops_it(var):
    first = stack.up()
    again = stack.up()

    assert [service.name for service in first] == ["postgres", "redis", "anvil"]
    assert all(service.healthy and service.running for service in first)
    assert again == first

    stack.down()
    stack.down()

    assert [service.running for service in stack.status()] == [False, False, False]
    assert servers_of(var) == []


def test_discover_before_the_first_start_tells_where_the_servers_will_be(var):
    before = stack.discover()
    assert list(var.run.parent.glob("run")) == []

    stack.up()

    assert stack.discover() == before
    with psycopg.connect(before.database_url) as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == ("aitbc_app", "aitbc")
    with redis.Redis.from_url(before.redis_url) as client:
        assert client.ping() is True


def test_data_is_kept_across_a_restart_and_ports_stay(var):
    stack.up()
    urls = stack.discover()
    with psycopg.connect(urls.database_owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    with redis.Redis.from_url(urls.redis_url) as client:
        client.set("kept", "7")
    chain = chain_of(var)
    chain.call("evm_mine")
    head = chain.call("eth_getBlockByNumber", "latest", False)["hash"]

    stack.down()
    stack.up()

    assert stack.discover() == urls
    with psycopg.connect(urls.database_owner_url) as connection:
        assert connection.execute("select n from kept").fetchone() == (7,)
    with redis.Redis.from_url(urls.redis_url) as client:
        assert client.get("kept") == b"7"
    assert chain_of(var).call("eth_getBlockByNumber", "latest", False)["hash"] == head


def chain_of(var) -> Anvil:
    return Anvil.of(var)


def test_after_kill_9_of_everything_the_next_up_recovers(var):
    stack.up()
    urls = stack.discover()
    with psycopg.connect(urls.database_owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    for pid in [*pids().values(), process.running(chain_of(var).watched)]:
        os.kill(pid, signal.SIGKILL)
    assert process.wait_for(lambda: set(pids().values()) == {None}, seconds=5)

    assert all(service.healthy for service in stack.up())

    with psycopg.connect(urls.database_owner_url) as connection:
        assert connection.execute("select n from kept").fetchone() == (7,)


def test_a_lost_pid_file_of_a_running_database_is_found_again(var):
    stack.up(["postgres"])
    pid = pids(["postgres"])["postgres"]
    (var.run / "postgres.pid").unlink()

    stack.up(["postgres"])

    assert pids(["postgres"])["postgres"] == pid


def test_a_checkout_at_the_place_of_a_removed_one_never_meets_its_running_database(make_var, monkeypatch):
    """A path too long for a socket, or closed to the server's user, has its socket outside the folder."""
    var = Var(root=make_var().root.parent / ("long" * 22) / "var")
    monkeypatch.setenv("AITBC_VAR", str(var.root))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    stack.up(["postgres"])
    old = pids(["postgres"])["postgres"]
    with psycopg.connect(stack.discover().database_owner_url) as connection:
        connection.execute("create table kept as select 7 as n")
    shutil.rmtree(var.root)

    stack.up(["postgres"])
    try:
        assert pids(["postgres"])["postgres"] not in (old, None)
        assert process.identify(old) is None
        with psycopg.connect(stack.discover().database_owner_url) as connection:
            assert connection.execute("select to_regclass('kept')").fetchone() == (None,)
            data = connection.execute("show data_directory").fetchone()
        assert data == (str(var.root / "postgres" / "data"),)
    finally:
        stack.destroy()


def test_a_stale_postmaster_pid_that_names_a_stranger_does_not_stop_the_start(var):
    stack.up(["postgres"])
    data = Path(json.loads(var.memory.read_text())["postgres"]["data"])
    left = (data / "postmaster.pid").read_text().split("\n")
    stack.down(["postgres"])
    (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *left[1:]]))

    assert stack.up(["postgres"])[0].healthy


def test_the_roles_are_an_owner_and_a_plain_login(var):
    stack.up(["postgres"])

    with psycopg.connect(stack.discover().database_owner_url) as connection:
        roles = connection.execute(
            "select rolname, rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname like 'aitbc%' order by 1"
        ).fetchall()
        settings = connection.execute(
            "select name, setting from pg_settings where name in "
            "('fsync', 'listen_addresses', 'max_connections', 'server_version_num', 'synchronous_commit') "
            "order by 1"
        ).fetchall()
    assert roles == [("aitbc_app", False, False, False), ("aitbc_owner", True, True, True)]
    assert [value for _, value in settings][:3] == ["on", "", "200"]
    assert int(settings[3][1]) // 10_000 == 18
    assert settings[4] == ("synchronous_commit", "on")


def test_the_sockets_folder_is_the_servers_users_alone(var):
    stack.up(["postgres"])

    folder = Path(json.loads(var.memory.read_text())["postgres"]["socket"])
    assert folder.stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert folder.owner() == "aitbc-postgres"


def test_redis_wants_the_password_and_no_command_line_shows_it(var):
    stack.up(["redis"])
    port = int(json.loads(var.memory.read_text())["redis"]["port"])
    password = (var.keys / "redis.password").read_text()

    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert len(servers_of(var)) == 1
    assert password not in servers_of(var)[0]


def test_a_taken_port_is_given_up_for_another_one(var):
    wanted = int(stack.discover().redis_url.rpartition(":")[2].split("/")[0])
    with socket.create_server(("127.0.0.1", wanted)):
        stack.up(["redis"])

        port = int(json.loads(var.memory.read_text())["redis"]["port"])
        assert port != wanted
        assert stack.discover().redis_url.endswith(f"@127.0.0.1:{port}/0")


def test_two_folders_side_by_side_share_nothing(make_var, monkeypatch):
    found = []
    for made in (make_var(), make_var()):
        monkeypatch.setenv("AITBC_VAR", str(made.root))
        stack.up()
        urls = stack.discover()
        with psycopg.connect(urls.database_owner_url) as connection:
            connection.execute("create table mine()")  # would exist already in a shared database
        found.append((urls, set(pids().values())))

    (first, first_pids), (second, second_pids) = found
    assert not first_pids & second_pids
    assert not {*vars(first).values()} & {*vars(second).values()}


def test_two_starts_at_once_start_one_set_of_servers(var, run_python):
    code = "from aitbc import stack; print([s.pid for s in stack.up(['postgres', 'redis'])])"
    racers = [run_python(code) for _ in range(3)]

    answers = {racer.communicate()[0] for racer in racers}

    assert {racer.returncode for racer in racers} == {0}
    assert len(answers) == 1
    assert str(list(pids(["postgres", "redis"]).values())) == answers.pop().strip()


def test_an_interrupted_start_leaves_nothing_running(var, run_python):
    # Ctrl-C where the database runs and Redis does not yet; sent from outside it may come after the start.
    starter = run_python(
        "import signal\n"
        "from aitbc import stack\n"
        "from aitbc.stack.redis import Redis\n"
        "Redis.start = lambda *given, **options: signal.raise_signal(signal.SIGINT)\n"
        "stack.up()"
    )
    _, said = starter.communicate()

    assert starter.returncode != 0
    assert "KeyboardInterrupt" in said
    assert (var.run / "postgres").exists()
    assert process.wait_for(lambda: servers_of(var) == [], seconds=20)
    assert set(pids().values()) == {None}


def test_owned_servers_end_with_their_parent_even_by_kill_9(var, run_python):
    parent = run_python(
        "import time; from aitbc import stack; stack.up(owned=True); print('up', flush=True); time.sleep(600)"
    )
    assert parent.stdout.readline() == "up\n"
    assert None not in pids().values()

    parent.kill()
    parent.communicate()

    assert process.wait_for(lambda: servers_of(var) == [], seconds=20)
    assert all(service.healthy for service in stack.up())


def test_a_failed_start_stops_what_it_started_and_shows_the_log(var, monkeypatch):
    aof = var.root / "redis" / "appendonly.aof"
    aof.parent.mkdir(parents=True)
    aof.write_text("this is no redis protocol\n")

    with pytest.raises(StackError, match=r"(?s)redis ended while starting.*redis\.log.*Bad file format"):
        stack.up()

    assert servers_of(var) == []
    assert aof.read_text() == "this is no redis protocol\n"


def test_a_cluster_of_another_version_is_refused_and_left_alone(var):
    stack.up(["postgres"])
    data = Path(json.loads(var.memory.read_text())["postgres"]["data"])
    stack.down()
    (data / "PG_VERSION").write_text("17\n")

    with pytest.raises(StackError, match=r"is of PostgreSQL 17, the server is 18"):
        stack.up(["postgres"])

    assert (data / "global" / "pg_control").exists()


def test_a_half_made_cluster_is_made_anew(var):
    stack.up(["postgres"])
    data = Path(json.loads(var.memory.read_text())["postgres"]["data"])
    stack.down()
    data.rename(data.with_name("data.new"))

    assert stack.up(["postgres"])[0].healthy


def test_an_unknown_service_is_refused(var):
    with pytest.raises(StackError, match="unknown service mysql"):
        stack.up(["mysql"])
