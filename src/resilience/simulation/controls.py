"""Policies to compare with: what this library does by default, and what is common elsewhere.

Each is a factory for `Scenario.policy`. The first is made of production objects; the others are models of
habits that are meant to be shown up.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from resilience.breaker import CircuitBreaker
from resilience.retry import AsyncRetryManager
from resilience.transient import is_transient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.clock import Clock

    Call = Callable[[Any], Awaitable[object]]


def defaults(clock: Clock, random: Callable[[], float], name: str) -> AsyncRetryManager:
    """Return a retry and a circuit breaker with all their defaults."""
    breaker = CircuitBreaker(name=name, clock=clock, random=random)
    return AsyncRetryManager(circuit_breaker=breaker, name=name, clock=clock, random=random)


def retries_only(clock: Clock, random: Callable[[], float], name: str) -> AsyncRetryManager:
    """Return a retry with all its defaults, and no breaker."""
    return AsyncRetryManager(name=name, clock=clock, random=random)


def naive_retries(clock: Clock, retries: int = 3) -> Callable[[Call], Call]:  # noqa: ARG001 - it never waits
    """Return a loop that tries again at once: what a loop around a request does."""
    return _retrying(retries, None)


def backoff_retries(
    clock: Clock,
    random: Callable[[], float],
    retries: int = 3,
    initial_delay: float = 0.1,
    max_delay: float = 10.0,
) -> Callable[[Call], Call]:
    """Return retries with exponential backoff and full jitter, and nothing that caps them.

    After Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    async def pause(attempt: int) -> None:
        await clock.sleep_async(random() * min(max_delay, initial_delay * 2.0 ** (attempt - 1)))

    return _retrying(retries, pause)


def _retrying(retries: int, pause: Callable[[int], Awaitable[None]] | None) -> Callable[[Call], Call]:
    def decorate(call: Call) -> Call:
        @wraps(call)
        async def retried(request: Any) -> object:
            attempt = 1
            while True:
                try:
                    return await call(request)
                except Exception as error:
                    if attempt > retries or not is_transient(error):
                        raise
                if pause is not None:
                    await pause(attempt)
                attempt += 1

        return retried

    return decorate
