"""The driver of a circuit breaker: locks, asks the state machine, unlocks, and tells.

Rules:

- The lock is held while `_core.breaker` decides and never while anybody else's code runs: not the call, not
  a predicate, not a listener, not a clock.
- Five things need no lock, also without the GIL:

  *A rejection while open, a permit while closed* read `core.period` once. A period is replaced, never
  reopened, and its `until`, which is read once too, only ever shrinks. So at the moment of that read the
  answer was right, and that is the moment at which the call counts as rejected or admitted.

  *A success that changes nothing* is not reported. `window.success_matters` is one attribute that holds True
  or False, so there is no half of it to see. Where it reads false, the window held no trouble at that moment
  and this success would have changed nothing: the call counts as having ended then, before whatever failure
  comes next. Failures that this thread has counted, or has waited for, are seen, since the lock orders them.
  If the period is over by then, the success is late and changes nothing either way.

  *A success within the time window* is noted in a list, which the next holder of the lock takes; see there.

  *A neutral outcome* leaves a note that its place is free, for the next who looks for one, and so does a
  permit that is dropped. To append to a deque is atomic. It may even happen in the middle of a decision: the
  garbage collector finds an abandoned stream, say, on the thread that holds the lock. Tickets are never used
  again, so a note that comes too late takes no place from anybody.
"""

from __future__ import annotations

from collections import deque
from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from resilience._core.breaker import Breaker, Outcome
from resilience.callables import MisuseError
from resilience.conditions import leaves, says_nothing
from resilience.errors import CircuitOpenError, DeadlinePassed
from resilience.events import BreakerChanged, publish
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from resilience._core.breaker import Change, Event, Period, Policy
    from resilience.boards import Board
    from resilience.clock import Clock
    from resilience.events import Hook

_UNKNOWN: Final[Any] = object()


class Permit:
    """The right to run once, settled exactly once: what comes after the first outcome is ignored.

    As a context manager it settles itself: success at the end, failure on an exception that counts, neutral
    on a cancellation or an early exit. One that is dropped unsettled is neutral too. Threads and tasks may
    pass it on. A block that is begun with a settled one would run unguarded, and is refused with a TypeError.
    """

    __slots__ = ("_gate", "deadline", "period", "settled", "started", "ticket")

    def __init__(self, gate: Gate, period: Period, ticket: int, deadline: float, started: float) -> None:
        self._gate = gate
        self.period = period
        """The generation that it belongs to."""
        self.ticket = ticket
        """Which place it holds, counted from 1; 0 where it needs none."""
        self.deadline = deadline
        """When its lease runs out; infinity where it holds no place."""
        self.started = started
        """When the call began; infinity where nobody asks how long it takes."""
        self.settled = False
        """Whether the outcome has been taken."""

    @property
    def generation(self) -> int:
        """The number of the state period that it belongs to."""
        return self.period.generation

    def success(self, result: Any = _UNKNOWN) -> None:
        """The call succeeded; `failure_if_result` is asked about `result`, where that is given."""
        self._settle(None, result)

    def failure(self, error: BaseException) -> None:
        """The call raised `error`: a failure or neutral, as `record_on` and `ignore` have it.

        Raises:
            TypeError: `error` is no exception.
        """
        if not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise MisuseError(f"failure({error!r}): pass the exception that the call raised")
        self._settle(error, _UNKNOWN)

    def neutral(self) -> None:
        """The call says nothing about the dependency."""
        if not self.settled:
            self._gate.give_back(self)

    def _settle(self, error: BaseException | None, result: Any) -> None:
        if self.settled:
            return
        try:
            outcome = self._gate.outcome_of(error, result)
        except BaseException:
            self._gate.give_back(self)
            raise
        self._gate.settle(self, outcome)

    def _begin(self) -> Self:
        if self.settled:
            raise MisuseError("this permit has been settled: ask the breaker for one for each block")
        return self

    def __enter__(self) -> Self:
        """Begin the call."""
        return self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended."""
        self._settle(error, _UNKNOWN)

    async def __aenter__(self) -> Self:
        """Begin the call."""
        return self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how the block ended; awaits nothing, so no cancellation can come between."""
        self._settle(error, _UNKNOWN)

    def __del__(self) -> None:
        """Give the place back, if nobody has settled."""
        if not self.settled:
            self._gate.give_back(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a Permit cannot be copied or pickled: it is settled once, where it was acquired")


class Gate:
    """What stands between the callers of one breaker and its state machine."""

    __slots__ = (
        "__weakref__",
        "core",
        "examines",
        "fails_by_result",
        "free",
        "ignored",
        "lock",
        "name",
        "now",
        "on_change",
        "random",
        "recorded",
        "slow_after",
        "timed",
        "wake",
    )

    lock: RLock

    def __init__(
        self,
        policy: Policy,
        name: str,
        *,
        slow_after: float | None,
        recorded: Callable[[Exception], bool],
        ignored: Callable[[Exception], bool],
        fails_by_result: Callable[[Any], bool] | None,
        clock: Clock,
        random: Callable[[], float],
        on_change: tuple[Hook, ...],
    ) -> None:
        self.name = name
        self.slow_after = inf if slow_after is None else slow_after
        self.timed = slow_after is not None
        """Whether it matters when a call began."""
        self.examines = self.timed or fails_by_result is not None
        """Whether a call that returned may yet have been no success."""
        self.recorded = recorded
        self.ignored = ignored
        self.fails_by_result = fails_by_result
        self.now = clock.now
        self.random = random
        self.on_change = on_change
        self.core = Breaker(policy, clock.now())
        self.wake: Callable[[], object] | None = None
        """Tells the board, where it is shared by several processes, that there is something to tell them."""
        self.free: deque[tuple[Period, int]] = deque()
        """The places that were given back, and not yet taken back; appended to without the lock."""
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self.lock = RLock()

    def join(self, board: Board, quorum: int) -> None:
        """Share what happens here with other processes; to be called before anything has."""
        from resilience._core.shared import SharedBreaker  # noqa: PLC0415 - most breakers are not shared

        core = SharedBreaker(self.core.policy, self.now(), quorum)
        self.core = core
        self.wake = board.enrol(self, core)

    def go_on_by(self, other: Gate) -> None:
        """Go on by the settings of `other`, in the present state."""
        now = self.now()
        with self.lock:
            self.core.go_on_by(other.core.policy, now)
        self.slow_after, self.timed, self.examines = other.slow_after, other.timed, other.examines
        self.recorded, self.ignored = other.recorded, other.ignored
        self.fails_by_result = other.fails_by_result
        self.random, self.on_change = other.random, other.on_change

    # --- admission -------------------------------------------------------------------------------

    def rejects_for(self, period: Period) -> float:
        """Return the seconds for which `period` rejects every call; 0 or less where the lock must decide."""
        now = self.now()
        return period.until - now if period.began <= now else 0.0

    def rejection(self, wait: float) -> CircuitOpenError:
        """Return the error of a call that is to wait for so many seconds, infinity where it is held open.

        To be raised as it is returned: a variable that holds it would make a cycle of the error, its
        traceback and the frame, one for each rejection, which only the garbage collector ends. And it is
        returned, not raised here, because each frame that an exception passes costs as much as making it.
        """
        return CircuitOpenError(self.name, wait if wait < inf else None)

    def admit(self, *, timed: bool = True) -> Permit:
        """Return a permit, or raise CircuitOpenError.

        Args:
            timed: Whether the call may turn out to be slow.
        """
        started = self.now() if timed and self.timed else inf
        period = self.core.period
        if period.passes:
            return Permit(self, period, 0, inf, started)
        wait = self.rejects_for(period)
        if wait > 0:
            raise self.rejection(wait)
        now = self.now()
        with self.lock:
            self.take_back(now)
            grant = self.core.admit(now)
            if grant is None:
                wait = self.core.retry_after(now)
        if grant is None:
            if self.wake is not None:
                self.wake()  # a place was looked for, and none was there
            raise self.rejection(wait)
        permit = Permit(self, grant.period, grant.ticket, grant.deadline, started)
        self.tell(grant.change)
        return permit

    def take_back(self, now: float) -> None:
        """Take back the places that were given back. The caller holds the lock."""
        while self.free:
            period, ticket = self.free.popleft()
            self.core.settle(period, ticket, Outcome.NEUTRAL, now)

    # --- outcomes --------------------------------------------------------------------------------

    def outcome_of(self, error: BaseException | None, result: Any = _UNKNOWN) -> Outcome:
        """Judge how a call ended. Asks the user's predicates, so the lock is not held."""
        if error is None:
            fails = self.fails_by_result
            failed = fails is not None and result is not _UNKNOWN and fails(result)
            return Outcome.FAILURE if failed else Outcome.SUCCESS
        return Outcome.FAILURE if self._is_failure(error) else Outcome.NEUTRAL

    def _is_failure(self, error: BaseException) -> bool:
        """Whether it counts; a group, as a TaskGroup raises one, also if any of its leaves does."""
        if not isinstance(error, Exception) or self._says_nothing(error):
            return False
        return self.recorded(error) or any(map(self._is_failure, leaves(error)))

    def _says_nothing(self, error: Exception) -> bool:
        """Whether it is neutral whatever `record_on` names; a group also if all of its leaves are."""
        if isinstance(error, DeadlinePassed) or says_nothing(error) or self.ignored(error):
            return True
        return isinstance(error, ExceptionGroup) and all(map(self._says_nothing, leaves(error)))  # pyright: ignore[reportUnknownArgumentType] - of any

    def give_back(self, permit: Permit) -> None:
        """Take the neutral outcome of a permit: should it have another by now, its place is gone already."""
        permit.settled = True
        if permit.ticket:
            self.free.append((permit.period, permit.ticket))
            if self.wake is not None:
                self.wake()

    def settle(self, permit: Permit, outcome: Outcome) -> None:
        """Take the outcome of a permit, unless it has one."""
        if outcome is Outcome.NEUTRAL:
            self.give_back(permit)
            return
        succeeded = outcome is Outcome.SUCCESS and not self.timed
        if succeeded and permit.period.passes and not permit.period.window.success_matters:
            permit.settled = True
            return
        now, draw = self.now(), self.random()
        slow = now - permit.started > self.slow_after
        with self.lock:
            if permit.settled:
                return
            change = self.core.settle(permit.period, permit.ticket, outcome, now, draw, slow=slow)
            permit.settled = True
        if permit.ticket and self.wake is not None:
            self.wake()
        self.tell(change)

    def count(self, period: Period, started: float, error: Exception | None, result: Any = _UNKNOWN) -> None:
        """Take the outcome of a call that needed no permit, since `period` lets all pass."""
        outcome = self.outcome_of(error, result)
        now, draw = self.now(), self.random()
        slow = now - started > self.slow_after
        with self.lock:
            change = self.core.settle(period, 0, outcome, now, draw, slow=slow)
        self.tell(change)

    def count_success(self, period: Period) -> None:
        """Take the success of a call that needed no permit and no look at its result."""
        # If late, it lands in the window of its own generation, which nobody reads any more.
        now = self.now()
        if not period.window.note(now):
            with self.lock:
                period.window.succeed(now)

    # --- changes ---------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Make the breaker change by hand."""
        now = self.now()
        with self.lock:
            change = self.core.apply(event, now)
        self.tell(change)

    def tell(self, change: Change | None) -> None:
        """Publish a change, if there was one. The lock is not held."""
        if change is None:
            return
        if self.wake is not None:
            self.wake()
        calls, failures, slow = change.figures
        event = BreakerChanged(
            self.name,
            change.before.value,
            change.after.value,
            change.reason,
            calls,
            failures,
            slow,
            change.retry_after,
        )
        publish(event, self.on_change)
