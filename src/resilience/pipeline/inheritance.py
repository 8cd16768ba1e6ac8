"""What the new parts of a pipeline take over from the old ones, so that new settings forget nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience.breaker import CircuitBreaker
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.pipeline.waiting import Waiting
from resilience.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence


def inherited(old: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
    """Return the new parts; where one has the type and the name of an old one, with the state of that.

    A breaker goes on in the old one's state. A limiter in memory with the same quotas is the old one.
    Everything else is as it is: retries of one name have one budget anyway, and a store that limiters share
    has their counts.
    """
    return tuple(_heir(part, old) for part in new)


def _heir(part: Any, old: Sequence[Any]) -> Any:
    if any(part is other for other in old):
        return part
    if isinstance(part, Waiting):
        limiters = [other.limiter if isinstance(other, Waiting) else other for other in old]
        return Waiting(_heir(part.limiter, limiters), part.timeout)
    for other in old:
        if type(other) is not type(part):
            continue
        if isinstance(part, CircuitBreaker) and part.name == other.name:
            part.continue_from(other)
        elif isinstance(part, RateLimiter | AsyncRateLimiter) and _counts_the_same(part, other):
            return other
    return part


def _counts_the_same(one: RateLimiter | AsyncRateLimiter, other: RateLimiter | AsyncRateLimiter) -> bool:
    same = one.name == other.name and one.quotas == other.quotas
    return same and isinstance(one.counts_in, MemoryStore) and isinstance(other.counts_in, MemoryStore)
