"""Limiters that wait in a pipeline."""

from __future__ import annotations

import pytest

from resilience import AsyncRateLimiter, CircuitBreaker, RateLimiter
from resilience.pipeline import Waiting


def test_what_it_is():
    limiter = RateLimiter("2/minute", name="a")
    waiting = Waiting(limiter, timeout=2)
    assert (waiting.limiter, waiting.timeout, waiting.waits) == (limiter, 2.0, True)
    assert repr(waiting) == "<Waiting for <RateLimiter 'a': 2/minute>, at most 2 s>"
    assert (
        repr(Waiting(AsyncRateLimiter("2/minute"))) == "<Waiting for <AsyncRateLimiter '2/minute': 2/minute>>"
    )
    assert Waiting(limiter).waits
    assert not Waiting(limiter, timeout=0).waits


@pytest.mark.parametrize(
    ("limiter", "timeout", "error"),
    [
        (CircuitBreaker(), None, TypeError),
        (RateLimiter("1/s"), -1.0, ValueError),
        (RateLimiter("1/s"), "1", TypeError),
    ],
)
def test_what_it_refuses(limiter, timeout, error):
    with pytest.raises(error):
        Waiting(limiter, timeout=timeout)
