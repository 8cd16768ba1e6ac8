"""A few connections of our own, lent to one call at a time.

The rules:

- At most as many are open as were asked for; who comes when all are in use waits, within its time.
- What comes back closed is not lent again: whoever leaves an exchange unfinished closes the connection.
- A forked child has none: its parent's are left alone, since closing one there would end it here.
- An asynchronous connection belongs to its event loop; those of loops that are closed are closed as well.
"""

from __future__ import annotations

import os
import queue
import weakref
from contextlib import asynccontextmanager, contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg import conninfo

from resilience.fork import survive_fork

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Generator

    from resilience.janitor.postgres.call import Call

Connection: TypeAlias = psycopg.Connection[Any]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[Any]
C = TypeVar("C", Connection, AsyncConnection)

_CONNECT_TIMEOUT: Final = 2  # seconds; the least that libpq takes
_CLOSED: Final = "the store was closed: make another one"


class Server:
    """Where the database is.

    Raises:
        ValueError: The URL is none. The message does not show it, since it may hold a password.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            raise ValueError(
                "the URL must say where the database is, such as postgresql://shop@localhost/shop"
            ) from None
        host, port = parts.get("host", "localhost"), parts.get("port", 5432)
        self.name = f"{host}:{port}/{parts.get('dbname', '')}"
        """What to call it in messages."""
        self.url = conninfo.make_conninfo(
            url,
            connect_timeout=parts.get("connect_timeout", _CONNECT_TIMEOUT),
            fallback_application_name="resilience-sessions",
            client_encoding="utf8",
        )


class Connections:
    """Connections of threads.

    Args:
        server: Where they lead to.
        most: How many may be open at a time.
    """

    def __init__(self, server: Server, most: int) -> None:
        self._server = server
        self._most = most
        self._is_closed = False
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin without any."""
        self._slots: queue.LifoQueue[Connection | None] = queue.LifoQueue()  # None: not open yet
        for _ in range(self._most):
            self._slots.put(None)
        weakref.finalize(self, _close_all, self._slots, os.getpid())

    @contextmanager
    def lent(self, call: Call) -> Generator[Connection]:
        """Lend one to the block.

        Raises:
            StoreUnavailable: All are in use for too long, or they were closed.
            psycopg.Error: The server does not let us in.
        """
        slots = self._slots
        try:
            connection = slots.get(timeout=call.left())  # real seconds: the others have no fake clock
        except queue.Empty:
            raise call.unavailable(_all_in_use(self._most), passes=True) from None
        try:
            if self._is_closed:
                raise call.unavailable(_CLOSED, passes=False)
            call.may_be_stale = connection is not None
            if connection is None:
                connection = psycopg.connect(self._server.url, autocommit=True)
            yield connection
        finally:
            slots.put(_kept(connection, self._is_closed))

    def close(self) -> None:
        """Close them: those in use when they come back."""
        self._is_closed = True
        _close_all(self._slots, os.getpid())


class AsyncConnections:
    """Connections of event loops. The arguments: see `Connections`; `most` is for each loop."""

    def __init__(self, server: Server, most: int) -> None:
        self._server = server
        self._most = most
        self._is_closed = False
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin without any."""
        self._lock = RLock()
        self._loops: dict[asyncio.AbstractEventLoop, _OfLoop] = {}
        weakref.finalize(self, _close_all_idle, self._loops, os.getpid())

    @asynccontextmanager
    async def lent(self, call: Call) -> AsyncGenerator[AsyncConnection]:
        """Lend one to the block.

        Raises:
            StoreUnavailable: All are in use for too long, or they were closed.
            TimeoutError: The server took too long to let us in.
            psycopg.Error: It does not let us in.
        """
        import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

        mine = self._of_this_loop()
        try:
            async with asyncio.timeout(call.left()):
                await mine.places.acquire()
        except TimeoutError:
            raise call.unavailable(_all_in_use(self._most), passes=True) from None
        connection = mine.idle.pop() if mine.idle else None
        try:
            if self._is_closed:
                raise call.unavailable(_CLOSED, passes=False)
            call.may_be_stale = connection is not None
            if connection is None:
                async with asyncio.timeout(call.left()):
                    connection = await psycopg.AsyncConnection.connect(self._server.url, autocommit=True)
            yield connection
        finally:
            if kept := _kept(connection, self._is_closed):
                mine.idle.append(kept)
            mine.places.release()

    def close(self) -> None:
        """Close them, on whichever loop they are: those in use when they come back."""
        self._is_closed = True
        with self._lock:
            _close_all_idle(self._loops, os.getpid())

    def _of_this_loop(self) -> _OfLoop:
        import asyncio  # noqa: PLC0415 - see `lent`

        loop = asyncio.get_running_loop()
        with self._lock:
            mine = self._loops.get(loop)
            if mine is None:
                for closed in [other for other in self._loops if other.is_closed()]:
                    _close_idle(self._loops.pop(closed).idle)
                mine = self._loops[loop] = _OfLoop(asyncio.Semaphore(self._most), [])
        return mine


class _OfLoop(NamedTuple):
    """The connections of one event loop."""

    places: asyncio.Semaphore
    idle: list[AsyncConnection]


def _kept(connection: C | None, is_closed: bool) -> C | None:
    """Return the connection if it can be lent again; close it if not."""
    if connection is None or connection.closed:
        return None
    if is_closed:
        connection.pgconn.finish()
        return None
    return connection


def _close_idle(idle: list[AsyncConnection]) -> None:
    while idle:
        _kept(idle.pop(), is_closed=True)


def _close_all_idle(loops: dict[asyncio.AbstractEventLoop, _OfLoop], process: int) -> None:
    if os.getpid() == process:
        for of_loop in loops.values():
            _close_idle(of_loop.idle)


def _close_all(slots: queue.LifoQueue[Connection | None], process: int) -> None:
    if os.getpid() == process:
        for connection in _taken_out(slots):
            _kept(connection, is_closed=True)
            slots.put(None)


def _taken_out(slots: queue.LifoQueue[Connection | None]) -> list[Connection | None]:
    taken: list[Connection | None] = []
    with suppress(queue.Empty):
        while True:
            taken.append(slots.get_nowait())
    return taken


def _all_in_use(most: int) -> str:
    return f"all {most} connections are in use; allow more of them, or look for what keeps them"
