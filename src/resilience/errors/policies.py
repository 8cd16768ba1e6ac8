"""What the policies raise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.errors.codes import ErrorCode
from resilience.errors.service import ServiceError

if TYPE_CHECKING:
    from resilience._core.quota import Decision


class _PolicyError(ServiceError):
    """What a policy raises.

    Rejections are the hot path of an outage, so these have no Python `__init__`: their fields are
    properties over `args`, and the message is formatted only when someone reads it. Messages name breakers
    and limiters, which are nobody else's business.
    """

    internal = True

    if TYPE_CHECKING:  # each has its own signature for checkers, and the builtin's code

        def __init__(self, *args: object) -> None: ...

    else:
        __init__ = Exception.__init__


class CircuitOpenError(_PolicyError):
    """The circuit breaker rejected the call, which was not begun.

    Args:
        name: The breaker's name.
        retry_after: Seconds until a probe is let in; None where it is held open by hand.

    Example:
        >>> error = CircuitOpenError("storage", 4.2)
        >>> str(error), error.status
        ("circuit breaker 'storage' is open: try again in 4.2 s", 503)
    """

    code = ErrorCode.SERVICE_UNAVAILABLE

    if TYPE_CHECKING:

        def __init__(self, name: str, retry_after: float | None) -> None: ...

    @property
    def name(self) -> str:
        """The breaker's name."""
        name: str = self.args[0]
        return name

    @property
    def retry_after(self) -> float | None:
        """Seconds until the breaker will let a probe in; None where it is held open by hand."""
        retry_after: float | None = self.args[1]
        return retry_after

    @property
    def message(self) -> str:
        """What happened, and when to try again."""
        if self.retry_after is None:
            return f"circuit breaker {self.name!r} is held open: try again once it has been released"
        return f"circuit breaker {self.name!r} is open: try again in {self.retry_after:.1f} s"


class RateLimitedError(_PolicyError):
    """The limiter refused the call, which was not begun.

    Args:
        decision: What the limiter decided, with all its figures.
    """

    code = ErrorCode.RATE_LIMIT_EXCEEDED

    if TYPE_CHECKING:

        def __init__(self, decision: Decision) -> None: ...

    @property
    def decision(self) -> Decision:
        """What the limiter decided, with all its figures."""
        decision: Decision = self.args[0]
        return decision

    @property
    def retry_after(self) -> float | None:
        """Seconds until the call would be let through; None where it costs more than the quota holds."""
        return self.decision.retry_after

    @property
    def retryable(self) -> bool:
        """Whether the call will be let through later: not if it costs more than the quota ever allows."""
        return self.retry_after is not None

    @property
    def message(self) -> str:
        """Which limit was reached, and when to try again."""
        decision = self.decision
        if decision.retry_after is None:
            return f"rate limiter {decision.limiter!r}: the call costs more than {decision.quota} ever allows"
        return (
            f"rate limiter {decision.limiter!r}: {decision.quota} reached; "
            f"try again in {decision.retry_after:.1f} s"
        )


class _RefusedError(_PolicyError):
    """A policy on this side refused the call, which was not begun.

    Args:
        name: The policy's name.
        reason: Why it did.
        retry_after: Seconds until another try is worth it; None where nothing is known.
    """

    code = ErrorCode.SERVICE_UNAVAILABLE

    if TYPE_CHECKING:

        def __init__(self, name: str, reason: str, retry_after: float | None) -> None: ...

    @property
    def name(self) -> str:
        """The name of the policy that refused the call."""
        name: str = self.args[0]
        return name

    @property
    def reason(self) -> str:
        """Why it was refused."""
        reason: str = self.args[1]
        return reason

    @property
    def retry_after(self) -> float | None:
        """Seconds until another try is worth it; None where nothing is known."""
        retry_after: float | None = self.args[2]
        return retry_after


class BulkheadFullError(_RefusedError):
    """The bulkhead had no place for the call, which was not begun.

    Args:
        name: The bulkhead's name.
        reason: Why it got none, such as `"the queue is full"`.
        retry_after: Seconds after which a place is likely; None where nothing is known.

    Example:
        >>> error = BulkheadFullError("storage", "the queue is full", 0.2)
        >>> str(error), error.status
        ("bulkhead 'storage': the queue is full", 503)
    """

    @property
    def message(self) -> str:
        """Which bulkhead, and why."""
        return f"bulkhead {self.name!r}: {self.reason}"


class OverloadedError(_RefusedError):
    """A call was refused here, before it was begun, since it would only have added to an overload.

    Args:
        name: The name of the policy that refused it.
        reason: Why, such as `"all 12 calls of the limit are in flight"`.
        retry_after: Seconds until another try is worth it; None where nothing is known.

    Example:
        >>> error = OverloadedError("search", "too little time is left", None)
        >>> str(error), error.status
        ("'search' is overloaded: too little time is left", 503)
    """

    @property
    def message(self) -> str:
        """Who is overloaded, and why this call was refused."""
        return f"{self.name!r} is overloaded: {self.reason}"


class DeadlineExceeded(_PolicyError, TimeoutError):  # noqa: N818 - the name is public and fixed
    """The time for the whole call was up before it had an answer.

    Args:
        message: Which time, and what was being done.

    Example:
        >>> try:
        ...     raise DeadlineExceeded("2.0 s were up after 3 attempts")
        ... except TimeoutError as error:
        ...     print(error)
        2.0 s were up after 3 attempts
    """

    code = ErrorCode.TIMEOUT

    if TYPE_CHECKING:

        def __init__(self, message: str) -> None: ...


class DeadlinePassed(DeadlineExceeded):
    """The time was up before the call was begun, so it says nothing about what was to be called."""


class TimeoutExceeded(DeadlineExceeded):
    """One step took longer than its own timeout allows; the deadline of the whole call had not come.

    So it may be retried, where any other `DeadlineExceeded` never is.
    """
