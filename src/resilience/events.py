"""What policies tell: one frozen record for each thing that happened, and how listeners get them.

A listener is an ordinary function of one event. It is called after the policy has let go of its lock, on
the thread or loop of the call that caused the event. It cannot break that call: what it raises is logged,
once for each listener, and goes no further.

Example:
    >>> seen = []
    >>> unsubscribe = subscribe(seen.append)      # every event of every policy in this process
    >>> publish(RateLimited("login", ("ada",), 12.5))
    >>> seen
    [RateLimited(limiter='login', key=('ada',), retry_after=12.5)]
    >>> unsubscribe()
"""

from __future__ import annotations

import threading
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilience.callables import Kind, kind_of, name_of
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Listener = Callable[[Any], object]


class RetryScheduled(NamedTuple):
    """An attempt failed, and another will follow after `delay` seconds."""

    name: str
    attempt: int
    """The number of the attempt that failed, counted from 1."""
    delay: float
    """Seconds until the next attempt begins."""
    exception: Exception | None
    """What the attempt raised; None where its result was refused."""
    result: Any
    """What the attempt returned, where that was refused by `retry_if_result`."""


class RetrySucceeded(NamedTuple):
    """A call succeeded after at least one retry."""

    name: str
    attempts: int
    elapsed: float
    """Seconds since the first failure."""


class RetryStopped(NamedTuple):
    """A call failed for good, after a retry or although one was wanted."""

    name: str
    attempts: int
    elapsed: float
    """Seconds since the first failure."""
    reason: str
    """Why no further attempt was made, such as `"budget exhausted"`."""
    exception: Exception | None
    """What the caller gets; None where the last result was refused."""


class BreakerChanged(NamedTuple):
    """A circuit breaker went from one state to another, with the window's figures at that moment."""

    name: str
    before: str
    after: str
    reason: str
    """What made it change, such as `"failure ratio"`, `"probe failed"` or `"forced open"`."""
    calls: int
    failures: int
    slow: int
    retry_after: float
    """Seconds until the first probe is let in; 0 unless it opened, infinity while it is held open by hand."""


class RateLimited(NamedTuple):
    """A limiter refused a call."""

    limiter: str
    key: tuple[str, ...]
    retry_after: float | None
    """Seconds until the call would be let through; None if never."""


class CallRefused(NamedTuple):
    """A policy that protects from overload refused a call, which was not begun."""

    policy: str
    """`"bulkhead"`, `"adaptive limit"`, `"adaptive throttle"` or `"load shedder"`."""
    name: str
    reason: str
    """Why, such as `"the queue is full"`."""


class AdaptiveLimitChanged(NamedTuple):
    """An adaptive limit lets more calls run at a time, or fewer."""

    name: str
    before: int
    after: int


class TimedOut(NamedTuple):
    """A call was cancelled because its time was up."""

    name: str
    seconds: float
    """How long it had."""
    by_deadline: bool
    """Whether that was what the context's deadline left, and not the timeout's own seconds."""


class FallbackUsed(NamedTuple):
    """A call failed, and something else was returned instead."""

    name: str
    exception: Exception
    """What the call raised."""


class FallbackFailed(NamedTuple):
    """A call failed, and so did what should have answered for it."""

    name: str
    exception: Exception
    """What the call raised."""
    failure: Exception
    """What the fallback raised, which the caller gets."""


class HedgeStarted(NamedTuple):
    """A call took long, and another attempt was begun beside it."""

    name: str
    attempt: int
    """The number of the new attempt, counted from 1."""
    delay: float
    """Seconds that were waited for the one before."""


class HedgeWon(NamedTuple):
    """An attempt that was begun beside the first one has answered first."""

    name: str
    attempt: int
    """Its number, counted from 1."""


class HedgeRefused(NamedTuple):
    """A call took long, and no other attempt was begun."""

    name: str
    attempt: int
    """The number that it would have had, counted from 1."""
    reason: str
    """Why not, such as `"budget exhausted"`."""


class StoreOutage(NamedTuple):
    """A limiter was asked while its store was away, and did what its `on_outage` says."""

    limiter: str
    policy: str
    """`"open"`, `"closed"` or `"local"`."""
    exception: Exception
    """The `StoreUnavailable`."""


class SweepFinished(NamedTuple):
    """A janitor has swept once."""

    janitor: str
    sessions_cleaned: int
    elapsed: float
    complete: bool
    """Whether nothing expired was left over."""
    dry_run: bool
    left_to_another: bool = False
    """Whether it ended because another node was cleaning the same sessions."""


class SweepFailed(NamedTuple):
    """A sweep raised; the janitor goes on and will sweep again."""

    janitor: str
    exception: Exception


class MemoryAlert(NamedTuple):
    """Resident memory has passed the alert threshold."""

    janitor: str
    resident: int
    """Bytes."""
    limit: int
    """Bytes."""
    slope: float
    """Bytes a second, over the recent readings."""


class IdleConnection(NamedTuple):
    """A database connection that has done nothing for longer than is allowed."""

    pid: int
    """The server process that serves it."""
    application_name: str
    client: str | None
    """The address it comes from; None for one by a Unix socket."""
    state: str
    """`"idle in transaction"`, `"idle in transaction (aborted)"` or `"idle"`."""
    seconds: float
    """How long it has been in that state, by the clock of the database."""


class SparedConnection(NamedTuple):
    """An idle connection that was not ended, and why."""

    connection: IdleConnection
    reason: str
    """Such as `"holds an advisory lock"`, `"may be listening"` or `"kept by name"`."""


class ConnectionsReaped(NamedTuple):
    """A reaper has looked for idle connections once."""

    reaper: str
    ended: tuple[IdleConnection, ...]
    """Those it has ended; in a dry run, those it would have ended."""
    spared: tuple[SparedConnection, ...]
    elapsed: float
    dry_run: bool


class ConnectionHeld(NamedTuple):
    """A connection was taken out of its pool, and has not come back for longer than the threshold."""

    pool: str
    connection: str
    """Its type and address in memory, which tell it from others while it lives."""
    seconds: float
    """How long it has been out."""
    stack: tuple[str, ...]
    """Who took it: `"file:line in function"`, the innermost last."""


class ConnectionReturned(NamedTuple):
    """A connection has come back that was out for longer than the threshold."""

    pool: str
    connection: str
    seconds: float
    """How long it was out."""
    stack: tuple[str, ...]
    """Who took it, as in `ConnectionHeld`."""


class ConnectionLost(NamedTuple):
    """A connection was taken out of its pool and thrown away: it cannot come back any more."""

    pool: str
    connection: str
    seconds: float
    """How long it was out when it was thrown away."""
    stack: tuple[str, ...]
    """Who took it, as in `ConnectionHeld`."""


class Hook:
    """A listener that cannot break the call it listens to.

    Args:
        listener: A function of one event; not a coroutine function, since nobody would await it.

    Raises:
        TypeError: `listener` cannot be called, or a call of it would only make a coroutine or generator.
    """

    __slots__ = ("_listener", "_unreported")

    def __init__(self, listener: Listener) -> None:
        if kind_of(listener) is not Kind.SYNC:
            raise TypeError(
                f"the listener {name_of(listener)} is a {kind_of(listener).value}: listeners are called, "
                "not awaited; pass a plain function, which may start a task"
            )
        self._listener = listener
        self._unreported = [True]

    def __call__(self, event: Any) -> None:
        """Give `event` to the listener; log what it raises the first time it does."""
        try:
            answer = self._listener(event)
            if isinstance(answer, CoroutineType):
                _refuse_coroutine(answer)  # pyright: ignore[reportUnknownArgumentType] - of anything
        except Exception:
            if self._is_first_failure():
                import logging  # noqa: PLC0415 - loaded only when something went wrong

                logging.getLogger("resilience").exception(
                    "the listener %s failed on %s; its further failures are not logged",
                    name_of(self._listener),
                    type(event).__name__,
                )

    def _is_first_failure(self) -> bool:
        try:
            self._unreported.pop()  # atomic, also without the GIL: of several failing threads one gets it
        except IndexError:
            return False
        return True


def _refuse_coroutine(answer: CoroutineType[Any, Any, Any]) -> None:
    answer.close()
    raise TypeError(
        f"it returned the coroutine {answer.__qualname__}, which nobody awaits; start a task instead"
    )


class _Subscribers:
    """The hooks that get every event of this process.

    `hooks` is replaced under the lock and never changed, so `publish` reads it without: it gets the hooks
    from before or from after, also without the GIL.
    """

    def __init__(self) -> None:
        self.hooks: tuple[Hook, ...] = ()
        survive_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def add(self, hook: Hook) -> None:
        with self._lock:
            self.hooks = (*self.hooks, hook)

    def remove(self, hook: Hook) -> None:
        with self._lock:
            self.hooks = tuple(other for other in self.hooks if other is not hook)


SUBSCRIBERS: Final = _Subscribers()
"""Whoever gets everything; a hot path spares itself the record where this has no hooks."""


def subscribe(listener: Listener) -> Callable[[], None]:
    """Call `listener` with every event of every policy in this process.

    Threads may subscribe and unsubscribe at any time, listeners too: an event that is being published
    goes to those who were subscribed when it began.

    Returns:
        A function that ends the subscription; calling it again does nothing.

    Raises:
        TypeError: `listener` is not a plain function.
    """
    hook = Hook(listener)
    SUBSCRIBERS.add(hook)
    return lambda: SUBSCRIBERS.remove(hook)


def hooks(*listeners: Listener | None) -> tuple[Hook, ...]:
    """Return the listeners that are not None as hooks, refusing what cannot be one."""
    return tuple(Hook(listener) for listener in listeners if listener is not None)


def is_heard(own: tuple[Hook, ...]) -> bool:
    """Whether anybody would get an event, so that a hot path need not make a record for nobody."""
    return bool(own or SUBSCRIBERS.hooks)


def publish(event: Any, own: Iterable[Hook] = ()) -> None:
    """Give `event` to a policy's own hooks, then to all subscribers.

    Never called with a lock held.
    """
    for hook in own:
        hook(event)
    for hook in SUBSCRIBERS.hooks:
        hook(event)
