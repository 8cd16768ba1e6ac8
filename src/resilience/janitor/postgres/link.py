"""Transactions of a session store with PostgreSQL.

The rules:

- A call is one query, which is one transaction: its time limits, and then what it is about. So it costs one
  round trip, and a proxy that gives each transaction another connection may stand in between.
- It never takes part in a transaction of the application, whose rollback would bring a logout back.
- It ends within its time, by the server's limits where the server works, and by ours where it does not
  answer. Only to connect may take 2 seconds all the same, for each address: libpq knows no less.
- What another transaction has made fail (40001, 40P01) is repeated as a whole, twice at most. So is what was
  asked on a connection that had been lying idle and turned out to be lost. Each statement is made so that
  to repeat it does no harm. Nothing else is repeated.
- Every failure comes out as a `StoreUnavailable` that says what to do.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, LiteralString, Protocol, TypeVar

import psycopg
from psycopg import rows, waiting
from psycopg.pq import TransactionStatus

from resilience.checks import count, number
from resilience.janitor.postgres.call import Call
from resilience.janitor.postgres.connections import AsyncConnections, Connections, Server
from resilience.janitor.postgres.statements import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from psycopg.abc import PQGen

    from resilience.clock import Clock
    from resilience.janitor.postgres.connections import AsyncConnection, Connection

T = TypeVar("T")
Rows = list[tuple[Any, ...]]

_GLANCE: Final = 0.1  # seconds between two looks at the clock, while the server does not answer


class Pool(Protocol):
    """A pool of connections, such as `psycopg_pool.ConnectionPool`."""

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a connection to a block."""
        ...


class AsyncPool(Protocol):
    """A pool of connections for event loops, such as `psycopg_pool.AsyncConnectionPool`."""

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """Lend a connection to a block."""
        ...


class Link:
    """Asks PostgreSQL from threads. The arguments: see `PostgresSessions`."""

    def __init__(
        self,
        server: str | Pool | Callable[[], AbstractContextManager[Connection]],
        *,
        timeout: float,
        lock_timeout: float,
        connections: int,
        clock: Clock,
    ) -> None:
        self._limits = _checked(timeout, lock_timeout, connections)
        self._clock = clock
        self._name = "PostgreSQL"
        self._own = None
        self._lend: Callable[[Call], AbstractContextManager[Connection]]
        if isinstance(server, str):
            known = Server(server)
            self._name = known.name
            self._own = Connections(known, connections)
            self._lend = self._own.lent
        else:
            self._lend = _borrowing(server)

    def run(self, statement: LiteralString, *values: object) -> Rows:
        """Run a statement as a transaction of its own; return the rows of its last part.

        Raises:
            StoreUnavailable: It was not run, or nobody knows whether it was.
        """
        call = Call(self._name, self._clock, *self._limits)
        while True:
            try:
                with self._lend(call) as connection:
                    return _ask(connection, call, statement, values)
            except (psycopg.Error, TimeoutError) as error:
                delay = call.delay_after(error)
            self._clock.sleep(delay)

    def close(self) -> None:
        """Close the connections that are its own."""
        if self._own is not None:
            self._own.close()


class AsyncLink:
    """Asks PostgreSQL from event loops. A cancelled call leaves at once, and closes its connection."""

    def __init__(
        self,
        server: str | AsyncPool | Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        *,
        timeout: float,
        lock_timeout: float,
        connections: int,
        clock: Clock,
    ) -> None:
        self._limits = _checked(timeout, lock_timeout, connections)
        self._clock = clock
        self._name = "PostgreSQL"
        self._own = None
        self._lend: Callable[[Call], AbstractAsyncContextManager[AsyncConnection]]
        if isinstance(server, str):
            known = Server(server)
            self._name = known.name
            self._own = AsyncConnections(known, connections)
            self._lend = self._own.lent
        else:
            self._lend = _borrowing(server)

    async def run(self, statement: LiteralString, *values: object) -> Rows:
        """Run a statement as a transaction of its own; return the rows of its last part.

        Raises:
            StoreUnavailable: It was not run, or nobody knows whether it was.
        """
        call = Call(self._name, self._clock, *self._limits)
        while True:
            try:
                async with self._lend(call) as connection:
                    return await _ask_async(connection, call, statement, values)
            except (psycopg.Error, TimeoutError) as error:
                delay = call.delay_after(error)
            await self._clock.sleep_async(delay)

    async def close(self) -> None:
        """Close the connections that are its own."""
        if self._own is not None:
            self._own.close()


def _ask(connection: Connection, call: Call, statement: LiteralString, values: tuple[object, ...]) -> Rows:
    def wait(exchange: PQGen[T], *_: object, **__: object) -> T:
        glance = min(_GLANCE, call.left())
        return waiting.wait(call.on_time(exchange), connection.pgconn.socket, interval=glance)

    with _alone(connection, wait):
        cursor = psycopg.ClientCursor(connection, row_factory=rows.tuple_row)
        cursor.execute(BOUNDS + statement, (*call.bounds(), *values))
        while cursor.nextset():
            pass
        found = cursor.fetchall() if cursor.description else []
        if not connection.autocommit:
            connection.commit()
    return found


async def _ask_async(
    connection: AsyncConnection, call: Call, statement: LiteralString, values: tuple[object, ...]
) -> Rows:
    import asyncio  # noqa: PLC0415 - loaded by whoever awaits this

    async def wait(exchange: PQGen[T], *_: object, **__: object) -> T:
        return await waiting.wait_async(exchange, connection.pgconn.socket, interval=_GLANCE)

    with _alone(connection, wait):
        async with asyncio.timeout(call.left()):
            cursor = psycopg.AsyncClientCursor(connection, row_factory=rows.tuple_row)
            await cursor.execute(BOUNDS + statement, (*call.bounds(), *values))
            while cursor.nextset():
                pass
            found = await cursor.fetchall() if cursor.description else []
            if not connection.autocommit:
                await connection.commit()
    return found


@contextmanager
def _alone(connection: Connection | AsyncConnection, wait: Callable[..., Any]) -> Generator[None]:
    """Have the connection wait by `wait` in the block; close it if the block leaves an exchange unfinished.

    psycopg waits for ever, and when it is interrupted it first asks the server, for seconds, to stop.

    Raises:
        ValueError: The connection is in a transaction, whose end is not ours to decide.
    """
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        raise ValueError(
            "a session store needs a connection of its own, not one in a transaction: "
            "give it a URL, or a pool"
        )
    connection.wait = wait  # type: ignore[method-assign]  # until the block ends
    try:
        yield
    finally:
        del connection.wait
        if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
            connection.pgconn.finish()


def _borrowing(lender: Any) -> Callable[[Call], Any]:
    """Return what borrows a connection from a pool, or from whatever else lends one to a block."""
    lend = getattr(lender, "connection", lender)
    if not callable(lend):
        raise TypeError(f"a session store needs a URL, or a pool that lends connections, not {lender!r}")

    def borrow(call: Call) -> Any:
        call.may_be_stale = True  # nobody knows how long it has been lying idle
        return lend()

    return borrow


def _checked(timeout: float, lock_timeout: float, connections: int) -> tuple[float, float]:
    count("connections", connections, least=1)
    return number("timeout", timeout, above=0), number("lock_timeout", lock_timeout, above=0)
