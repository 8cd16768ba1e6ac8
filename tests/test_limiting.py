from __future__ import annotations

import asyncio
import math

from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import Instant
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiting import AsyncWaiter, Patience, Waiter
from resilience.testing import FakeClock


def test_patience_is_the_shorter_of_timeout_and_deadline():
    clock = FakeClock(start=0.0)
    assert Patience(5.0, clock, None).left() == 5.0
    assert Patience(5.0, clock, Instant(3.0, clock)).left() == 3.0
    assert Patience(math.inf, clock, Instant(3.0, clock)).left() == 3.0


def test_a_thread_is_woken_and_waits_again():
    waiter = Waiter()
    assert not waiter.is_gone
    assert waiter.wake()
    waiter.wait(SYSTEM_CLOCK, 10.0)
    clock = FakeClock()
    waiter.wait(clock, 10.0)
    assert clock.now() == 1010.0


async def test_a_task_is_woken_and_waits_again():
    waiter = AsyncWaiter()
    assert not waiter.is_gone
    assert waiter.wake()
    await asyncio.sleep(0)
    await waiter.wait_async(SYSTEM_CLOCK, 10.0)
    clock = FakeClock()
    await waiter.wait_async(clock, 10.0)
    assert clock.now() == 1010.0


def gone():
    """Return a waiter whose loop has ended."""

    async def make():
        return AsyncWaiter()

    return asyncio.run(make())


def test_a_waiter_whose_loop_has_ended_cannot_be_woken():
    waiter = gone()
    assert waiter.is_gone
    assert not waiter.wake()


def test_those_whose_loop_has_ended_are_sent_away():
    limiter = AsyncRateLimiter("1/minute")
    for _ in range(2):
        limiter._join("k", 1, gone())
    alive = Waiter()
    limiter._join("k", 1, alive)
    assert limiter.first("k") is alive
    limiter._leave("k", alive)
    assert limiter.first("k") is None


def test_who_leaves_wakes_the_next_who_is_still_there():
    limiter = RateLimiter("1/minute")
    first, alive = Waiter(), Waiter()
    for waiter in (first, gone(), alive):
        limiter._join("k", 1, waiter)
    limiter._leave("k", first)
    assert limiter.first("k") is alive
    assert alive._event.is_set()
    assert not first._event.is_set()


def test_nobody_waits_in_a_forked_child():
    limiter = RateLimiter("1/minute")
    limiter._join("k", 1, Waiter())
    before = limiter._lock
    limiter.after_fork()
    assert limiter._lock is not before
    assert not limiter._lines.by_key
