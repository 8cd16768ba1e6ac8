"""One call through a retry policy: its attempts, what is decided after each, and how it ends.

Everything that belongs to one call lives in its `Call`, and nothing of it on the policy. The loops that
make the attempts (`resilience.retry.guards`) tell it what happened, outside any lock, and do what it answers.

Rules:
    - `Exception` only: what else is raised, a cancellation above all, leaves at once and untouched.
    - Never retried, whatever `retry_on` says: what an inner retry has given up on, and, as
      `resilience.retry.policy` settles it, cancellation by `concurrent.futures`, an open breaker and a
      deadline exceeded.
    - Only first attempts are fed to the breaker, and a retry is begun only while it is closed.
    - A retry is paid for last, when nothing else stands against it.
    - A note, a `RetryStopped` event and a mark are due where a retry was made or wanted; an exception that
      was never to be retried passes untouched.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.events import SUBSCRIBERS, RetryScheduled, RetryStopped, RetrySucceeded, publish
from resilience.retry.budget import BOOKS
from resilience.retry.traces import forget_earlier_frames, inner_retry_exhausted, leave
from resilience.transient import classify, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.deadline import Instant
    from resilience.retry.policy import Policy

NOT_RETRYABLE: Final = "not retryable"
PERHAPS_PROCESSED: Final = "not idempotent, and it may have been processed"
INNER_RETRY: Final = "an inner retry is exhausted"
CIRCUIT_OPEN: Final = "circuit open"
BUDGET_EXHAUSTED: Final = "budget exhausted"

_BUILT_IN: Final = frozenset(
    item
    for item in vars(builtins).values()
    if isinstance(item, type) and issubclass(item, Exception) and not issubclass(item, ExceptionGroup)
)


class Permit(Protocol):
    """What a breaker gives for one attempt; settled once."""

    def success(self, result: Any = ...) -> None:
        """Tell that the attempt returned `result`."""
        ...

    def failure(self, error: BaseException) -> None:
        """Tell that the attempt raised `error`, which may yet be neutral."""
        ...

    def neutral(self) -> None:
        """Tell that the attempt says nothing about the dependency."""
        ...


class Breaker(Protocol):
    """What a retry asks of a circuit breaker."""

    @property
    def is_closed(self) -> bool:
        """Whether it lets every call through."""
        ...

    def acquire(self) -> Permit:
        """Return a permit, or raise `CircuitOpenError`."""
        ...


class Call:
    """The state of one call, whose first attempt is under way.

    Args:
        policy: What it goes by.
        ends: Its deadline.
    """

    __slots__ = ("_drawn", "_failed_at", "_failure", "_permit", "_policy", "attempt", "ends")

    def __init__(self, policy: Policy, ends: Instant | None) -> None:
        self._policy = policy
        self.ends = ends
        """The deadline."""
        self.attempt = 1
        """The number of the attempt that is under way, or that comes after the delay."""
        self._drawn: float | None = None
        self._failed_at = 0.0
        self._failure: Exception | None = None
        self._permit: Permit | None = None

    def admit(self) -> None:
        """Make sure that the first attempt may begin.

        Raises:
            DeadlinePassed: It has passed.
            CircuitOpenError: The breaker rejected the call.
        """
        policy = self._policy
        if self.ends is not None:
            self.ends.require(policy.name)
        if policy.breaker is not None:
            try:
                self._permit = policy.breaker.acquire()
            except CircuitOpenError:
                policy.ledger.rejected_by_breaker()
                raise

    def admitted(self, permit: Permit) -> None:
        """Take the permit of the first attempt, which the breaker has let begin already."""
        self._permit = permit

    def admit_retry(self) -> None:
        """Make sure that the retry may begin, now that its delay is over.

        Raises:
            Exception: The deadline has passed meanwhile: what the last attempt raised.
            DeadlineExceeded: It has passed, and the last attempt raised nothing.
        """
        failure, self._failure = self._failure, None
        if self.ends is None or self.ends.left() > 0:
            return
        self._policy.ledger.unpay()
        self.attempt -= 1
        self._stop("the deadline has passed", failure, BOOKS.given_up)
        try:
            if failure is not None:
                raise failure
            raise DeadlineExceeded(f"{self._policy.name}: the deadline passed before the next attempt")
        finally:
            del failure  # its traceback holds this frame

    def failed(self, failure: Exception, began: int) -> float | None:
        """Take what the attempt raised; return the seconds to wait before the next, or None: raise it.

        Args:
            failure: What the attempt raised.
            began: `BOOKS.given_up` when the attempt began.
        """
        policy = self._policy
        if self.attempt == 1:
            self._failed_at = policy.clock.now()
            if self._permit is not None:
                permit, self._permit = self._permit, None
                permit.failure(failure)
        try:
            wanted = policy.retry_on(failure)
        except BaseException:
            policy.ledger.abandoned(self.attempt)
            raise
        if not wanted:
            return self._stop(NOT_RETRYABLE, failure, began)
        if BOOKS.given_up != began and inner_retry_exhausted(failure, began):
            return self._stop(INNER_RETRY, failure, began)
        if not policy.idempotent and classify(failure).may_be_processed:
            return self._stop(PERHAPS_PROCESSED, failure, began)
        return self._next(failure, None, began)

    def returned(self, result: Any) -> float | None:
        """Take the attempt's result; return the seconds to wait before the next, or None: it is final."""
        policy = self._policy
        if self._permit is not None:
            permit, self._permit = self._permit, None
            permit.success(result)
        if policy.retry_if_result is not None and self._is_refused(result, policy.retry_if_result):
            if self.attempt == 1:
                self._failed_at = policy.clock.now()
            return self._next(None, result, BOOKS.given_up)
        policy.ledger.succeeded(self.attempt)
        if self.attempt > 1 and (policy.on_success or SUBSCRIBERS.hooks):
            elapsed = policy.clock.now() - self._failed_at
            publish(RetrySucceeded(policy.name, self.attempt, elapsed), policy.on_success)
        return None

    def abandoned(self) -> None:
        """Take note that the attempt was left by something that is no `Exception`."""
        if self._permit is not None:
            self._permit.neutral()
            self._permit = None
        self._policy.ledger.abandoned(self.attempt)

    def delay_abandoned(self) -> None:
        """Take note that the delay was left, so that its retry will not be made."""
        self._failure = None
        self._policy.ledger.unpay()

    def _is_refused(self, result: Any, retry_if_result: Callable[[Any], bool]) -> bool:
        try:
            return bool(retry_if_result(result))
        except BaseException:
            self._policy.ledger.abandoned(self.attempt)
            raise

    def _next(self, failure: Exception | None, result: Any, began: int) -> float | None:
        """Return the seconds to wait before the next attempt, which is paid for; None if there is none."""
        policy = self._policy
        attempt = self.attempt
        limits = policy.limits
        outcome = result if failure is None else failure
        if attempt == limits.max_attempts or _asks_nothing(outcome):
            retry_after = None
        else:
            retry_after = retry_after_of(outcome, policy.clock.wall())
        time_left = None if self.ends is None else self.ends.left()
        verdict = limits.next_delay(attempt, self._drawn, retry_after, time_left, policy.random)
        if isinstance(verdict, str):
            return self._stop(verdict, failure, began)
        if policy.breaker is not None and not policy.breaker.is_closed:
            policy.ledger.rejected_by_breaker()
            return self._stop(CIRCUIT_OPEN, failure, began)
        if not policy.ledger.pay(attempt):
            return self._stop(BUDGET_EXHAUSTED, failure, began)
        delay, self._drawn = verdict
        if policy.on_retry or SUBSCRIBERS.hooks:
            try:
                publish(RetryScheduled(policy.name, attempt, delay, failure, result), policy.on_retry)
            except BaseException:  # an interrupt: no listener can break a call
                policy.ledger.unpay()
                raise
        if self.ends is not None:
            self._failure = failure  # for `admit_retry`; otherwise not kept alive during the delay
        self.attempt = attempt + 1
        return delay

    def _stop(self, reason: str, failure: Exception | None, began: int) -> float | None:
        """End the call for `reason`; return None, for there is no delay."""
        policy = self._policy
        attempt = self.attempt
        wanted = reason is not NOT_RETRYABLE and policy.limits.max_attempts > 1
        if attempt == 1 and not wanted:
            return None
        number = policy.ledger.given_up(attempt)
        elapsed = policy.clock.now() - self._failed_at
        if failure is not None:
            if attempt == 1:
                note = f"1 attempt; stopped: {reason}"
            else:
                note = f"{attempt} attempts in {elapsed:.1f} s since the first failure; stopped: {reason}"
                forget_earlier_frames(failure, attempt)
            leave(failure, note, number, began, exhausted=wanted)
        if policy.on_stop or SUBSCRIBERS.hooks:
            publish(RetryStopped(policy.name, attempt, elapsed, reason, failure), policy.on_stop)
        return None


def _asks_nothing(outcome: Any) -> bool:
    """Whether `outcome` is one of the interpreter's own exceptions, just as it was raised.

    Nothing can be found on it. It is true of most failures, and the search costs as much as all the rest.
    """
    if type(outcome) not in _BUILT_IN or outcome.__dict__ or outcome.__cause__ is not None:
        return False
    for argument in outcome.args:  # noqa: SIM110 - a generator expression costs more than the loop
        if isinstance(argument, BaseException):
            return False
    return True
