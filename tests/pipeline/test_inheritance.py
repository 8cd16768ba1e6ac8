"""What new parts take over from old ones."""

from __future__ import annotations

import pytest

from resilience import AsyncRateLimiter, CircuitBreaker, RateLimiter, RetryManager
from resilience.pipeline import Waiting
from resilience.pipeline.inheritance import inherited
from resilience.stores.sqlite import SQLiteStore


def test_the_same_object_goes_on():
    parts = (RateLimiter("1/s", name="a"), CircuitBreaker(name="a"), RetryManager(name="a"))
    assert inherited(parts, parts[::-1]) == parts[::-1]


def test_a_breaker_of_the_same_name_goes_on_in_the_old_state():
    old, stranger = CircuitBreaker(1, 60.0, name="a"), CircuitBreaker(1, 60.0, name="b")
    for breaker in (old, stranger):
        breaker.acquire().failure(ConnectionError())
    new, other = CircuitBreaker(3, 60.0, name="a"), CircuitBreaker(3, 60.0, name="c")
    assert inherited((RetryManager(), old, stranger), (new, other)) == (new, other)
    assert (new.state, other.state) == ("open", "closed")
    assert new.snapshot().threshold == 3
    old.reset()
    assert new.is_closed


@pytest.mark.parametrize("make", [RateLimiter, AsyncRateLimiter])
def test_a_limiter_in_memory_with_the_same_quotas_is_the_old_one(make):
    old = make("5/minute", name="a")
    for new in (make("6/minute", name="a"), make("5/minute", name="b")):
        assert inherited((old,), (new,)) == (new,)
    assert inherited((old,), (make("5/minute", name="a"),)) == (old,)


def test_limiters_that_wait_are_known_too():
    old = RateLimiter("5/minute", name="a")
    for there in (old, Waiting(old)):
        (waiting,) = inherited((there,), (Waiting(RateLimiter("5/minute", name="a"), timeout=3.0),))
        assert (waiting.limiter, waiting.timeout) == (old, 3.0)


def test_a_store_that_is_shared_has_the_counts_itself(tmp_path):
    with SQLiteStore(tmp_path / "counts") as store:
        old, new = (RateLimiter("5/minute", name="a", store=store) for _ in range(2))
        assert inherited((old,), (new,)) == (new,)
        memory = RateLimiter("5/minute", name="a")
        assert inherited((memory,), (old,)) == (old,)
