"""What type checkers make of retries beside other policies, and of generators; see retry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from resilience.breaker import CircuitBreaker
from resilience.errors import RateLimitedError
from resilience.events import RetryScheduled, RetryStopped
from resilience.retry import AsyncRetryManager, RetryManager, with_retry
from resilience.retry.budget import RetryBudget
from resilience.testing import FakeClock

storage = CircuitBreaker(5, 60.0, name="storage")


def listen(event: RetryScheduled) -> None:
    """Listen."""


def listen_to_something_else(event: RetryStopped) -> None:
    """Listen."""


retries = RetryManager(
    jitter=0.1,
    retry_on=(OSError, RateLimitedError),
    circuit_breaker=storage,
    on_retry=listen,
    clock=FakeClock(),
    budget=RetryBudget(),
)
unlimited = AsyncRetryManager(budget=None, retry_on=lambda error: isinstance(error, OSError))


@with_retry
def lines(path: str) -> Iterator[str]:
    yield path


@retries
async def pages(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


class Account:
    def __init__(self, number: int) -> None:
        self.number = number

    @property
    @with_retry
    def balance(self) -> int:
        return self.number


def used() -> None:
    assert_type(lines("a"), Iterator[str])
    assert_type(pages("a"), AsyncIterator[bytes])
    assert_type(Account(1).balance, int)
    assert_type(with_retry(Account)(1), Account)
    assert_type(retries.stats().retry_success_rate, float)
    assert_type(retries.stats().total_retries, int)
    assert_type(retries.budget, RetryBudget | None)


def refused() -> None:
    RetryManager(circuit_breaker="storage")  # type: ignore[arg-type]
    RetryManager(on_retry=listen_to_something_else)  # type: ignore[arg-type]
    RetryManager(budget=5.0)  # type: ignore[arg-type]
