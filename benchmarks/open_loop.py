"""A client that asks at a constant rate over many open connections, whatever the server does.

Each request has an instant at which it is meant to begin, and its latency counts from there. A client that
waits for an answer before it asks again goes easy on a server that is in trouble, and leaves the worst out of
its figures (coordinated omission); this one does neither. If a request has to wait because its connection is
still busy with the one before it, or because this client is late, that counts as well; how late the client
was is measured too, so that one can see whose latency it is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATIENCE = 10.0
"""Seconds until an answer is given up."""
AT_ONCE = 50
"""Connections that are opened at the same time."""


class Ask(NamedTuple):
    """A request as it goes over the wire, and what it is called."""

    kind: str
    wire: bytes


class Answer(NamedTuple):
    """What came of a request."""

    kind: str
    outcome: str
    """The status, or why there was none."""
    latency: float
    """Seconds from when the request was meant to begin."""
    late: float
    """Seconds by which it began later than that."""


class Connection(asyncio.Protocol):
    """One connection to a server of HTTP/1.1; it is made anew when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self.made = 0
        """How often it had to be made."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._buffer.clear()
        self._transport, _ = await loop.create_connection(lambda: self, *self._where)
        self.made += 1

    async def ask(self, wire: bytes) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            OSError: There was none.
            TimeoutError: There was none in time.
        """
        if not self.is_open:
            await self.open()
        assert self._transport is not None  # noqa: S101 - for the type checker: `open` makes it
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._waiter
        except TimeoutError:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        headers = head.lower()
        _, named, length = headers.partition(b"\r\ncontent-length:")
        if not named:
            self._settle(ValueError(f"an answer without a length: {bytes(head)!r}"))
        elif len(rest) >= (expected := int(length.partition(b"\r\n")[0])):
            self._buffer = rest[expected:]
            if b"\r\nconnection: close" in headers:
                self.close()
            self._settle((int(head.split(b" ", 2)[1]), bytes(rest[:expected])))

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(exc or ConnectionResetError("the server closed the connection"))

    def _settle(self, result: tuple[int, bytes] | Exception) -> None:
        if self._waiter is not None and not self._waiter.done():
            if isinstance(result, Exception):
                self._waiter.set_exception(result)
            else:
                self._waiter.set_result(result)


async def connected(host: str, port: int, number: int) -> list[Connection]:
    """Return so many open connections; they are opened a few at a time."""
    connections = [Connection(host, port) for _ in range(number)]
    for begin in range(0, number, AT_ONCE):
        await asyncio.gather(*(each.open() for each in connections[begin : begin + AT_ONCE]))
    return connections


async def at_rate(
    connections: Sequence[Connection], next_ask: Callable[[], Ask], rate: float, seconds: float
) -> list[Answer]:
    """Ask `rate` times a second, in turn on each connection; return all answers.

    Args:
        connections: Request n is sent on connection n modulo their number.
        next_ask: Returns what to ask next.
        rate: Requests a second, over all connections.
        seconds: For how long requests are begun.
    """
    begin = monotonic() + 0.1
    answers: list[Answer] = []

    async def use(number: int, connection: Connection) -> None:
        for request in range(number, int(rate * seconds), len(connections)):
            intended = begin + request / rate
            if (early := intended - monotonic()) > 0:
                await asyncio.sleep(early)
            answers.append(await _answered(connection, next_ask(), intended))

    await asyncio.gather(*(use(number, each) for number, each in enumerate(connections)))
    return answers


async def as_fast_as_possible(
    connections: Sequence[Connection], next_ask: Callable[[], Ask], seconds: float
) -> list[Answer]:
    """Ask on each connection again and again, as soon as the answer has come; return all answers."""
    end = monotonic() + seconds
    answers: list[Answer] = []

    async def use(connection: Connection) -> None:
        while (now := monotonic()) < end:
            answers.append(await _answered(connection, next_ask(), now))

    await asyncio.gather(*map(use, connections))
    return answers


async def _answered(connection: Connection, ask: Ask, intended: float) -> Answer:
    late = monotonic() - intended
    try:
        status, _ = await connection.ask(ask.wire)
        outcome = str(status)
    except TimeoutError:
        outcome = f"no answer in {PATIENCE:.0f} s"
    except (OSError, ValueError) as error:
        outcome = type(error).__name__
    return Answer(ask.kind, outcome, monotonic() - intended, late)


def errors_of(answers: Sequence[Answer]) -> Counter[str]:
    """Return how often each kind of request had which outcome that was no success."""
    return Counter(f"{each.kind}: {each.outcome}" for each in answers if not each.outcome.startswith("2"))
