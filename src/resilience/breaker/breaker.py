"""The circuit breaker: stops calling what is down, and finds out gently when it is up again.

One breaker serves threads and event loops at the same time. It never waits, so it has no async twin. The
decisions are `_core.breaker`'s, the lock is `gate`'s; here is what users touch, and how a call is run.

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
from functools import update_wrapper
from itertools import count
from math import inf
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from resilience._core.breaker import Event
from resilience.breaker.gate import Gate, Permit
from resilience.breaker.guards import guarded
from resilience.breaker.settings import policy_of, rule_of
from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.checks import count as whole_number
from resilience.checks import optional_name
from resilience.clock import SYSTEM_CLOCK
from resilience.conditions import matcher, result_predicate
from resilience.events import hooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import ParamSpec, TypeVar

    from resilience.boards import Board
    from resilience.clock import Clock
    from resilience.conditions import Condition
    from resilience.events import Listener

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["CircuitBreaker", "Permit", "Snapshot"]

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
    """Seconds until a call may be let in: 0 if at once, None where it is held open by hand.

    While only a share of the calls is let through, it is the seconds until all are.
    """
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
        ramp_up: Seconds, at least 0, for which a share of the calls that grows from a tenth to all is let
            through once the probes have succeeded; the others are rejected. With 0, all are at once.
        recovery_jitter: The largest share of the recovery time that chance adds, 0 to 1, so that many
            processes do not probe in the same moment. It never shortens.
        recovery_growth: What the recovery time is multiplied by each time that a probe fails, at least 1.
        max_recovery_time: Seconds that growth ends at, at least `recovery_time`; left out, ten times that.
        record_on: Which exceptions are failures: types, predicates of an exception, or a tuple of either.
        ignore: Which of those are neutral after all, in the same forms.
        failure_if_result: A predicate of what a call returned: whether that is a failure.
        shared: A board, by which breakers of the same name in other processes open, are tested and close
            together; see `resilience.boards`. Its name must then be given.
        quorum: How many processes must have opened for all to, at least 1.
        name: What errors, events and snapshots call it. Left out, the first function that it decorates
            gives the name, or else a number.
        clock: Where time comes from.
        random: Where jitter comes from: a function that returns a number from 0 to 1.
        on_change: Called with a `BreakerChanged` after each change of state.

    Neutral, whatever the settings: exceptions that are no `Exception` (a cancelled task, an interrupt, the
    early exit of a generator), a cancelled future, and the rejections of another breaker or limiter. They
    neither count nor reset. An exception group counts if it or one of its leaves does, and is neutral if all
    leaves are.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. A cancelled call gives its place back and is neutral.
    """

    __slots__ = ("__weakref__", "_gate", "_named")

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
        ramp_up: float = 0.0,
        recovery_jitter: float = 0.1,
        recovery_growth: float = 1.0,
        max_recovery_time: float | None = None,
        record_on: Condition = Exception,
        ignore: Condition = (),
        failure_if_result: Callable[[Any], bool] | None = None,
        shared: Board | None = None,
        quorum: int = 1,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        on_change: Listener | None = None,
    ) -> None:
        optional_name(name)
        if not callable(random):
            raise TypeError(f"random={random!r} must be a function that returns a number from 0 to 1")
        _check_sharing(shared, quorum, name)
        rule = rule_of(
            failure_threshold,
            failure_ratio=failure_ratio,
            minimum_calls=minimum_calls,
            window=window,
            window_calls=window_calls,
            slow_after=slow_after,
            slow_ratio=slow_ratio,
        )
        self._gate = Gate(
            policy_of(
                rule,
                recovery_time=recovery_time,
                recovery_jitter=recovery_jitter,
                recovery_growth=recovery_growth,
                max_recovery_time=max_recovery_time,
                probes=probes,
                probe_lease=probe_lease,
                ramp_up=ramp_up,
            ),
            f"breaker-{next(_numbers)}" if name is None else name,
            slow_after=slow_after,
            recorded=matcher(record_on, "record_on"),
            ignored=matcher(ignore, "ignore"),
            fails_by_result=result_predicate(failure_if_result, "failure_if_result"),
            clock=clock,
            random=random,
            on_change=hooks(on_change),
        )
        self._named = name is not None
        if shared is not None:
            self._gate.join(shared, quorum)

    # --- what it is ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What errors, events and snapshots call it."""
        return self._gate.name

    @property
    def gate(self) -> Gate:
        """What decides, for a policy that does the breaker's work in a wrapper of its own."""
        return self._gate

    @property
    def is_closed(self) -> bool:
        """Whether it lets all calls pass: false also while it lets only a share of them. Takes no lock."""
        return self._gate.core.period.passes

    @property
    def state(self) -> str:
        """`"closed"`, `"open"`, `"half-open"`, `"forced-open"` or `"forced-closed"`. Takes no lock.

        An open breaker becomes half-open with the first call after its recovery time, not before.
        """
        return self._gate.core.period.state.value

    def snapshot(self) -> Snapshot:
        """Return its state and figures, all of the same instant."""
        gate = self._gate
        core = gate.core
        now = gate.now()
        with gate.lock:
            gate.take_back(now)
            wait = core.retry_after(now)
            calls, failures, slow = core.figures(now)
            period = core.period
            return Snapshot(
                name=gate.name,
                state=period.state.value,
                failures=failures,
                threshold=core.policy.rule.threshold,
                time_until_retry=wait if wait < inf else None,
                calls=calls,
                slow=slow,
                probes=len(period.leases),
                probe_successes=period.successes,
                generation=period.generation,
            )

    def last_trouble(self, now: float) -> float:
        """Return when it last had a failed or slow call on record, or was open, by its clock.

        Minus infinity if there is none on record; infinity while it is held by hand.
        """
        with self._gate.lock:
            return self._gate.core.last_trouble(now)

    # --- running calls ---------------------------------------------------------------------------

    def execute(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn` and return its result, unless the breaker rejects the call.

        Raises:
            CircuitOpenError: The call was rejected, and not begun.
            TypeError: `fn` returned a coroutine, or is a generator function: its work would run unguarded.
        """
        gate = self._gate
        period = gate.core.period
        if not period.passes:
            with gate.admit() as permit:
                result = fn(*args, **kwargs)
                if type(result) in _UNDONE:
                    _refuse_undone(fn, result)
                permit.success(result)
            return result
        started = gate.now() if gate.timed else inf
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            gate.count(period, started, error)
            raise
        if type(result) in _UNDONE:
            _refuse_undone(fn, result)
        if gate.examines:
            gate.count(period, started, None, result)
        elif period.window.success_matters:
            gate.count_success(period)
        return result

    async def execute_async(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `fn`, await and return its result, unless the breaker rejects the call.

        Raises:
            CircuitOpenError: The call was rejected; no coroutine was made.
            TypeError: `fn` returned nothing that can be awaited.
        """
        gate = self._gate
        period = gate.core.period
        if not period.passes:
            with gate.admit() as permit:
                result = await _awaitable(fn, fn(*args, **kwargs))
                permit.success(result)
            return result
        started = gate.now() if gate.timed else inf
        try:
            result = await _awaitable(fn, fn(*args, **kwargs))
        except Exception as error:
            gate.count(period, started, error)
            raise
        if gate.examines:
            gate.count(period, started, None, result)
        elif period.window.success_matters:
            gate.count_success(period)
        return result

    def acquire(self) -> Permit:
        """Return a permit for one call, to be settled when its outcome is known.

        Raises:
            CircuitOpenError: The call is rejected.

        Example:
            >>> breaker = CircuitBreaker(5, 60.0)
            >>> permit = breaker.acquire()
            >>> permit.failure(TimeoutError("no answer within 2 s"))
            >>> breaker.snapshot().failures
            1
        """
        return self._gate.admit()

    def guard(self) -> Permit:
        """Return a permit for one `with` or `async with` block, whose end settles it.

        Raises:
            CircuitOpenError: The block is rejected.

        Example:
            >>> with CircuitBreaker(5, 60.0).guard():
            ...     print("the call")
            the call
        """
        return self._gate.admit()

    def __call__(self, fn: Callable[P, T], /) -> Callable[P, T]:
        """Decorate `fn`: a function, coroutine function, generator function or async generator function.

        A generator is admitted when its first item is asked for. A failure in mid-stream counts; leaving it
        early is neutral.

        Raises:
            TypeError: `fn` cannot be guarded.
        """
        wrapper = guarded(fn, self._gate, self.execute, self.execute_async)
        if not self._named:
            self._named, self._gate.name = True, name_of(fn)
        return update_wrapper(wrapper, fn)

    # --- by hand ---------------------------------------------------------------------------------

    def force_open(self) -> None:
        """Reject all calls until `reset` or `force_close`."""
        self._gate.apply(Event.FORCE_OPEN)

    def force_close(self) -> None:
        """Let all calls pass until `reset` or `force_open`; they are counted, but cannot open it."""
        self._gate.apply(Event.FORCE_CLOSE)

    def reset(self) -> None:
        """Close it and count afresh; the outcomes of calls in flight will be ignored."""
        self._gate.apply(Event.RESET)

    def continue_from(self, other: CircuitBreaker) -> None:
        """Go on in the state of `other`, by the settings of this one; the two are one breaker from now on.

        It is as open as `other` was, and keeps its window if both count in the same way. Outcomes of calls
        that `other` has admitted count. Nothing is done where one of them is shared, and so learns from its
        board.
        """
        gate = other.gate
        if gate is not self._gate and gate.wake is None and self._gate.wake is None:
            gate.go_on_by(self._gate)
            self._gate = gate

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"CircuitBreaker {self.name!r} cannot be copied or pickled: it holds a lock and the outcomes of "
            "live calls; share the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name and state."""
        return f"<CircuitBreaker {self.name!r}, {self.state}>"


def _check_sharing(shared: Board | None, quorum: int, name: str | None) -> None:
    if whole_number("quorum", quorum, least=1) > 1 and shared is None:
        raise ValueError(
            f"quorum={quorum!r} means nothing without shared: say by which board they know each other"
        )
    if shared is None:
        return
    if not callable(getattr(shared, "enrol", None)):
        raise TypeError(f"shared={shared!r} must be a board, such as resilience.boards.redis.RedisBoard(url)")
    if name is None:
        raise ValueError("a shared breaker needs a name=…, by which other processes know it")


_UNDONE: Final = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def _refuse_undone(fn: Callable[..., Any], result: Any) -> None:
    """Raise if `result` shows that the work of `fn` has not been done yet.

    A generator that an ordinary function returns, whoever made it, is a result like any other.
    """
    if type(result) is CoroutineType:
        result.close()
        raise MisuseError(
            f"{name_of(fn)} returned a coroutine, which would run unguarded: use execute_async, or decorate "
            "a function written with `async def`"
        )
    kind = kind_of(fn)
    if kind is not Kind.SYNC:
        raise MisuseError(
            f"{name_of(fn)} is a {kind.value}, which would run unguarded, when its items are asked for: "
            "decorate it with the breaker instead"
        )


def _awaitable(fn: Callable[..., Any], returned: Awaitable[T]) -> Awaitable[T]:
    if hasattr(returned, "__await__"):
        return returned
    raise MisuseError(f"{name_of(fn)} returned {returned!r}, which cannot be awaited: use execute")
