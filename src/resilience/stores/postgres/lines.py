"""One connection, which is asked one question at a time, for threads and for event loops.

Only libpq's protocol is used, through `psycopg.pq`: an answer is awaited on the socket, so that there is a
bound to it, and no cursor stands in between. `_talk` says what goes over the wire and what it waits for;
`ask` and `ask_async` wait. Each question is one statement, and so one transaction of its own.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq

from resilience.stores.engine import Lost
from resilience.stores.postgres.failures import sqlstate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from resilience.stores.postgres.questions import Question, Statement

READ: Final = selectors.EVENT_READ
BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE

_BINARY: Final = 1
_IDLE: Final = int(pq.TransactionStatus.IDLE)
_FORGOTTEN: Final = "26000"
"""The server does not know a prepared statement: somebody discarded it, or a pooler chose another server."""
_PREPARED: Final = "42P05"
"""It knows it already, since a pooler chose one that did."""

_SELECTOR: Final[Any] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""Without a descriptor of its own, which a fork would share."""


class Line:
    """One connection.

    Args:
        connection: A psycopg connection, sync or not; only its protocol is used, not its way of waiting.
        prepared: The names of the statements that are prepared on it; None to prepare none.
    """

    def __init__(self, connection: Any, prepared: set[bytes] | None) -> None:
        self.connection = connection
        self._wire: PGconn = connection.pgconn
        self._prepared = prepared
        self._selector = _SELECTOR()
        self._selector.register(self._wire.socket, READ)
        self._events = READ

    @property
    def is_sound(self) -> bool:
        """Whether it stands, and nothing is under way on it."""
        return self._wire.transaction_status == _IDLE

    @property
    def stands(self) -> bool:
        """Whether the connection is there, as far as is known."""
        return self._wire.status == pq.ConnStatus.OK

    def ask(self, question: Question[Any], left: Callable[[], float]) -> PGresult:
        """Return the answer, which may be an error.

        Args:
            question: What to ask.
            left: Returns the seconds for which the answer is still waited for.

        Raises:
            Lost: There was no answer while seconds were left, or the connection broke.
        """
        talk = _talk(self._wire, question.statement, question.values, self._prepared)
        try:
            while True:
                self._listen_for(next(talk))
                seconds = left()
                if seconds <= 0 or not self._selector.select(seconds):
                    raise Lost("there was no answer in time")
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what a generator returns is not typed
        except psycopg.OperationalError as error:
            raise Lost(f"the connection broke: {str(error).strip()}") from error

    async def ask_async(self, question: Question[Any], left: Callable[[], float]) -> PGresult:
        """Do what `ask` does, on an event loop. If it is cancelled, the line is not sound any more."""
        talk = _talk(self._wire, question.statement, question.values, self._prepared)
        try:
            while True:
                events = next(talk)
                seconds = left()
                if seconds <= 0 or not await _ready(self._wire.socket, events, seconds):
                    raise Lost("there was no answer in time")
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what a generator returns is not typed
        except psycopg.OperationalError as error:
            raise Lost(f"the connection broke: {str(error).strip()}") from error

    def close(self) -> None:
        """Close it."""
        self._wire.finish()

    def disown(self) -> None:
        """Close it in a child without a word to the server, which would take it for the parent's.

        Whatever is said goodbye to is nothing by then: the child's descriptor is turned away first.
        """
        if self._wire.status == pq.ConnStatus.OK:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, self._wire.socket)
            os.close(nothing)
        self._wire.finish()

    def _listen_for(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._selector.modify(self._wire.socket, events)


def _talk(
    wire: PGconn, statement: Statement, values: Sequence[bytes], prepared: set[bytes] | None
) -> Generator[int, None, PGresult]:
    """Ask, yield the events to wait for as long as there is no answer, and return it."""
    if prepared is None:
        return (yield from _unprepared(wire, statement, values))
    if statement.name not in prepared:
        wire.send_prepare(statement.name, statement.text, statement.types)
        result = yield from _result(wire)
        if sqlstate_of(result) not in {None, _PREPARED}:
            return result
        prepared.add(statement.name)
    wire.send_query_prepared(statement.name, values, statement.formats, _BINARY)
    result = yield from _result(wire)
    if result.status == pq.ExecStatus.FATAL_ERROR and sqlstate_of(result) == _FORGOTTEN:
        prepared.discard(statement.name)
        return (yield from _unprepared(wire, statement, values))
    return result


def _unprepared(
    wire: PGconn, statement: Statement, values: Sequence[bytes]
) -> Generator[int, None, PGresult]:
    wire.send_query_params(statement.text, values, statement.types, statement.formats, _BINARY)
    return (yield from _result(wire))


def _result(wire: PGconn) -> Generator[int, None, PGresult]:
    """Send what waits to be sent, and return the one result; the server is idle again after it."""
    while wire.flush():
        yield BOTH
        wire.consume_input()  # or the server would wait for us to read, and we for it to read
    last: PGresult | None = None
    while True:
        while wire.is_busy():
            yield READ
            wire.consume_input()
        result = wire.get_result()
        if result is None:
            if last is None:
                raise psycopg.OperationalError("there was no result")
            return last
        last = result


async def _ready(descriptor: int, events: int, seconds: float) -> bool:
    """Wait until one of the events is there, for so long at most; return whether it is."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_later(seconds, _settle, ready, False)
    loop.add_reader(descriptor, _settle, ready, True)
    if events == BOTH:
        loop.add_writer(descriptor, _settle, ready, True)
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)
        if events == BOTH:
            loop.remove_writer(descriptor)


def _settle(ready: asyncio.Future[bool], whether: bool) -> None:
    if not ready.done():
        ready.set_result(whether)
