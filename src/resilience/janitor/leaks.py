"""Finding connections that are taken out of a pool and not given back, and who took them.

A pool that runs dry says that there is no connection left; not who has them. A detector notes each check-out,
with the stack that led there. The rules:

- A connection that is out for longer than the threshold is told once, with that stack; and once more when it
  comes back. One that is thrown away instead of given back is told as lost.
- It is `check` that looks for those still out: call it every few seconds, by a `Periodic` say. There is no
  thread and no timer for each connection.
- A note is a few frames' code and position: no locals, so it keeps nobody's data and no connection alive.
  Lines and names are worked out when there is something to tell.
- It holds on to as many notes as there are connections out, and to a stated number at most; and to as many
  again of those that were lost since the last check.
- A detector cannot break a pool: it only notes what the pool has given or got back.

It knows pools by how they look, and imports none: `getconn` and `putconn` (psycopg's, both kinds),
`get_connection` and `release` (redis-py's, both kinds), and SQLAlchemy's engines and pools by their events.
Others call `taken` and `returned` themselves.
"""

from __future__ import annotations

import sys
import weakref
from collections import deque
from functools import wraps
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from resilience.callables import Kind, kind_of
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.events import ConnectionHeld, ConnectionLost, ConnectionReturned, hooks, publish
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FrameType

    from resilience.clock import Clock

_METHODS: Final = (("getconn", "putconn"), ("get_connection", "release"))
"""What pools call the methods that give a connection out, and that take it back."""

_MOST_LOGGED: Final = 10  # of one check; the hooks get all


class LeakStats(NamedTuple):
    """What a detector has seen since it was made."""

    outstanding: int
    """Connections that are out now, with those that were thrown away since the last check."""
    held: int
    """How many were told as out for longer than the threshold."""
    returned_late: int
    """How many came back after the threshold."""
    lost: int
    """How many were thrown away instead of given back."""
    unnoted: int
    """Check-outs that were not noted, since too many connections were out."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, as JSON can hold them."""
        return self._asdict()


class _Note(weakref.ref[Any]):
    """That a connection is out: a weak reference to it, which is dead once it was thrown away."""

    __slots__ = ("key", "kind", "pool", "since", "stack", "told")

    key: int
    """The address of what it refers to, by which it is found again."""
    pool: str
    kind: type[object]
    since: float
    stack: list[tuple[CodeType, int]]
    """The code and the position in it of each frame, the innermost first."""
    told: bool
    """Whether it was told as out for too long."""

    def connection(self) -> str:
        """Return what the connection is called."""
        return f"{self.kind.__qualname__} at {self.key:#x}"

    def lines(self) -> tuple[str, ...]:
        """Return the stack for people, the innermost last."""
        return tuple(
            f"{code.co_filename}:{_line(code, position)} in {code.co_qualname}"
            for code, position in reversed(self.stack)
        )


class LeakDetector:
    """Tells which connections are out of their pool for too long, and which code took them.

    Threads and event loops may share it, for any number of pools. A forked child begins anew: the connections
    are its parent's.

    Args:
        threshold: Seconds that a connection may be out.
        depth: How many frames of the stack are noted, from the innermost.
        most: How many connections are noted at the same time at most.
        clock: Tells the time.
        on_held: Called with a `ConnectionHeld` when a connection is out for longer than the threshold.
        on_returned: Called with a `ConnectionReturned` when such a one comes back.
        on_lost: Called with a `ConnectionLost` when one was thrown away instead.

    Raises:
        TypeError: A number is none, or a hook cannot be called.
        ValueError: A number is out of range.

    Example:
        >>> from resilience.testing import FakeClock
        >>> class Connection: ...
        >>> class Pool:
        ...     def getconn(self): return Connection()
        ...     def putconn(self, connection): pass
        >>> clock, pool = FakeClock(), Pool()
        >>> detector = LeakDetector(threshold=30.0, clock=clock)
        >>> unwatch = detector.watch(pool, "shop")
        >>> connection = pool.getconn()
        >>> clock.sleep(31.0)
        >>> [(held.pool, held.seconds) for held in detector.check()]
        [('shop', 31.0)]
        >>> pool.putconn(connection)
        >>> detector.outstanding()
        []
    """

    def __init__(
        self,
        threshold: float = 30.0,
        *,
        depth: int = 20,
        most: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
        on_held: Callable[[ConnectionHeld], object] | None = None,
        on_returned: Callable[[ConnectionReturned], object] | None = None,
        on_lost: Callable[[ConnectionLost], object] | None = None,
    ) -> None:
        self._threshold = number("threshold", threshold, above=0)
        self._depth = count("depth", depth, least=1)
        self._most = count("most", most, least=1)
        self._clock = clock
        self._on_held = hooks(on_held)
        self._on_returned = hooks(on_returned)
        self._on_lost = hooks(on_lost)
        self._counts = {"held": 0, "returned_late": 0, "lost": 0, "unnoted": 0}
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and forget the connections of the parent."""
        self._lock = RLock()
        self._out: dict[int, _Note] = {}
        self._replaced = self._no_notes()

    def watch(self, pool: Any, name: str | None = None) -> Callable[[], None]:
        """Note each check-out and check-in of a pool from now on.

        Args:
            pool: A pool of psycopg or redis-py, for threads or for event loops; an engine or a pool of
                SQLAlchemy; or what looks like one of them.
            name: What events and logs call it. Left out: its own name, or its type's.

        Returns:
            A function that ends it. Of several watches on one pool, end the last one first.

        Raises:
            TypeError: It does not look like a pool that is known.
        """
        called = name or str(getattr(pool, "name", None) or type(pool).__name__)
        for take, give in _METHODS:
            if hasattr(pool, take) and hasattr(pool, give) and not isinstance(pool, type):
                return self._wrap(pool, take, give, called)
        engine = getattr(pool, "sync_engine", pool)
        alchemy = getattr(engine, "pool", engine)
        if hasattr(getattr(alchemy, "dispatch", None), "checkout") and not isinstance(alchemy, type):
            return self._listen(sys.modules["sqlalchemy.event"], alchemy, called)
        raise TypeError(
            f"{pool!r} is no pool that is known: give the pool itself, such as `client.connection_pool`, or "
            "call `taken` and `returned` where connections are taken and returned"
        )

    def taken(self, connection: object, pool: str = "pool") -> None:
        """Note that a connection was taken, by the code that calls this."""
        self._note(connection, pool, connection)

    def returned(self, connection: object) -> None:
        """Note that a connection was given back; one that was not noted is ignored."""
        self._tell_returned(self._forget(connection))

    def check(self) -> list[ConnectionHeld | ConnectionLost]:
        """Find those that are out for longer than the threshold or were thrown away, and tell each once.

        Returns:
            What was told now.
        """
        now = self._clock.now()
        # The collector may run in the middle, and in it a finaliser that gives back: hence the copy.
        with self._lock:
            lost = self._take_lost()
            held = [
                note
                for note in self._out.copy().values()
                if not note.told and now - note.since > self._threshold
            ]
            for note in held:
                note.told = True
            self._counts["held"] += len(held)
            self._counts["lost"] += len(lost)
        told: list[ConnectionHeld | ConnectionLost] = [
            *(self._held(note, now) for note in held),
            *(ConnectionLost(*self._held(note, now)) for note in lost),
        ]
        _log_some(told)
        for event in told:
            publish(event, self._on_held if isinstance(event, ConnectionHeld) else self._on_lost)
        return told

    def outstanding(self) -> list[ConnectionHeld]:
        """Return what is out now, however long it has been, the longest first."""
        now = self._clock.now()
        with self._lock:
            notes = [note for note in self._out.copy().values() if note() is not None]
        return [self._held(note, now) for note in sorted(notes, key=lambda note: note.since)]

    def stats(self) -> LeakStats:
        """Return what this detector has seen."""
        with self._lock:
            return LeakStats(outstanding=len(self._out), **self._counts)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a leak detector watches the pools of this process: make a new one instead")

    def _wrap(self, pool: Any, take: str, give: str, name: str) -> Callable[[], None]:
        taking, giving = getattr(pool, take), getattr(pool, give)

        @wraps(taking)
        def take_noted(*args: Any, **kwargs: Any) -> Any:
            connection = taking(*args, **kwargs)
            self._note(connection, name, connection)
            return connection

        @wraps(taking)
        async def take_noted_async(*args: Any, **kwargs: Any) -> Any:
            connection = await taking(*args, **kwargs)
            self._note(connection, name, connection)
            return connection

        @wraps(giving)
        def give_noted(*args: Any, **kwargs: Any) -> Any:
            note = self._forget(_given(args, kwargs))
            try:
                answer = giving(*args, **kwargs)
            except BaseException:
                self._keep(note)
                raise
            self._tell_returned(note)
            return answer

        @wraps(giving)
        async def give_noted_async(*args: Any, **kwargs: Any) -> Any:
            note = self._forget(_given(args, kwargs))
            try:
                answer = await giving(*args, **kwargs)
            except BaseException:
                self._keep(note)
                raise
            self._tell_returned(note)
            return answer

        if kind_of(giving) is Kind.ASYNC:
            setattr(pool, take, take_noted_async)
            setattr(pool, give, give_noted_async)
        else:
            setattr(pool, take, take_noted)
            setattr(pool, give, give_noted)

        def unwatch() -> None:
            setattr(pool, take, taking)
            setattr(pool, give, giving)

        return unwatch

    def _listen(self, sqlalchemy_event: Any, pool: Any, name: str) -> Callable[[], None]:
        # A record is a place in the pool; it outlives the connection that it has at the moment.
        def checkout(connection: object, record: object, _: object) -> None:
            self._note(record, name, connection)

        def checkin(_: object, record: object) -> None:
            self.returned(record)

        listeners = (("checkout", checkout), ("checkin", checkin), ("detach", checkin))
        for event, listener in listeners:
            sqlalchemy_event.listen(pool, event, listener)

        def unwatch() -> None:
            for event, listener in listeners:
                sqlalchemy_event.remove(pool, event, listener)

        return unwatch

    def _note(self, taken: object, pool: str, connection: object) -> None:
        try:
            note = _Note(taken)
        except TypeError:  # it cannot be referred to weakly; a pool must not be broken for that
            with self._lock:
                self._counts["unnoted"] += 1
            return
        note.key = id(taken)
        note.kind = type(connection)
        note.pool = pool
        note.since = self._clock.now()
        note.stack = _stack(self._depth)
        note.told = False
        self._keep(note)

    def _keep(self, note: _Note | None) -> None:
        if note is None:
            return
        with self._lock:
            there = self._out.get(note.key)
            if there is None:
                if len(self._out) >= self._most:
                    self._counts["unnoted"] += 1
                    return
            elif there() is None:
                self._replaced.append(there)  # what lay at this address was thrown away
            elif there.since > note.since:
                return  # a pool took it back, failed after that, and has given it out again
            self._out[note.key] = note

    def _forget(self, taken: object) -> _Note | None:
        with self._lock:
            note = self._out.get(id(taken))
            if note is None or note() is not taken:  # what lay at that address before was thrown away
                return None
            return self._out.pop(note.key, None)  # a finaliser may have been here in between

    def _take_lost(self) -> list[_Note]:
        replaced, self._replaced = self._replaced, self._no_notes()
        dead = [note for note in self._out.copy().values() if note() is None]
        return [*replaced, *(note for note in dead if self._out.pop(note.key, None) is note)]

    def _no_notes(self) -> deque[_Note]:
        return deque(maxlen=self._most)

    def _tell_returned(self, note: _Note | None) -> None:
        if note is None or (seconds := self._clock.now() - note.since) <= self._threshold:
            return
        with self._lock:
            self._counts["returned_late"] += 1
        event = ConnectionReturned(note.pool, note.connection(), seconds, note.lines())
        _log(event)
        publish(event, self._on_returned)

    @staticmethod
    def _held(note: _Note, now: float) -> ConnectionHeld:
        return ConnectionHeld(note.pool, note.connection(), now - note.since, note.lines())


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Return the first argument, which is the connection, whatever the pool calls it."""
    return next(iter((*args, *kwargs.values())), None)


def _stack(depth: int) -> list[tuple[CodeType, int]]:
    """Return where the frames are that led here, the innermost first, without those of this file.

    The position is kept instead of the line, which is slower to find out than all the rest.
    """
    stack: list[tuple[CodeType, int]] = []
    here = sys._getframe(2)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - it has no other name
    _walk(here, depth, stack)
    current = getattr(sys.modules.get("greenlet"), "getcurrent", None)  # some thread may be importing it
    if current is not None and (waiting := current().parent) is not None:
        _walk(waiting.gr_frame, depth, stack)  # SQLAlchemy runs what it awaits in a greenlet
    return stack


def _walk(frame: FrameType | None, depth: int, stack: list[tuple[CodeType, int]]) -> None:
    while frame is not None and len(stack) < depth:
        code = frame.f_code
        if code.co_filename != _THIS_FILE:
            stack.append((code, frame.f_lasti))
        frame = frame.f_back


_THIS_FILE: Final = _stack.__code__.co_filename


def _line(code: CodeType, position: int) -> int | None:
    return next((line for start, end, line in code.co_lines() if start <= position < end), None)


_SAID: Final = {
    ConnectionHeld: "has been out for",
    ConnectionReturned: "has come back after",
    ConnectionLost: "was thrown away instead of given back, after",
}


def _log(event: ConnectionHeld | ConnectionReturned | ConnectionLost) -> None:
    import logging  # noqa: PLC0415 - loaded only when there is something to say

    logging.getLogger("resilience").warning(
        "a connection of the pool %s (%s) %s %.1f s; it was taken by %s",
        event.pool,
        event.connection,
        _SAID[type(event)],
        event.seconds,
        " > ".join(event.stack),
    )


def _log_some(events: Sequence[ConnectionHeld | ConnectionLost]) -> None:
    """Log the first of them: code that leaks does so at each call."""
    for event in events[:_MOST_LOGGED]:
        _log(event)
    if (more := len(events) - _MOST_LOGGED) > 0:
        import logging  # noqa: PLC0415 - see `_log`

        logging.getLogger("resilience").warning("%d more connections are out for long or thrown away", more)
