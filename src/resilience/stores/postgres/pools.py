"""The few connections that a store holds, or a pool of the application's that it borrows from.

Rules:
    - A line is given back idle. One that is not, since a reply may still come, is closed.
    - Nobody waits for a line for longer than for an answer. Making one goes on in a thread of its own, so
      that one that takes longer than a call may is there for the next.
    - When the server ended one, the idle ones are let go too: most likely they ended with it.
    - A child of a fork begins without lines, and lets go of what it inherited without a word to the server.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import psycopg

from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost
from resilience.stores.postgres.failures import failure_to_connect
from resilience.stores.postgres.lines import Line

if TYPE_CHECKING:
    from collections.abc import Iterable

Left = Callable[[], float]
"""Returns the seconds for which the caller still waits."""


class Pool(Protocol):
    """Where threads get their lines."""

    def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone.

        Raises:
            Lost: None could be made in time.
            StoreUnavailable: All are in use all the time, or the server refuses to be connected to.
        """
        ...

    def give_back(self, line: Line) -> None:
        """Let others have the line, or close it where it is not idle."""
        ...

    def close(self) -> None:
        """Close what is idle, and the rest as it comes back."""
        ...


class AsyncPool(Protocol):
    """The same for tasks."""

    async def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone."""
        ...

    async def give_back(self, line: Line) -> None:
        """Let others have the line, or close it where it is not idle."""
        ...

    async def close(self) -> None:
        """Close what is idle, and the rest as it comes back."""
        ...


def _close(lines: Iterable[Line]) -> None:
    for line in lines:
        line.close()


class _Lines:
    """Up to `size` lines, made as they are needed, and who waits for one."""

    def __init__(
        self, connect: Callable[[], psycopg.Connection[Any]], what: str, size: int, *, prepare: bool
    ) -> None:
        self._connect = connect
        self._what = what
        self._size = size
        self._prepare = prepare
        self._closed = False
        self._all: set[Line] = set()
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin anew without the parent's lines."""
        self._lock = threading.RLock()
        inherited, self._all = self._all, set()
        self._idle: list[Line] = []
        self._coming = 0
        """How many are being made."""
        self._waiting: deque[Future[Line]] = deque()
        for line in inherited:
            line.disown()

    def get(self) -> Line | Future[Line]:
        """Return an idle line, or else the promise of one."""
        with self._lock:
            if self._closed:
                raise ValueError(f"the store on {self._what} is closed: make a new one")
            if self._idle:
                return self._idle.pop()
            promise: Future[Line] = Future()
            self._waiting.append(promise)
        self._make()
        return promise

    def put(self, line: Line) -> None:
        """Take a line back."""
        with self._lock:
            if line not in self._all:  # the parent's, whose block goes on in this child
                return
            if line.is_sound and not self._closed:
                self._hand_out(line)
                return
            ended = [line] if line.stands else [line, *self._idle]
            self._let_go(ended)
        _close(ended)
        self._make()

    def withdraw(self, promise: Future[Line]) -> None:
        """Take back a promise whose caller waits no more, with the line if it was kept meanwhile."""
        with self._lock:
            if promise.cancel():
                if promise in self._waiting:
                    self._waiting.remove(promise)
                return
        if promise.exception() is None:
            self.put(promise.result())

    def none_in_time(self) -> Exception:
        """Return what to raise for a promise that was not kept in time."""
        with self._lock:
            if not self._all:
                return Lost("there was no connection in time")
        return StoreUnavailable(
            f"the limits on {self._what} are unavailable: all {self._size} connections of the store were in "
            "use; give it more by max_connections",
            retry_after=1.0,
        )

    def close(self) -> None:
        """Close what is idle, and the rest as it comes back."""
        with self._lock:
            self._closed = True
            ended = [*self._idle]
            self._let_go(ended)
        _close(ended)

    def _let_go(self, lines: Iterable[Line]) -> None:
        self._all.difference_update(lines)
        self._idle = [line for line in self._idle if line in self._all]

    def _hand_out(self, line: Line) -> None:
        """Give a line to whoever waits longest, or keep it."""
        while self._waiting:
            promise = self._waiting.popleft()
            if promise.set_running_or_notify_cancel():
                promise.set_result(line)
                return
        self._idle.append(line)

    def _make(self) -> None:
        """Begin to make as many lines as are waited for, and may be."""
        with self._lock:
            wanted = min(len(self._waiting), self._size - len(self._all)) - self._coming
            self._coming += max(0, wanted)
        for _ in range(wanted):
            threading.Thread(target=self._make_one, name=f"connecting to {self._what}", daemon=True).start()

    def _make_one(self) -> None:
        try:
            line = Line(self._connect(), set() if self._prepare else None)
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            self._not_made(error)
            return
        with self._lock:
            self._coming -= 1
            if not self._closed:
                self._all.add(line)
                self._hand_out(line)
                return
        line.close()

    def _not_made(self, error: Exception) -> None:
        """Tell those who wait, unless there are lines that come back to them."""
        with self._lock:
            self._coming -= 1
            if self._all:
                return
            waiting, self._waiting = self._waiting, deque()
            for promise in waiting:
                if promise.set_running_or_notify_cancel():
                    promise.set_exception(failure_to_connect(error, self._what))


class OwnPool:
    """Lines of the store's own, for threads.

    Args:
        connect: Returns a new psycopg connection, or raises what prevents it.
        what: What messages call the server.
        size: How many lines there may be.
        prepare: Whether statements are prepared on them.

    Threads may share it; it survives a fork.
    """

    def __init__(
        self, connect: Callable[[], psycopg.Connection[Any]], what: str, size: int, *, prepare: bool
    ) -> None:
        self._lines = _Lines(connect, what, size, prepare=prepare)

    def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone."""
        promise = self._lines.get()
        if isinstance(promise, Line):
            return promise
        try:
            return promise.result(max(0.0, left()))
        except TimeoutError:
            self._lines.withdraw(promise)
            raise self._lines.none_in_time() from None
        except BaseException:
            self._lines.withdraw(promise)
            raise

    def give_back(self, line: Line) -> None:
        """Let others have the line, or close it where it is not idle."""
        self._lines.put(line)

    def close(self) -> None:
        """Close what is idle, and the rest as it comes back."""
        self._lines.close()


class AsyncOwnPool:
    """The same for tasks, of any number of event loops: no line belongs to a loop."""

    def __init__(
        self, connect: Callable[[], psycopg.Connection[Any]], what: str, size: int, *, prepare: bool
    ) -> None:
        self._lines = _Lines(connect, what, size, prepare=prepare)

    async def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone."""
        promise = self._lines.get()
        if isinstance(promise, Line):
            return promise
        try:
            async with asyncio.timeout(max(0.0, left())):
                return await asyncio.wrap_future(promise)
        except TimeoutError:
            self._lines.withdraw(promise)
            raise self._lines.none_in_time() from None
        except BaseException:
            self._lines.withdraw(promise)
            raise

    async def give_back(self, line: Line) -> None:
        """Let others have the line, or close it where it is not idle."""
        self._lines.put(line)

    async def close(self) -> None:
        """Close what is idle, and the rest as it comes back."""
        self._lines.close()


class LentPool:
    """Lines of a `psycopg_pool.ConnectionPool`, which stays the application's to close."""

    def __init__(self, pool: Any, what: str, *, prepare: bool) -> None:
        self._pool = pool
        self._known = _Known(what, prepare=prepare)

    def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone."""
        try:
            connection = self._pool.getconn(timeout=max(0.0, left()))
        except psycopg.OperationalError as error:
            raise self._known.failure(error) from error
        return self._known.line(connection)

    def give_back(self, line: Line) -> None:
        """Let others have the connection, or close it where it is not idle; the pool sees that."""
        if not line.is_sound:
            line.close()
        self._pool.putconn(line.connection)

    def close(self) -> None:
        """Do nothing: the pool is the application's."""


class AsyncLentPool:
    """Lines of a `psycopg_pool.AsyncConnectionPool`, which stays the application's to close."""

    def __init__(self, pool: Any, what: str, *, prepare: bool) -> None:
        self._pool = pool
        self._known = _Known(what, prepare=prepare)

    async def borrow(self, left: Left) -> Line:
        """Return a line for this caller alone."""
        try:
            connection = await self._pool.getconn(timeout=max(0.0, left()))
        except psycopg.OperationalError as error:
            raise self._known.failure(error) from error
        return self._known.line(connection)

    async def give_back(self, line: Line) -> None:
        """Let others have the connection, or close it where it is not idle; the pool sees that."""
        if not line.is_sound:
            line.close()
        await self._pool.putconn(line.connection)

    async def close(self) -> None:
        """Do nothing: the pool is the application's."""


class _Known:
    """What is known of a pool and of its connections: what is prepared on each."""

    def __init__(self, what: str, *, prepare: bool) -> None:
        self._what = what
        self._prepare = prepare
        self._prepared: WeakKeyDictionary[Any, set[bytes]] = WeakKeyDictionary()

    def line(self, connection: Any) -> Line:
        """Return the line on a connection, which nobody else has at the moment."""
        return Line(connection, self._prepared.setdefault(connection, set()) if self._prepare else None)

    def failure(self, error: psycopg.OperationalError) -> StoreUnavailable:
        """Return what to raise where the pool gave no connection in time."""
        return StoreUnavailable(
            f"the limits on {self._what} are unavailable: the pool gave no connection in time ({error})",
            retry_after=1.0,
        )
