"""The database: SQLAlchemy Core on SQLite or PostgreSQL, one set of statements for both.

Why SQLAlchemy Core: the statements are written once, and checked against the tables, for a file on a bare
machine and for a server; its pool survives a server's restart. Why synchronous: a transaction is one plain
function of a connection, run whole on one of a few threads, so that no transaction stays open across an
`await`, and both shells run the same one.

Each piece of work is for one tenant, or says that it is for all by `tenant=EVERY`. On PostgreSQL the rows of
other tenants are then out of reach even for a statement that forgets to ask for its own.

No transaction waits for ever. A server that is halted, or a network that swallows everything, says nothing:
no timeout of the server's own ends such a wait, so the client has one too. While the database is away, all
work ends in a `ServiceError` of status 503.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

import alembic.command
import alembic.config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, delete, event, make_url, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from resilience import ErrorCode, service_unavailable_error
from resilience.http import to_service_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import ColumnElement, Connection, Engine, Table
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SQLiteInsert

    from examples.backend.ports.workers import Workers

T = TypeVar("T")

logger: Final = logging.getLogger("backend.database")

EVERY: Final = "*"
"""In place of a tenant's id: work that must see the rows of all, such as looking up who logs in."""
BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait while somebody else writes, in this process or in another."""
STATEMENT_TIMEOUT: Final = 5.0
"""Seconds that PostgreSQL gives one statement."""
ANSWER_WITHIN: Final = STATEMENT_TIMEOUT + 1.0
"""Seconds after which a server that has not even said so is given up."""
RETRY_AFTER: Final = 1.0
"""Seconds after which it is worth asking again."""
BATCH: Final = 2000
"""Rows that one transaction deletes, when many are to be: eight milliseconds or so."""
LOCK_FOR_MIGRATIONS: Final = 7_205_759
"""A number of ours for PostgreSQL's advisory locks: one process migrates, the others wait for it."""


class Database:
    """Runs transactions.

    Args:
        url: Of SQLite or PostgreSQL, as SQLAlchemy writes it; `postgresql://` is taken as psycopg's.
        workers: Who waits for the database.
        connections: How many are open at most.
    """

    def __init__(self, url: str, workers: Workers, *, connections: int = 8) -> None:
        self.engine = connect(url, connections)
        self._workers = workers
        self._is_sqlite = self.engine.dialect.name == "sqlite"
        self._writing = threading.Lock()
        """SQLite has one writer at a time; those of this process wait here, and not by polling. Held for one
        transaction, which does nothing but statements, and waited for no longer than another process's."""

    async def read(self, work: Callable[[Connection], T], *, tenant: str) -> T:
        """Return what `work` returns, called with a connection inside one transaction that only reads."""
        return await self._workers.run(self._read, work, tenant)

    async def write(self, work: Callable[[Connection], T], *, tenant: str) -> T:
        """Return what `work` returns, called with a connection inside one transaction."""
        return await self._workers.run(self._write, work, tenant)

    async def prune(self, table: Table, old: ColumnElement[bool]) -> None:
        """Delete the rows that are `old`, whosever they are; some at a time, so that nobody waits long."""
        key = tuple_(*table.primary_key)
        some = delete(table).where(key.in_(select(*table.primary_key).where(old).limit(BATCH)))
        while await self.write(lambda db: db.execute(some).rowcount, tenant=EVERY) == BATCH:
            pass

    def close(self) -> None:
        """Finish what has begun, and close the connections."""
        self._workers.close()
        self.engine.dispose()

    def _read(self, work: Callable[[Connection], T], tenant: str) -> T:
        with _away_is_503(), self.engine.connect() as connection, connection.begin():
            self._enter(connection, tenant)
            return work(connection)

    def _write(self, work: Callable[[Connection], T], tenant: str) -> T:
        with (
            _away_is_503(),
            self._turn(),
            self.engine.connect() as connection,
            connection.execution_options(writes=True).begin(),
        ):
            self._enter(connection, tenant)
            return work(connection)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one write at a time, where there can be only one."""
        if not self._is_sqlite:
            yield
        elif self._writing.acquire(timeout=BUSY_TIMEOUT):
            try:
                yield
            finally:
                self._writing.release()
        else:
            raise service_unavailable_error("The database", RETRY_AFTER)

    def _enter(self, connection: Connection, tenant: str) -> None:
        """Tell PostgreSQL for whom this transaction is; it forgets it at the transaction's end."""
        if not self._is_sqlite:
            connection.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": tenant})


def connect(url: str, connections: int = 8) -> Engine:
    """Return an engine for `url`; it connects when it is first used."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed,
            pool_size=connections,
            connect_args={"timeout": BUSY_TIMEOUT},
            hide_parameters=True,  # what fails is logged, and must not take hashes and addresses along
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = f"-c statement_timeout={STATEMENT_TIMEOUT * 1000:.0f}"
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT,
        hide_parameters=True,
        execution_options={"preserve_rowcount": True},  # else no INSERT tells whether it met a conflict
        pool_pre_ping=True,  # a server that was restarted costs nobody an error
        connect_args={"connect_timeout": 2, "options": options, "application_name": "backend"},
    )
    event.listen(engine, "do_connect", _connect_impatiently)
    return engine


def migrate(url: str) -> None:
    """Bring the tables up to date. Any number of processes may begin with it at the same time.

    While a new version takes the place of an old one, process by process, an old one that starts once more
    finds newer tables, and leaves them alone. So each migration has to leave the version before it working.
    """
    engine = connect(url, 1)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                with connection.execution_options(writes=True).begin():
                    _upgrade(connection)
            else:
                with connection.begin():
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_FOR_MIGRATIONS}
                    )
                    _upgrade(connection)
    finally:
        engine.dispose()


def insert(connection: Connection, table: Table) -> SQLiteInsert | PostgresInsert:
    """Return an INSERT of this connection's dialect, for `on_conflict_do_nothing` and its like."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def alembic_config(connection: Connection | None = None) -> alembic.config.Config:
    """Return where alembic finds the migrations."""
    config = alembic.config.Config()
    config.set_main_option("script_location", "examples.backend:migrations")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    newer = set(MigrationContext.configure(connection).get_current_heads()) - known
    if newer:
        logger.warning("a newer version of the backend has laid out the tables: %s", ", ".join(newer))
    else:
        alembic.command.upgrade(config, "head")


@contextlib.contextmanager
def _away_is_503() -> Iterator[None]:
    """Say in one word what a driver has many for: that the database cannot be asked now."""
    try:
        yield
    except SQLAlchemyError as error:
        if to_service_error(error).status == ErrorCode.SERVICE_UNAVAILABLE.status:
            raise service_unavailable_error("The database", RETRY_AFTER) from error
        raise


def _connect_impatiently(_dialect: object, _record: object, cargs: Any, cparams: Any) -> Any:
    """Connect to PostgreSQL, and wait for none of its answers for ever."""
    return _impatient().connect(*cargs, **cparams)


@functools.cache
def _impatient() -> Any:
    """Return psycopg's connection, but for one that gives an answer up after a while, and itself with it."""
    import psycopg  # noqa: PLC0415 - only those who use it need psycopg

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().wait(gen, *args, **{"timeout": ANSWER_WITHIN} | kwargs)
            except psycopg.OperationalError as error:
                if self.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                    raise
                self.pgconn.finish()  # nobody knows what it may still answer
                raise psycopg.errors.ConnectionTimeout("the server does not answer") from error

    return Impatient


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a crash may lose, never tear
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once where it will be needed: two readers that both turn writers deadlock."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
