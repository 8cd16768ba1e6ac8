from __future__ import annotations

import asyncio

import pytest

from resilience.errors import RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.reservation import heed_cancellation
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


def test_reserve_and_refund(clock):
    login = RateLimiter("2/minute", clock=clock)
    with login.reserve("ada") as charge:
        assert charge.decision.remaining == 1
        charge.refund()
        charge.refund()
    assert login.peek("ada").remaining == 2
    with login.reserve("ada", cost=2):
        pass
    assert login.peek("ada").remaining == 0
    with pytest.raises(RateLimitedError), login.reserve("ada"):
        pytest.fail("it was refused")
    clock.advance(60)
    with pytest.raises(KeyError), login.reserve("ada"):
        raise KeyError
    assert login.peek("ada").remaining == 1


async def test_reserve_and_refund_async(clock):
    login = AsyncRateLimiter("2/minute", clock=clock)
    async with login.reserve("ada") as charge:
        assert charge.decision.remaining == 1
        await charge.refund()
        await charge.refund()
    assert (await login.peek("ada")).remaining == 2
    async with login.reserve("ada", cost=2):
        pass
    with pytest.raises(RateLimitedError):
        async with login.reserve("ada"):
            pytest.fail("it was refused")


def test_a_refund_of_what_was_never_taken_does_nothing():
    login = RateLimiter("2/minute")
    login.reserve("ada").refund()
    assert login.peek("ada").remaining == 2


async def test_a_cancellation_on_its_way_strikes_at_once():
    reached = []

    async def work():
        await heed_cancellation()
        asyncio.current_task().cancel()
        await heed_cancellation()
        reached.append(1)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())
    assert not reached
