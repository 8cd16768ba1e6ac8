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

from typing import TYPE_CHECKING, Any, Final, Protocol

from resilience._core.retry import Progress
from resilience.conditions import is_cancellation
from resilience.deadline import CURRENT
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.events import RetryScheduled, RetryStopped, RetrySucceeded, is_heard, publish
from resilience.traces import MARKS, forget_earlier_frames, inner_retry_exhausted, leave
from resilience.transient import classify, retry_after_of

if TYPE_CHECKING:
    from resilience.deadline import Instant
    from resilience.retry_policy import Policy

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


class Call(Progress):
    """The state of one call, whose first attempt is under way.

    Args:
        policy: What it goes by.
    """

    __slots__ = ("_failed_at", "_failure", "_permit", "_policy", "ends")

    def __init__(self, policy: Policy) -> None:
        Progress.__init__(self, policy.limits)
        self._policy = policy
        self.ends: Instant | None = CURRENT.get()
        """The deadline."""
        self._permit: Permit | None = None
        self._failed_at = 0.0
        self._failure: Exception | None = None

    def admit(self) -> None:
        """Make sure that the first attempt may begin.

        Raises:
            DeadlineExceeded: It has passed.
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

    def admit_retry(self) -> None:
        """Make sure that the retry may begin, now that its delay is over.

        Raises:
            Exception: The deadline has passed meanwhile: what the last attempt raised.
            DeadlineExceeded: It has passed, and the last attempt raised nothing.
        """
        failure, self._failure = self._failure, None
        if self.ends is not None and self.ends.left() <= 0:
            self._policy.ledger.unpay()
            self.attempt -= 1
            self._stop("the deadline has passed", failure, MARKS.latest)
            try:
                if failure is not None:
                    raise failure
                self.ends.require(self._policy.name)
            finally:
                del failure  # its traceback holds this frame

    def returned(self, result: Any) -> float | None:
        """Take the attempt's result; return the seconds to wait before the next, or None: it is final."""
        policy = self._policy
        if self._permit is not None:
            self._permit.success(result)
            self._permit = None
        if policy.retry_if_result is not None and policy.retry_if_result(result):
            if self.attempt == 1:
                self._failed_at = policy.clock.now()
            return self._follow(self._verdict(result), None, result, MARKS.latest)
        policy.ledger.succeeded(self.attempt)
        if self.attempt > 1 and is_heard(policy.on_success):
            elapsed = policy.clock.now() - self._failed_at
            publish(RetrySucceeded(policy.name, self.attempt, elapsed), policy.on_success)
        return None

    def failed(self, failure: Exception, marks: int) -> float | None:
        """Take what the attempt raised; return the seconds to wait before the next, or None: raise it.

        Args:
            failure: What the attempt raised.
            marks: `MARKS.latest` when the attempt began.
        """
        policy = self._policy
        if self.attempt == 1:
            self._failed_at = policy.clock.now()
            if self._permit is not None:
                if is_cancellation(failure):
                    self._permit.neutral()
                else:
                    self._permit.failure(failure)
                self._permit = None
        verdict = self._objection(failure, marks) or self._verdict(failure)
        return self._follow(verdict, failure, None, marks)

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

    def _objection(self, failure: Exception, marks: int) -> str | None:
        """Return what `failure` itself has against another attempt."""
        policy = self._policy
        if not policy.retry_on(failure) or isinstance(failure, _NEVER_RETRIED):
            return NOT_RETRYABLE
        if MARKS.latest != marks and inner_retry_exhausted(failure, marks):
            return INNER_RETRY
        if not policy.idempotent and classify(failure).may_be_processed:
            return PERHAPS_PROCESSED
        return None

    def _verdict(self, outcome: Any) -> float | str:
        """Return the delay before the next attempt, which is paid for; or why there is none."""
        policy = self._policy
        verdict = self.next_delay(
            retry_after_of(outcome, policy.clock.wall()),
            None if self.ends is None else self.ends.left(),
            policy.random,
        )
        if isinstance(verdict, str):
            return verdict
        if policy.breaker is not None and not policy.breaker.is_closed:
            policy.ledger.rejected_by_breaker()
            return CIRCUIT_OPEN
        return verdict if policy.ledger.pay(self.attempt) else BUDGET_EXHAUSTED

    def _follow(
        self, verdict: float | str, failure: Exception | None, result: Any, marks: int
    ) -> float | None:
        """Tell what was decided; return the seconds to wait, or None at the end of the call."""
        policy = self._policy
        if isinstance(verdict, str):
            self._stop(verdict, failure, marks)
            return None
        if is_heard(policy.on_retry):
            publish(RetryScheduled(policy.name, self.attempt, verdict, failure, result), policy.on_retry)
        if self.ends is not None:
            self._failure = failure  # for `admit_retry`; otherwise not kept alive during the delay
        self.attempt += 1
        return verdict

    def _stop(self, reason: str, failure: Exception | None, marks: int) -> None:
        """End the call for `reason`."""
        policy = self._policy
        wanted = reason is not NOT_RETRYABLE and policy.limits.max_attempts > 1
        if self.attempt == 1 and not wanted:
            return
        elapsed = policy.clock.now() - self._failed_at
        policy.ledger.failed(self.attempt)
        if failure is not None:
            made = (
                f"{self.attempt} attempts in {elapsed:.1f} s since the first failure"
                if self.attempt > 1
                else "1 attempt"
            )
            forget_earlier_frames(failure)
            leave(failure, f"{made}; stopped: {reason}", marks, exhausted=wanted)
        if is_heard(policy.on_stop):
            publish(RetryStopped(policy.name, self.attempt, elapsed, reason, failure), policy.on_stop)
