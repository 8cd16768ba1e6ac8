"""Ending idle PostgreSQL connections of our own: those that somebody took and forgot.

A connection that is idle *in a transaction* keeps its locks, and keeps the database from cleaning up. One
that is plainly idle only takes a place. A reaper ends such connections, and nothing else. The rules:

- **Only our own**: the reaper's own user and database, and an application name that begins with the given
  prefix. A superuser could end anybody's, and is whom people log in as by hand: it is refused.
- **Only what has been idle for long**, by the clock of the database; plainly idle connections by choice
  only, since pools keep them on purpose.
- **Never** the reaper itself, nor replication and background workers; nor who holds an advisory lock, or may
  be listening for notifications. PostgreSQL does not tell one session whether another listens. So whoever has
  the word LISTEN in the last statement or in the application name is spared; and what is kept by name.
- **Judged twice.** One statement looks; a second one ends, and there every condition is applied again, and
  also that it is the same connection in the same spell of idleness. Between this check and the signal lies
  no more than that one statement. A dry run, the default, never sends it.
- **Bounded** in connections and in seconds, by the server and by the client. A sweep has a connection of its
  own, outside of any pool, since what it is to mend may be an exhausted pool. Each statement is a read-only
  transaction with a time limit that ends with it, so a transaction-pooling proxy may stand in between.

Needs psycopg 3: the extra `postgres`.
"""

from __future__ import annotations

import math
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple, NoReturn, TypeVar

from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.events import (
    ConnectionsReaped,
    SparedConnection,
    SweepFailed,
    hooks,
    publish,
)
from resilience.fork import survive_fork
from resilience.janitor.idle import BOUND, END, LOOK, WHO, Found, Result, identities

try:
    import psycopg
    from psycopg import conninfo, waiting
except ImportError as error:
    raise ImportError(
        "resilience.janitor.connections needs psycopg 3: install the extra, resilience-py[postgres]"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from psycopg.abc import PQGen

    from resilience.clock import Clock

T = TypeVar("T")

_LONGEST_NAME: Final = 63  # bytes; PostgreSQL cuts names off there (NAMEDATALEN - 1)
_LEAST_IDLE: Final = 300.0  # seconds; pools keep connections for minutes, on purpose
_LEAST_TO_CONNECT: Final = 2  # seconds; less is more to libpq, which takes 1 for 2
_LONGEST: Final = 86_400.0  # seconds that a sweep may take; PostgreSQL would take 24 days
_GLANCE: Final = 0.1  # seconds between two looks at the clock, while the server does not answer


class ReaperStats(NamedTuple):
    """What a reaper has done since it was made."""

    ended: int
    """Connections that it has ended; in a dry run, none."""
    sweeps: int
    """Sweeps that did not fail, dry ones included."""
    failed_sweeps: int
    last_sweep_at: float | None
    """When the last sweep that did not fail ended, in Unix seconds; None before the first."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON can hold them."""
        return self._asdict()


class _Reaper:
    """What both reapers have in common: everything but talking to the server."""

    def __init__(
        self,
        url: str,
        application_prefix: str,
        *,
        idle_in_transaction: float | None = 60.0,
        idle: float | None = None,
        dry_run: bool = True,
        keep: Collection[str] = (),
        limit: int = 10,
        timeout: float = 5.0,
        name: str = "connections",
        clock: Clock = SYSTEM_CLOCK,
        on_reap: Callable[[ConnectionsReaped], object] | None = None,
    ) -> None:
        self._url = _checked_url(url)
        self._limit = count("limit", limit, least=1)
        self._timeout = number("timeout", timeout, above=0, most=_LONGEST)
        self._bound = [f"{math.ceil(self._timeout * 1000)}ms"]
        self._dry_run = _checked_switch("dry_run", dry_run)
        self._name = name
        self._clock = clock
        self._on_reap = hooks(on_reap)
        self._values = {
            "prefix": _checked_name("application_prefix", application_prefix),
            "keep": _checked_names("keep", keep),
            "idle_in_transaction": (
                None
                if idle_in_transaction is None
                else number("idle_in_transaction", idle_in_transaction, above=0)
            ),
            "idle": None if idle is None else number("idle", idle, least=_LEAST_IDLE),
        }
        self._stats = ReaperStats(ended=0, sweeps=0, failed_sweeps=0, last_sweep_at=None)
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = RLock()

    def stats(self) -> ReaperStats:
        """Return what this reaper has done."""
        return self._stats

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a reaper counts what it does in this process: make a new one instead")

    def _connecting(self) -> dict[str, Any]:
        return {
            "autocommit": True,
            "application_name": "resilience reaper",
            "connect_timeout": max(_LEAST_TO_CONNECT, math.ceil(self._timeout)),
        }

    def _refuse_superuser(self, rows: list[Any]) -> None:
        if rows != [(False,)]:
            raise RuntimeError(
                f"the reaper {self._name} is connected as a superuser, who could end anybody's connections: "
                "give the service a role of its own, and the reaper the same one"
            )

    def _chosen(self, found: Sequence[Found]) -> list[Found]:
        """Return those to be ended."""
        return [each for each in found if each.reason is None][: self._limit]

    def _finished(self, result: Result, started: float) -> ConnectionsReaped:
        ended = result.chosen if self._dry_run else result.ended()
        event = ConnectionsReaped(
            self._name,
            tuple(each.told() for each in ended),
            tuple(
                SparedConnection(each.told(), result.why_spared(each))
                for each in result.found
                if each not in ended
            ),
            self._clock.now() - started,
            self._dry_run,
        )
        ended_at = self._clock.wall()
        with self._lock:
            stats = self._stats
            self._stats = ReaperStats(
                ended=stats.ended + (0 if self._dry_run else len(ended)),
                sweeps=stats.sweeps + 1,
                failed_sweeps=stats.failed_sweeps,
                last_sweep_at=ended_at,
            )
        if ended:
            self._log(event)
        publish(event, self._on_reap)
        return event

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._stats = self._stats._replace(failed_sweeps=self._stats.failed_sweeps + 1)
        publish(SweepFailed(self._name, error))

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"PostgreSQL did not answer the reaper {self._name} within {self._timeout:g} s")

    def _log(self, event: ConnectionsReaped) -> None:
        import logging  # noqa: PLC0415 - loaded only when there is something to say

        logging.getLogger("resilience").log(
            logging.INFO if self._dry_run else logging.WARNING,
            "the reaper %s %s %d idle connections: %s",
            self._name,
            "would have ended" if self._dry_run else "has ended",
            len(event.ended),
            ", ".join(
                f"{each.pid} {each.application_name} ({each.state} for {each.seconds:.0f} s)"
                for each in event.ended
            ),
        )


class ConnectionReaper(_Reaper):
    """Ends PostgreSQL connections of this service that somebody took and forgot.

    It does nothing by itself: call `sweep`, or have it called by `Periodic`. Threads may share it, and
    several processes may sweep at the same time; two may then report that they ended the same connection.

    Args:
        url: Where the database is, as a URL or in libpq's other form, with the user of the service.
        application_prefix: What the application names of the service's connections begin with. PostgreSQL
            keeps 63 bytes of a name, and of those only printable ASCII as it is.
        idle_in_transaction: Seconds without a statement after which a transaction's connection is ended; None
            never ends one.
        idle: Seconds after which a plainly idle connection is ended, at least 300; None never ends one.
        dry_run: Whether to report only. Read some reports first, then say `dry_run=False`.
        keep: Beginnings of application names that are never ended, though they begin with the prefix.
        limit: Connections that one sweep ends at most: those that have been idle for longest.
        timeout: Seconds after which a sweep gives up on the server, at most a day. To connect may take as
            long again, 2 seconds at least, for each address in `url`.
        name: Tells it apart in events and logs.
        clock: Tells the time.
        on_reap: Called with a `ConnectionsReaped` after each sweep.

    Raises:
        TypeError: A number is none, or a hook cannot be called.
        ValueError: A number is out of range, the prefix is empty or could match no name, or `url` is none.

    Example:
        >>> reaper = ConnectionReaper("postgresql://shop@localhost/shop", "shop-")
        >>> reaper.stats().ended
        0
    """

    def sweep(self) -> ConnectionsReaped:
        """Look once, and end what is idle for too long, unless this is a dry run.

        Returns:
            Who was ended, and who was spared and why; in a dry run, who would have been.

        Raises:
            RuntimeError: The user is a superuser.
            TimeoutError: The server did not answer in time. What was asked of it may still happen.
            psycopg.Error: It could not be reached, or refused.
        """
        started = self._clock.now()
        try:
            result = self._sweep()
        except Exception as error:
            self._failed(error)
            raise
        return self._finished(result, started)

    def _sweep(self) -> Result:
        session = _Session.connect(self._url, **self._connecting())
        try:
            until = self._clock.now() + self._timeout
            session.is_late = lambda: self._clock.now() >= until
            self._refuse_superuser(self._ask(session, WHO, {}))
            found = [Found(*row) for row in self._ask(session, LOOK, self._values)]
            chosen = self._chosen(found)
            if chosen and not self._dry_run:
                return Result(found, chosen, self._ask(session, END, {**self._values, **identities(chosen)}))
            return Result(found, chosen, [])
        except TimeoutError as error:
            raise self._too_late() from error
        finally:
            session.close()

    def _ask(self, session: _Session, statement: LiteralString, values: Mapping[str, Any]) -> list[Any]:
        session.execute("BEGIN READ ONLY")
        session.execute(BOUND, self._bound)
        rows = session.execute(statement, values).fetchall()
        session.execute("COMMIT")
        return rows


class AsyncConnectionReaper(_Reaper):
    """The same reaper for event loops.

    A cancellation leaves at once; a statement that was sent may still end what it was sent for. Several loops
    may share it. The arguments: see `ConnectionReaper`; to connect counts into `timeout` here.
    """

    async def sweep(self) -> ConnectionsReaped:
        """Look once, and end what is idle for too long, unless this is a dry run.

        Returns:
            Who was ended, and who was spared and why; in a dry run, who would have been.

        Raises:
            RuntimeError: The user is a superuser.
            TimeoutError: The server did not answer in time. What was asked of it may still happen.
            psycopg.Error: It could not be reached, or refused.
        """
        import asyncio  # noqa: PLC0415 - the other reaper is used without an event loop

        started = self._clock.now()
        try:
            async with asyncio.timeout(self._timeout):
                result = await self._sweep()
        except TimeoutError as error:
            self._failed(late := self._too_late())
            raise late from error
        except Exception as error:
            self._failed(error)
            raise
        return self._finished(result, started)

    async def _sweep(self) -> Result:
        session = await _AsyncSession.connect(self._url, **self._connecting())
        try:
            self._refuse_superuser(await self._ask(session, WHO, {}))
            found = [Found(*row) for row in await self._ask(session, LOOK, self._values)]
            chosen = self._chosen(found)
            if chosen and not self._dry_run:
                return Result(
                    found, chosen, await self._ask(session, END, {**self._values, **identities(chosen)})
                )
            return Result(found, chosen, [])
        finally:
            await session.close()

    async def _ask(
        self, session: _AsyncSession, statement: LiteralString, values: Mapping[str, Any]
    ) -> list[Any]:
        await session.execute("BEGIN READ ONLY")
        await session.execute(BOUND, self._bound)
        rows = await (await session.execute(statement, values)).fetchall()
        await session.execute("COMMIT")
        return rows


class _Session(psycopg.Connection[Any]):
    """A connection that waits for an answer for as long as it is told, and asks for no cancellation.

    psycopg itself waits for ever: its own limits are on the side of the server, which may be what hangs.
    """

    is_late: Callable[[], bool]

    def wait(self, gen: PQGen[T], *_: Any, **__: Any) -> T:
        return waiting.wait(_until(self.is_late, gen), self.pgconn.socket, interval=_GLANCE)


class _AsyncSession(psycopg.AsyncConnection[Any]):
    """A connection whose cancelled calls leave at once; psycopg's first ask the server to cancel, for 5 s."""

    async def wait(self, gen: PQGen[T], *_: Any, **__: Any) -> T:
        return await waiting.wait_async(gen, self.pgconn.socket, interval=_GLANCE)


def _until(is_late: Callable[[], bool], gen: PQGen[T]) -> PQGen[T]:
    """Go through the exchange with the server while it is not late; psycopg resumes it at each glance.

    Raises:
        TimeoutError: It is.
    """
    try:
        state = next(gen)
        while True:
            ready = yield state
            if is_late():
                raise TimeoutError
            state = gen.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # what the exchange returns


def _checked_url(url: Any) -> str:
    if not isinstance(url, str):
        raise TypeError(f"url must be a string, not {type(url).__name__}")
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Without the value, and without what libpq says of it: there may be a password inside.
        raise ValueError(
            "url must say where the database is, such as postgresql://shop@localhost/shop"
        ) from None
    return url


def _checked_switch(argument: str, switch: Any) -> bool:
    if not isinstance(switch, bool):  # an empty setting must not be what lets it loose
        raise TypeError(f"{argument} must be True or False, not {switch!r}")
    return switch


def _checked_names(argument: str, names: Any) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a collection of names, such as [{names!r}], not {names!r}")
    return [_checked_name(argument, name) for name in names]


def _checked_name(argument: str, name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{argument} must be a string, not {name!r}")
    if not name.strip() or len(name) > _LONGEST_NAME or not (name.isascii() and name.isprintable()):
        raise ValueError(
            f"{argument} must be 1 to {_LONGEST_NAME} printable ASCII characters, which is what PostgreSQL "
            f"keeps of an application name, not {name!r}"
        )
    return name
