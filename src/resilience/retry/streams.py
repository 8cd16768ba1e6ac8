"""What a generator is once it has produced its first item, and how a breaker learns of its end.

A generator's attempt is over with its first item, since nothing is retried from then on. For a breaker the
call goes on: a dependency that sends one item and then breaks down has failed. So the permit of a first
attempt that got so far is kept by the stream, and settled by how that ends: success at its end, failure by
what it raises, neutral where its reader leaves early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from resilience.retry.attempts import Breaker, Permit
    from resilience.retry.policy import Policy

G = TypeVar("G")


class Stream(Generic[G]):
    """A generator that has been begun; `with` it, the rest is read.

    Args:
        generator: It; None if it has ended already.
        item: Its first item, or what it returned instead.
    """

    __slots__ = ("_permit", "first", "generator")

    def __init__(self, generator: G | None, item: Any) -> None:
        self.generator = generator
        self.first = [item]
        """The first item, for its consumer to pop: it should not live as long as the stream."""
        self._permit: Permit | None = None

    def begun(self, permit: Permit) -> None:
        """Keep `permit` until the end."""
        if self.generator is None:
            permit.success()
        else:
            self._permit = permit

    def __enter__(self) -> None:
        """Begin to read the rest."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Settle by how it ended."""
        if self._permit is None:
            return
        if error is None:
            self._permit.success()
        elif isinstance(error, Exception):
            self._permit.failure(error)
        else:
            self._permit.neutral()


class _StreamPermit:
    """A permit whose success is that a stream has begun."""

    __slots__ = ("_permit", "failure", "neutral")

    def __init__(self, permit: Permit) -> None:
        self._permit = permit
        self.failure = permit.failure
        self.neutral = permit.neutral

    def success(self, result: Any = None) -> None:
        """Hand the permit over to the stream."""
        result.begun(self._permit)


class _StreamBreaker:
    """A breaker whose permits are for streams."""

    __slots__ = ("_breaker",)

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    @property
    def is_closed(self) -> bool:
        """Whether it lets every call through."""
        return self._breaker.is_closed

    def acquire(self) -> Permit:
        """Return a permit, or raise `CircuitOpenError`."""
        return _StreamPermit(self._breaker.acquire())


def for_streams(policy: Policy) -> Policy:
    """Return `policy`, or what it is for calls that return streams."""
    if policy.breaker is None:
        return policy
    return policy.replace(circuit_breaker=_StreamBreaker(policy.breaker))
