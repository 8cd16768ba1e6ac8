"""The circuit breaker: stops calling what is down, and finds out gently when it is up again.

Rules:

- One breaker serves threads and event loops at the same time. It never waits, so it has no async twin.
- The decisions are `_core.breaker`'s. Here is what surrounds them: the clock, the lock, the classification
  of outcomes, and the ways to run a call.
- The lock is held while the core decides and never while anybody else's code runs: not the call, not a
  predicate, not a listener.
- Two things need no lock. While closed, a call is admitted by reading one attribute, and a success that
  would change nothing is not reported. While open, a rejection reads one attribute too. Why that is safe,
  also without the GIL, is said where it is done.

Example:
    >>> breaker = CircuitBreaker(2, 60.0, name="storage")     # two failures in a row open it for a minute
    >>> def fetch():
    ...     raise ConnectionError("storage is down")
    >>> for _ in range(3):
    ...     try:
    ...         breaker.execute(fetch)
    ...     except Exception as error:
    ...         print(type(error).__name__, breaker.state)
    ConnectionError closed
    ConnectionError open
    CircuitOpenError open
"""

from __future__ import annotations

import random
from collections import deque
from functools import update_wrapper
from itertools import count
from math import inf, isfinite
from threading import RLock
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Self

from resilience._core.breaker import Breaker, Event, Outcome, Policy
from resilience._core.trip import InARow, Ratio
from resilience.callables import Kind, kind_of, name_of
from resilience.clock import SYSTEM_CLOCK
from resilience.conditions import is_cancellation, matcher
from resilience.errors import CircuitOpenError, RateLimitedError
from resilience.events import BreakerChanged, hooks, publish
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from types import TracebackType
    from typing import ParamSpec, TypeVar

    from resilience._core.breaker import Change, Grant, Period
    from resilience._core.trip import Rule
    from resilience.clock import Clock
    from resilience.conditions import Condition
    from resilience.events import Listener

    P = ParamSpec("P")
    T = TypeVar("T")

_UNKNOWN: Final[Any] = object()
_numbers = count(1)


class Snapshot(NamedTuple):
    """A breaker at one moment, for people and dashboards."""

    name: str
    state: str
    """`"closed"`, `"open"`, `"half-open"`, `"forced-open"` or `"forced-closed"`."""
    failures: int
    """Failures in the window; unless closed, in the window that opened the breaker."""
    threshold: float
    """How many failures in a row open it, or which share of the calls."""
    time_until_retry: float | None
    """Seconds until a call may be let in: 0 if at once, None where it is held open by hand."""
    calls: int
    """Calls in the same window as `failures`."""
    slow: int
    """Slow calls in the same window."""
    probes: int
    """Probes in flight."""
    probe_successes: int
    """Probes that have succeeded, of those that must."""
    generation: int
    """The number of the present state period, counted from 1."""


class Permit:
    """The right to run once, settled exactly once: what comes after the first outcome is ignored.

    As a context manager it settles itself: success at the end, failure on an exception that counts, neutral
    on a cancellation or an early exit. One that is dropped unsettled is neutral too. Threads and tasks may
    pass it on.
    """

    __slots__ = ("_breaker", "grant", "settled", "started")

    def __init__(self, breaker: CircuitBreaker, grant: Grant, started: float) -> None:
        self._breaker = breaker
        self.grant = grant
        """What the state machine granted: the generation, the place, and when its lease runs out."""
        self.started = started
        """When the call began; infinity where it cannot be slow."""
        self.settled = False
        """Whether the outcome has been taken."""

    def success(self, result: Any = _UNKNOWN) -> None:
        """The call succeeded; `failure_if_result` is asked about `result`, where that is given."""
        self._settle(None, result)

    def failure(self, error: BaseException) -> None:
        """The call raised `error`: a failure or neutral, as `record_on` and `ignore` have it."""
        self._settle(error, _UNKNOWN)

    def neutral(self) -> None:
        """The call says nothing about the dependency."""
        self._breaker._settle(self, Outcome.NEUTRAL)  # noqa: SLF001 - a permit is a part of its breaker

    def _settle(self, error: BaseException | None, result: Any) -> None:
        if self.settled:
            return
        outcome = Outcome.NEUTRAL  # what it stays if a predicate raises
        try:
            outcome = self._breaker._outcome(error, result)  # noqa: SLF001 - a permit is a part of its breaker
        finally:
            self._breaker._settle(self, outcome)  # noqa: SLF001 - a permit is a part of its breaker

    def __enter__(self) -> Self:
        """Begin the call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended."""
        self._settle(error, _UNKNOWN)

    async def __aenter__(self) -> Self:
        """Begin the call."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended; awaits nothing."""
        self._settle(error, _UNKNOWN)

    def __del__(self) -> None:
        """Give the place back, if nobody has settled."""
        # A finaliser runs anywhere, even while its own thread is deciding: so it only leaves a note.
        if self.grant.ticket and not self.settled:
            self._breaker._abandoned.append(self.grant)  # noqa: SLF001 - a permit is a part of its breaker

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a Permit cannot be copied or pickled: it is settled once, where it was acquired")


class CircuitBreaker:
    """Rejects calls while what they depend on is down, and lets a few through to see whether it is up again.

    Args:
        failure_threshold: Open after this many failures in a row, at least 1. Left out, it opens by ratio.
        recovery_time: Seconds that it stays open at least, above 0.
        failure_ratio: Open when this share of the calls in the window failed, above 0 and up to 1.
        minimum_calls: How many calls the window must hold before a ratio means anything, at least 1.
        window: Seconds that a call counts for the ratio, above 0.
        window_calls: Let the ratio be over this many last calls, instead of over `window` seconds.
        slow_after: Seconds after which a call that succeeded was slow, above 0. A slow probe has failed.
        slow_ratio: Open when this share of the calls in the window was slow, above 0 and up to 1.
        probes: How many calls are let through to test, and must succeed to close it, at least 1.
        probe_lease: Seconds after which a probe that has not ended loses its place to another, above 0.
            Choose more than a call may take.
        recovery_jitter: The largest share of the recovery time that chance adds, 0 to 1, so that many
            processes do not probe in the same moment. It never shortens.
        recovery_growth: What the recovery time is multiplied by each time that a probe fails, at least 1.
        max_recovery_time: Seconds that growth ends at, at least `recovery_time`; left out, ten times that.
        record_on: Which exceptions are failures: types, predicates of an exception, or a tuple of either.
        ignore: Which of those are neutral after all, in the same forms.
        failure_if_result: A predicate of what a call returned: whether that is a failure.
        name: What errors, events and snapshots call it. Left out, the first function that it decorates
            gives the name, or else a number.
        clock: Where time comes from.
        random: Where jitter comes from: a function that returns a number from 0 to 1.
        on_change: Called with a `BreakerChanged` after each change of state.

    Neutral, whatever the settings: exceptions that are no `Exception` (a cancelled task, an interrupt, the
    early exit of a generator), a cancelled future, and the rejections of another breaker or limiter. They
    neither count nor reset.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. A cancelled call gives its place back and is neutral.
    """

    __slots__ = (
        "__weakref__",
        "_abandoned",
        "_clock",
        "_core",
        "_examines",
        "_failure_if_result",
        "_ignored",
        "_lock",
        "_name",
        "_named",
        "_now",
        "_on_change",
        "_random",
        "_recorded",
        "_slow_after",
    )

    _lock: RLock

    def __init__(
        self,
        failure_threshold: int | None = None,
        recovery_time: float = 5.0,
        *,
        failure_ratio: float = 0.5,
        minimum_calls: int = 5,
        window: float = 10.0,
        window_calls: int | None = None,
        slow_after: float | None = None,
        slow_ratio: float = 1.0,
        probes: int = 3,
        probe_lease: float = 30.0,
        recovery_jitter: float = 0.1,
        recovery_growth: float = 1.0,
        max_recovery_time: float | None = None,
        record_on: Condition = Exception,
        ignore: Condition = (),
        failure_if_result: Callable[[Any], bool] | None = None,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        on_change: Listener | None = None,
    ) -> None:
        _check_seconds("recovery_time", recovery_time)
        _check_seconds("probe_lease", probe_lease)
        _check_count("probes", probes)
        _check_number("recovery_jitter", recovery_jitter, 0.0, 1.0)
        _check_number("recovery_growth", recovery_growth, 1.0)
        if max_recovery_time is None:
            max_recovery_time = 10 * recovery_time
        _check_number("max_recovery_time", max_recovery_time, recovery_time)
        if slow_after is not None:
            _check_seconds("slow_after", slow_after)
        self._clock = clock
        self._now = clock.now
        self._random = random
        self._core = Breaker(
            Policy(
                _rule(
                    failure_threshold,
                    failure_ratio,
                    minimum_calls,
                    window,
                    window_calls,
                    slow_after,
                    slow_ratio,
                ),
                recovery_time,
                recovery_jitter,
                recovery_growth,
                max_recovery_time,
                probes,
                probe_lease,
            ),
            clock.now(),
        )
        self._slow_after = inf if slow_after is None else slow_after
        self._failure_if_result = failure_if_result
        self._examines = slow_after is not None or failure_if_result is not None
        self._recorded = matcher(record_on, "record_on")
        self._ignored = matcher(ignore, "ignore")
        self._on_change = hooks(on_change)
        self._named = name is not None
        self._name = f"breaker-{next(_numbers)}" if name is None else name
        self._abandoned: deque[Grant] = deque()
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew in a forked child; `resilience.fork` calls this."""
        self._lock = RLock()

    # --- what it is ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What errors, events and snapshots call it."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether it lets all calls pass. Takes no lock."""
        return self._core.period.passes

    @property
    def state(self) -> str:
        """`"closed"`, `"open"`, `"half-open"`, `"forced-open"` or `"forced-closed"`. Takes no lock.

        An open breaker becomes half-open with the first call after its recovery time, not before.
        """
        return self._core.period.state.value

    def snapshot(self) -> Snapshot:
        """Return its state and figures at this moment, all of the same instant."""
        now = self._now()
        with self._lock:
            self._take_back(now)
            core = self._core
            wait = core.retry_after(now)
            figures = core.figures(now)
            period = core.period
            return Snapshot(
                self._name,
                period.state.value,
                figures.failures,
                core.policy.rule.threshold,
                None if wait == inf else wait,
                figures.calls,
                figures.slow,
                len(period.leases),
                period.successes,
                period.generation,
            )

    # --- running calls ---------------------------------------------------------------------------

    def execute(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` and return its result, unless the breaker rejects the call.

        Raises:
            CircuitOpenError: The call was rejected, and not begun.
            TypeError: `fn` returned a coroutine, which `execute_async` would have awaited.
        """
        period = self._core.period
        if self._examines or not period.passes:
            with self.acquire() as permit:
                result = fn(*args, **kwargs)
                if type(result) is CoroutineType:
                    permit.neutral()
                    _refuse_coroutine(fn, result)
                permit.success(result)
            return result
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            self._count_error(period, error)
            raise
        if type(result) is CoroutineType:
            _refuse_coroutine(fn, result)
        if period.window.success_matters:
            self._count_success(period)
        return result

    async def execute_async(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn`, await and return its result, unless the breaker rejects the call.

        Raises:
            CircuitOpenError: The call was rejected; no coroutine was made.
        """
        period = self._core.period
        if self._examines or not period.passes:
            with self.acquire() as permit:
                result = await fn(*args, **kwargs)
                permit.success(result)
            return result
        try:
            result = await fn(*args, **kwargs)
        except Exception as error:
            self._count_error(period, error)
            raise
        if period.window.success_matters:
            self._count_success(period)
        return result

    def acquire(self) -> Permit:
        """Return a permit for one call, to be settled when its outcome is known.

        Raises:
            CircuitOpenError: The call is rejected.
        """
        return self._admit(self._now())

    def guard(self) -> Permit:
        """Return a permit for a `with` or `async with` block, whose end settles it.

        Raises:
            CircuitOpenError: The block is rejected.
        """
        return self.acquire()

    # --- by hand ---------------------------------------------------------------------------------

    def force_open(self) -> None:
        """Reject all calls until `reset` or `force_close`."""
        self._apply(Event.FORCE_OPEN)

    def force_close(self) -> None:
        """Let all calls pass until `reset` or `force_open`; they are counted, but cannot open it."""
        self._apply(Event.FORCE_CLOSE)

    def reset(self) -> None:
        """Close it and count afresh; outcomes of calls that are in flight will be ignored."""
        self._apply(Event.RESET)

    # --- inside ----------------------------------------------------------------------------------

    def _admit(self, started: float) -> Permit:
        now = self._now()
        # Safe without the lock: a period is replaced, never reopened, and `until` only ever shrinks. At the
        # moment `period` was read it was the breaker's state, and there it rejects every call.
        period = self._core.period
        until = period.until
        if period.began <= now < until:
            raise CircuitOpenError(self._name, until - now if until < inf else None)
        wait = 0.0
        with self._lock:
            self._take_back(now)
            grant = self._core.admit(now)
            if grant is None:
                wait = self._core.retry_after(now)
        if grant is None:
            raise CircuitOpenError(self._name, wait if wait < inf else None)
        permit = Permit(self, grant, started)
        self._tell(grant.change)
        return permit

    def _take_back(self, now: float) -> None:
        """Take the places back whose permits were dropped. The caller holds the lock."""
        while self._abandoned:
            grant = self._abandoned.popleft()
            self._core.settle(grant.period, grant.ticket, Outcome.NEUTRAL, now)

    def _outcome(self, error: BaseException | None, result: Any) -> Outcome:
        """Judge how a call ended. Runs the user's predicates, so no lock is held."""
        if error is None:
            judge = self._failure_if_result
            failed = judge is not None and result is not _UNKNOWN and judge(result)
            return Outcome.FAILURE if failed else Outcome.SUCCESS
        if (
            not isinstance(error, Exception)
            or isinstance(error, CircuitOpenError | RateLimitedError)
            or is_cancellation(error)
            or self._ignored(error)
            or not self._recorded(error)
        ):
            return Outcome.NEUTRAL
        return Outcome.FAILURE

    def _settle(self, permit: Permit, outcome: Outcome) -> None:
        now, draw = self._now(), self._random()
        slow = now - permit.started > self._slow_after
        with self._lock:
            if permit.settled:
                return
            grant = permit.grant
            change = self._core.settle(grant.period, grant.ticket, outcome, now, draw, slow=slow)
            permit.settled = True
        self._tell(change)

    def _count_error(self, period: Period, error: Exception) -> None:
        if self._outcome(error, _UNKNOWN) is not Outcome.FAILURE:
            return
        now, draw = self._now(), self._random()
        with self._lock:
            change = self._core.settle(period, 0, Outcome.FAILURE, now, draw)
        self._tell(change)

    # A success is reported only if `window.success_matters`. That is read without the lock, and is safe: if
    # it reads false, then at that moment the window held no failure and this success would have changed
    # nothing, so the call counts as having ended then, before whatever failure comes next. If the period is
    # over by then, the success is late and changes nothing either way. The read is of one attribute that
    # holds True or False, so there is no half of it to see, on a free-threaded build too; and a failure that
    # this same thread, or one that it has waited for, has counted before is seen, since the lock orders it.
    def _count_success(self, period: Period) -> None:
        now = self._now()
        with self._lock:
            # A late success lands in the window of its own generation, which nobody reads any more.
            period.window.succeed(now)

    def _apply(self, event: Event) -> None:
        now = self._now()
        with self._lock:
            change = self._core.apply(event, now)
        self._tell(change)

    def _tell(self, change: Change | None) -> None:
        if change is not None:
            calls, failures, slow = change.figures
            before, after = change.before.value, change.after.value
            publish(
                BreakerChanged(
                    self._name, before, after, change.reason, calls, failures, slow, change.retry_after
                ),
                self._on_change,
            )

    # --- as a decorator --------------------------------------------------------------------------

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """Decorate `fn`: a function, coroutine function, generator function or async generator function.

        A generator is admitted when its first item is asked for. A failure in mid-stream counts; leaving it
        early is neutral.

        Raises:
            TypeError: `fn` cannot be guarded.
        """
        guarded = _GUARDS[kind_of(fn)](self, fn)
        if not self._named:
            self._named, self._name = True, name_of(fn)
        return update_wrapper(guarded, fn)

    def _guard_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        core, execute, examines = self._core, self.execute, self._examines
        count_error, count_success = self._count_error, self._count_success
        unchecked = True

        def guarded(*args: Any, **kwargs: Any) -> Any:
            nonlocal unchecked
            period = core.period
            if unchecked or examines or not period.passes:
                result = execute(fn, *args, **kwargs)
                unchecked = False
                return result
            # The same as `execute`, but for the call of it.
            try:
                result = fn(*args, **kwargs)
            except Exception as error:
                count_error(period, error)
                raise
            if period.window.success_matters:
                count_success(period)
            return result

        return guarded

    def _guard_coroutine_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        core, execute, examines = self._core, self.execute_async, self._examines
        count_error, count_success = self._count_error, self._count_success

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            period = core.period
            if examines or not period.passes:
                return await execute(fn, *args, **kwargs)
            # The same as `execute_async`, but for the call of it.
            try:
                result = await fn(*args, **kwargs)
            except Exception as error:
                count_error(period, error)
                raise
            if period.window.success_matters:
                count_success(period)
            return result

        return guarded

    def _guard_generator_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with self._admit(inf):  # a stream is as slow as its reader
                return (yield from fn(*args, **kwargs))

        return guarded

    def _guard_async_generator_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            with self._admit(inf):  # a stream is as slow as its reader
                stream = fn(*args, **kwargs)
                try:
                    item = await anext(stream)
                    while True:
                        try:
                            sent = yield item
                        except Exception as error:
                            item = await stream.athrow(error)
                        else:
                            item = await stream.asend(sent)
                except StopAsyncIteration:
                    return
                finally:
                    await stream.aclose()

        return guarded

    # --- what it is not --------------------------------------------------------------------------

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"CircuitBreaker {self._name!r} cannot be copied or pickled: it holds a lock and the outcomes of "
            "live calls; share the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name and state."""
        return f"<CircuitBreaker {self._name!r}, {self.state}>"


_GUARDS: Final = {
    Kind.SYNC: CircuitBreaker._guard_function,  # noqa: SLF001 - the class's own table
    Kind.ASYNC: CircuitBreaker._guard_coroutine_function,  # noqa: SLF001 - the class's own table
    Kind.GENERATOR: CircuitBreaker._guard_generator_function,  # noqa: SLF001 - the class's own table
    Kind.ASYNC_GENERATOR: CircuitBreaker._guard_async_generator_function,  # noqa: SLF001 - the class's own table
}


def _refuse_coroutine(fn: Callable[..., Any], coroutine: CoroutineType[Any, Any, Any]) -> NoReturn:
    coroutine.close()
    raise TypeError(
        f"{name_of(fn)} returned a coroutine, which would run unguarded: use execute_async, or decorate a "
        "function written with `async def`"
    )


def _rule(
    failure_threshold: int | None,
    failure_ratio: float,
    minimum_calls: int,
    window: float,
    window_calls: int | None,
    slow_after: float | None,
    slow_ratio: float,
) -> Rule:
    """Return the trip rule that the arguments mean, or refuse them."""
    if failure_threshold is not None:
        _check_count("failure_threshold", failure_threshold)
        if (failure_ratio, minimum_calls, window, window_calls, slow_after) != (0.5, 5, 10.0, None, None):
            raise ValueError(
                f"failure_threshold={failure_threshold!r} counts failures in a row: leave it out to open by "
                "failure_ratio, minimum_calls, window, window_calls or slow_after"
            )
        return InARow(failure_threshold)
    _check_share("failure_ratio", failure_ratio)
    _check_share("slow_ratio", slow_ratio)
    _check_count("minimum_calls", minimum_calls)
    _check_seconds("window", window)
    if window_calls is not None:
        _check_count("window_calls", window_calls)
        if window_calls < minimum_calls:
            raise ValueError(
                f"window_calls={window_calls!r} is less than minimum_calls={minimum_calls!r}: such a breaker "
                "would never open"
            )
    return Ratio(
        failure_ratio, inf if slow_after is None else slow_ratio, minimum_calls, window, window_calls
    )


def _check_number(argument: str, value: float, least: float, most: float = inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise TypeError(f"{argument}={value!r} must be a number")
    if not least <= value <= most or not isfinite(value):
        bounds = f"at least {least:g}" if most == inf else f"from {least:g} to {most:g}"
        raise ValueError(f"{argument}={value!r} must be {bounds}, and finite")


def _check_seconds(argument: str, value: float) -> None:
    _check_number(argument, value, 0.0)
    if value == 0:
        raise ValueError(f"{argument}={value!r} must be more than 0 seconds")


def _check_share(argument: str, value: float) -> None:
    _check_number(argument, value, 0.0, 1.0)
    if value == 0:
        raise ValueError(f"{argument}={value!r} must be more than 0")


def _check_count(argument: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance] - callers are not all typed
        raise TypeError(f"{argument}={value!r} must be a whole number")
    if value < 1:
        raise ValueError(f"{argument}={value!r} must be at least 1")
