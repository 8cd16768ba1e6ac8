"""Counts in PostgreSQL, shared by all processes that use the database; the extra `postgres` (psycopg 3).

Rules:
    - One decision is one statement on a connection of the store's own, in a transaction of its own: what the
      request does, and undoes, has no part in it.
    - Time is the server's, so nobody's clock but that one counts.
    - The table is unlogged unless told otherwise: it survives a restart, and not a crash.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:  # pragma: no cover - the tests have it
    raise ImportError(
        f"resilience.stores.postgres needs psycopg 3 and libpq ({error}): "
        "pip install 'resilience-py[postgres]' 'psycopg[binary]'"
    ) from error

from resilience._core.counting import Charge
from resilience._core.quota import Quota, counter_of
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.stores.postgres.engines import AsyncPostgresEngine, PostgresEngine
from resilience.stores.postgres.pools import AsyncLentPool, AsyncOwnPool, LentPool, OwnPool
from resilience.stores.postgres.schema import SCHEMA, create_schema
from resilience.stores.remote import TIMEOUT, AsyncRemote, Remote

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.breaker import CircuitBreaker
    from resilience.clock import Clock

__all__ = ["SCHEMA", "AsyncPostgresStore", "PostgresStore", "create_schema"]

_CONNECT_TIMEOUT: Final = 5
"""Seconds after which making a connection is given up, unless the URL tells; no call waits so long."""

_CHECK: Final = Charge(counter_of("check", Quota(1_000_000, per=1.0, algorithm="gcra")), "check")
"""What `check` counts: more than anybody could use up."""

_PATIENCE: Final = 0.8
"""The part of the timeout for which the server may wait for a lock: its answer must still arrive in time."""


class PostgresStore(Remote):
    """Counts in PostgreSQL, for threads.

    Args:
        database: A connection string: `"postgresql://user@host/name"`, or `"host=… dbname=…"`; or a
            `psycopg_pool.ConnectionPool`, which stays the application's to open and close.
        timeout: Seconds that a call takes at most, above 0 and up to 60.
        max_connections: How many connections of its own the store may have; made as needed, and kept.
        prepare: Whether statements are prepared. False behind a pooler that gives each transaction another
            server connection and knows nothing of prepared statements, as PgBouncer before 1.21.
        remember_refusals: Seconds for which a refusal is answered without asking again, at most, whatever
            time was told; 0 asks each time.
        breaker: What rejects calls while the server is out of reach; one of its own where left out.
        clock: What waiting and the timeout are counted on; decisions are made by the server's clock.

    Raises:
        TypeError, ValueError: An argument is none, or out of its range.

    Nothing is connected to before the first call. Threads may share it, and it survives a fork: the child
    makes connections of its own. Close it, or use it as a context manager.

    Example:
        >>> store = PostgresStore("postgresql://limits@db.internal/shop", timeout=0.1)
        >>> store
        <PostgresStore on postgresql://db.internal/shop>
        >>> store.close()
    """

    def __init__(
        self,
        database: Any,
        *,
        timeout: float = TIMEOUT,
        max_connections: int = 4,
        prepare: bool = True,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        size = count("max_connections", max_connections, least=1)
        what, connect = _database(database)
        pool = (
            LentPool(database, what, prepare=prepare)
            if connect is None
            else OwnPool(connect, what, size, prepare=prepare)
        )
        super().__init__(
            PostgresEngine(pool, what, _patience(timeout), clock.now),
            what,
            timeout=timeout,
            remember_refusals=remember_refusals,
            breaker=breaker,
            clock=clock,
        )

    def check(self) -> None:
        """Ask all that a limiter ever asks, so that a missing schema or right shows now.

        Raises:
            StoreUnavailable: The server is out of reach, or refuses a question; it says what to do.
        """
        self.take([_CHECK])
        self.holding([_CHECK.counter], 1)
        self.reset([_CHECK.counter], _CHECK.key)


class AsyncPostgresStore(AsyncRemote):
    """Counts in PostgreSQL, for tasks of any number of event loops.

    The arguments are those of `PostgresStore`, with a `psycopg_pool.AsyncConnectionPool` for a pool. A call
    that is cancelled leaves at once and closes its connection, on which an answer might still come.

    Example:
        >>> store = AsyncPostgresStore("postgresql://limits@db.internal/shop", max_connections=2)
    """

    def __init__(
        self,
        database: Any,
        *,
        timeout: float = TIMEOUT,
        max_connections: int = 4,
        prepare: bool = True,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        size = count("max_connections", max_connections, least=1)
        what, connect = _database(database)
        pool = (
            AsyncLentPool(database, what, prepare=prepare)
            if connect is None
            else AsyncOwnPool(connect, what, size, prepare=prepare)
        )
        super().__init__(
            AsyncPostgresEngine(pool, what, _patience(timeout), clock.now),
            what,
            timeout=timeout,
            remember_refusals=remember_refusals,
            breaker=breaker,
            clock=clock,
        )

    async def check(self) -> None:
        """Ask all that a limiter ever asks, so that a missing schema or right shows now.

        Raises:
            StoreUnavailable: The server is out of reach, or refuses a question; it says what to do.
        """
        await self.take([_CHECK])
        await self.holding([_CHECK.counter], 1)
        await self.reset([_CHECK.counter], _CHECK.key)


def _database(database: Any) -> tuple[str, Callable[[], psycopg.Connection[Any]] | None]:
    """Return what the database is called in messages, and what connects to it: None for a pool.

    Raises:
        TypeError: It is neither a connection string nor a pool.
        ValueError: The string cannot be read.
    """
    if not isinstance(database, str):
        if not hasattr(database, "getconn"):
            raise TypeError(
                f"a PostgreSQL store needs a connection string or a psycopg_pool pool, not {database!r}"
            )
        return _called(getattr(database, "conninfo", "")), None
    called = _called(database)
    told = conninfo_to_dict(database)
    ours: dict[str, Any] = {"connect_timeout": _CONNECT_TIMEOUT, "fallback_application_name": "resilience"}
    conninfo = make_conninfo("", **(ours | told))
    return called, partial(psycopg.Connection.connect, conninfo, autocommit=True)


def _called(conninfo: str) -> str:
    """Return host and name of the database, and nothing secret."""
    try:
        told = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # Not the string itself, nor the error, which may repeat it: there may be a password in it.
        raise ValueError(
            "the connection string cannot be read: write it as postgresql://user:password@host:port/name, "
            "with what is special in user or password percent-encoded"
        ) from None
    port = told.get("port")
    host = told.get("host") or told.get("hostaddr") or "localhost"
    return f"postgresql://{host}{f':{port}' if port else ''}/{told.get('dbname') or ''}"


def _patience(timeout: float) -> int:
    """Return the milliseconds for which the server may wait for a lock."""
    return max(1, int(number("timeout", timeout, above=0, most=60) * _PATIENCE * 1000))
