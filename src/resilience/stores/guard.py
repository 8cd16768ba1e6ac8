"""What stands around each question to a server: a bound, the breaker, the log, and what is remembered.

Nothing here waits, so that `Remote` and `AsyncRemote` share it.
"""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING, Final

from resilience._core.refusals import Refusals
from resilience.breaker import CircuitBreaker
from resilience.checks import number
from resilience.deadline import CURRENT
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.outage_log import OutageLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.breaker.gate import Permit
    from resilience.clock import Clock

MOST_REFUSALS: Final = 10_000
"""How many refused keys a store remembers: some megabytes, if ever reached."""


class Guard:
    """What stands between one store and its server.

    Args:
        what: What the server is called, without a password.
        timeout: Seconds that a call takes at most, above 0 and up to 60.
        remember_refusals: Seconds for which a refusal is remembered at most, infinity for as long as it was
            told; 0 remembers none.
        breaker: What rejects calls while the server is out of reach; one of its own where left out.
        clock: Where time comes from.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads and event loops may share it, and it survives a fork.
    """

    def __init__(
        self,
        what: str,
        *,
        timeout: float,
        remember_refusals: float,
        breaker: CircuitBreaker | None,
        clock: Clock,
    ) -> None:
        if remember_refusals != inf:
            remember_refusals = number("remember_refusals", remember_refusals, least=0)
        if not isinstance(breaker, CircuitBreaker | None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise TypeError(f"breaker must be a CircuitBreaker, or be left out, not {breaker!r}")
        self.what = what
        self.timeout = number("timeout", timeout, above=0, most=60)
        self.breaker = _breaker_of(what, self.timeout, clock) if breaker is None else breaker
        self.log = OutageLog(what, clock)
        self.now = clock.now
        self.refusals = Refusals(MOST_REFUSALS, remember_refusals * 1e9)
        self._remembers = remember_refusals > 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def call(self) -> Call:
        """Return the frame of a question, which ends with the deadline of this context at the latest.

        Raises:
            DeadlineExceeded: The deadline has passed.
        """
        now = self.now()
        deadline = CURRENT.get()
        if deadline is not None:
            deadline.require(f"asking {self.what}")
            left = deadline.left()
            if left < self.timeout:
                return Call(self, now, now + left, to_deadline=True)
        return Call(self, now, now + self.timeout)

    def tidying(self) -> Call:
        """Return the frame of a question that is asked whatever the deadline."""
        now = self.now()
        return Call(self, now, now + self.timeout)

    def known(self, charges: Sequence[Charge]) -> list[Decision] | None:
        """Return the decisions if one of the charges is known to be refused."""
        return self.refusals.decide(charges, _nanoseconds(self.now()))

    def remember(
        self, charges: Sequence[Charge], decisions: Sequence[Decision], asked: float, changes: int
    ) -> None:
        """Remember what was refused; see `Refusals.note`."""
        if self._remembers:
            with self._lock:
                self.refusals.note(charges, decisions, _nanoseconds(asked), changes)

    def forget(self, counters: Iterable[Counter], key: str | bytes) -> None:
        """Forget that `key` was refused, since something may have been given back to it."""
        with self._lock:
            self.refusals.forget(counters, key)


def _nanoseconds(instant: float) -> int:
    return int(instant * 1e9)


class Call:
    """The frame of one question: asks the breaker first, and says what came of it afterwards.

    It belongs to one call, and is entered once.
    """

    __slots__ = ("_guard", "_permit", "_to_deadline", "began", "until")

    _permit: Permit

    def __init__(self, guard: Guard, began: float, until: float, *, to_deadline: bool = False) -> None:
        self._guard = guard
        self.began = began
        self.until = until
        self._to_deadline = to_deadline

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._guard.now() >= self.until

    def __enter__(self) -> None:
        """Begin.

        Raises:
            StoreUnavailable: The breaker rejects the call.
        """
        guard = self._guard
        try:
            self._permit = guard.breaker.acquire()
        except CircuitOpenError as rejection:
            wait = rejection.retry_after
            until_when = "its breaker is held open" if wait is None else f"it is asked again in {wait:.1f} s"
            raise self._unavailable(f"it did not answer lately, and {until_when}", wait) from rejection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell the breaker and the log what came of it.

        Raises:
            DeadlineExceeded: The deadline passed before there was a reply.
            StoreUnavailable: There was none in time.
        """
        guard, permit = self._guard, self._permit
        if error is None:
            permit.success()
            if guard.log.is_told:
                guard.log.answered()
        elif isinstance(error, Lost):
            if self.until - self.began < guard.timeout / 2:
                permit.neutral()  # so short a time says nothing about the server
            else:
                permit.failure(error)
            if self._to_deadline and self.is_over:
                raise DeadlineExceeded(
                    f"the deadline passed while {guard.what} was asked: {error}"
                ) from error
            raise self._unavailable(f"{error}; it must run, and answer within {guard.timeout:g} s") from error
        elif isinstance(error, StoreUnavailable):
            out_of_reach = isinstance(error, Unable)
            if out_of_reach:
                permit.failure(error)
            else:
                permit.neutral()
            guard.log.failed(error, out_of_reach=out_of_reach)
        else:
            permit.neutral()

    def _unavailable(self, why: str, retry_after: float | None = None) -> StoreUnavailable:
        error = StoreUnavailable(
            f"the limits on {self._guard.what} are unavailable: {why}", retry_after=retry_after
        )
        self._guard.log.failed(error, out_of_reach=True)
        return error


def _breaker_of(what: str, timeout: float, clock: Clock) -> CircuitBreaker:
    """Return a breaker that finds out within two seconds that a server is back, and not with everybody."""
    return CircuitBreaker(
        recovery_time=1.0, recovery_jitter=0.5, probe_lease=1.0 + timeout, name=what, clock=clock
    )
