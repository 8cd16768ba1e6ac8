"""One call through a retry policy: its attempts, what is decided after each, and how it ends.

Everything that belongs to one call lives in its `Call`, and nothing of it on the policy. The loops that
make the attempts (`resilience.retry`) tell it what happened, outside any lock, and do what it answers.

Rules:
    - `Exception` only: what else is raised, a cancellation above all, leaves at once and untouched.
    - Never retried, whatever `retry_on` says: cancellation by `concurrent.futures`, an open breaker, a
      deadline exceeded, and what an inner retry has given up on.
    - Only first attempts are fed to the breaker, and a retry is begun only while it is closed.
    - A retry is paid for last, when nothing else stands against it.
    - A note, a `RetryStopped` event and a mark are due where a retry was made or wanted; an exception that
      was never to be retried passes untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from resilience._core.retry import DEADLINE_PASSED
from resilience.conditions import is_cancellation
from resilience.deadline import CURRENT
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.events import RetryScheduled, RetryStopped, RetrySucceeded, publish
from resilience.traces import MARKS, inner_retry_exhausted, leave
from resilience.transient import classify, retry_after_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience._core.retry import Limits, Wait
    from resilience.budget import RetryBudget, Unlimited
    from resilience.clock import Clock
    from resilience.deadline import Instant
    from resilience.events import Hook
    from resilience.retry_stats import Counts

NOT_RETRYABLE: Final = "not retryable"
PERHAPS_PROCESSED: Final = "not idempotent, and it may have been processed"
INNER_RETRY: Final = "an inner retry is exhausted"
CIRCUIT_OPEN: Final = "circuit open"
BUDGET_EXHAUSTED: Final = "budget exhausted"

_NEVER_RETRIED: Final = (CircuitOpenError, DeadlineExceeded)


class Permit(Protocol):
    """What a breaker gives for one attempt; settled once."""

    def success(self, result: Any) -> None:
        """Tell that the attempt returned `result`."""
        ...

    def failure(self, error: BaseException) -> None:
        """Tell that the attempt raised `error`."""
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


class Policy(NamedTuple):
    """The settled form of a manager's arguments."""

    name: str
    limits: Limits
    retry_on: Callable[[Exception], bool]
    retry_if_result: Callable[[Any], bool] | None
    idempotent: bool
    seconds: float | None
    """The call's own deadline."""
    breaker: Breaker | None
    budget: RetryBudget | Unlimited
    counts: Counts
    clock: Clock
    random: Callable[[], float]
    on_retry: tuple[Hook, ...]
    on_success: tuple[Hook, ...]
    on_stop: tuple[Hook, ...]


class Call:
    """The state of one call.

    Args:
        policy: What it goes by.
        attempt: The number of the attempt that is under way; 0 if none has begun.
        marks: `MARKS.latest` when that attempt began.
    """

    __slots__ = ("_drawn", "_failed_at", "_failure", "_marks", "_permit", "_policy", "attempt", "ends")

    def __init__(self, policy: Policy, attempt: int = 0, marks: int = 0) -> None:
        self._policy = policy
        self.attempt = attempt
        self.ends: Instant | None = CURRENT.get()
        self._marks = marks
        self._permit: Permit | None = None
        self._drawn: float | None = None
        self._failed_at = 0.0
        self._failure: Exception | None = None

    def begin(self) -> None:
        """Begin the next attempt.

        Raises:
            DeadlineExceeded: It has passed before the first attempt.
            CircuitOpenError: The breaker rejected the first attempt.
            Exception: The deadline has passed during the delay: what the last attempt raised.
        """
        if self.attempt:
            self._begin_retry()
        else:
            self._begin_first()
        self.attempt += 1
        self._marks = MARKS.latest

    def _begin_first(self) -> None:
        policy = self._policy
        if self.ends is not None:
            self.ends.require(policy.name)
        if policy.breaker is not None:
            try:
                self._permit = policy.breaker.acquire()
            except CircuitOpenError:
                policy.counts.breaker_rejection()
                raise

    def _begin_retry(self) -> None:
        failure, self._failure = self._failure, None
        if self.ends is not None and self.ends.left() <= 0:
            self._policy.budget.cancel()
            self._stop(DEADLINE_PASSED, failure)
            if failure is None:
                self.ends.require(self._policy.name)
            else:
                raise failure
        self._policy.counts.retry()

    def returned(self, result: Any) -> float | None:
        """Take the attempt's result; return the seconds to wait before the next, or None: it is final."""
        policy = self._policy
        if self._permit is not None:
            self._permit.success(result)
            self._permit = None
        if policy.retry_if_result is not None and policy.retry_if_result(result):
            if self.attempt == 1:
                self._failed_at = policy.clock.now()
            return self._follow(self._verdict(result), None, result)
        if self.attempt > 1:
            policy.budget.refund()
            policy.counts.successful()
            elapsed = policy.clock.now() - self._failed_at
            publish(RetrySucceeded(policy.name, self.attempt, elapsed), policy.on_success)
        elif policy.budget.spent:
            policy.budget.credit()
        return None

    def failed(self, failure: Exception) -> float | None:
        """Take what the attempt raised; return the seconds to wait before the next, or None: raise it."""
        policy = self._policy
        if self.attempt == 1:
            self._failed_at = policy.clock.now()
        if self._permit is not None:
            if is_cancellation(failure):
                self._permit.neutral()
            else:
                self._permit.failure(failure)
            self._permit = None
        return self._follow(self._objection(failure) or self._verdict(failure), failure, None)

    def abandoned(self) -> None:
        """Take note that the attempt was left by something that is no `Exception`."""
        if self._permit is not None:
            self._permit.neutral()
            self._permit = None

    def delay_abandoned(self) -> None:
        """Take note that the delay was left, so that its retry will not be made."""
        self._failure = None
        self._policy.budget.cancel()

    def _objection(self, failure: Exception) -> str | None:
        """Return what `failure` itself has against another attempt."""
        policy = self._policy
        if not policy.retry_on(failure) or isinstance(failure, _NEVER_RETRIED) or is_cancellation(failure):
            return NOT_RETRYABLE
        if inner_retry_exhausted(failure, self._marks):
            return INNER_RETRY
        if not policy.idempotent and classify(failure).may_be_processed:
            return PERHAPS_PROCESSED
        return None

    def _verdict(self, outcome: Any) -> Wait | str:
        """Return the wait before the next attempt, which is paid for; or why there is none."""
        policy = self._policy
        verdict = policy.limits.decide(
            self.attempt,
            self._drawn,
            retry_after_of(outcome, policy.clock.wall()),
            None if self.ends is None else self.ends.left(),
            policy.random,
        )
        if isinstance(verdict, str):
            return verdict
        if policy.breaker is not None and not policy.breaker.is_closed:
            policy.counts.breaker_rejection()
            return CIRCUIT_OPEN
        if not policy.budget.try_withdraw():
            policy.counts.budget_rejection()
            return BUDGET_EXHAUSTED
        return verdict

    def _follow(self, verdict: Wait | str, failure: Exception | None, result: Any) -> float | None:
        """Tell what was decided; return the seconds to wait, or None at the end of the call."""
        policy = self._policy
        if isinstance(verdict, str):
            self._stop(verdict, failure)
            return None
        delay, self._drawn = verdict
        if self.ends is not None:
            self._failure = failure  # for `_begin_retry`; otherwise not kept alive during the delay
        publish(RetryScheduled(policy.name, self.attempt, delay, failure, result), policy.on_retry)
        return delay

    def _stop(self, reason: str, failure: Exception | None) -> None:
        """End the call for `reason`."""
        policy = self._policy
        wanted = reason is not NOT_RETRYABLE and policy.limits.max_attempts > 1
        if self.attempt == 1 and not wanted:
            return
        elapsed = policy.clock.now() - self._failed_at
        if self.attempt > 1:
            policy.counts.failed()
        if failure is not None:
            made = (
                f"{self.attempt} attempts in {elapsed:.1f} s since the first failure"
                if self.attempt > 1
                else "1 attempt"
            )
            leave(failure, f"{made}; stopped: {reason}", self._marks, exhausted=wanted)
        publish(RetryStopped(policy.name, self.attempt, elapsed, reason, failure), policy.on_stop)
