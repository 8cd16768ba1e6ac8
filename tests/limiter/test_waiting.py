from __future__ import annotations

import asyncio
import math

from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import Instant
from resilience.limiter.waiting import AsyncWaiter, Patience, Waiter
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


def test_a_waiter_whose_loop_has_ended_cannot_be_woken():
    async def make():
        return AsyncWaiter()

    waiter = asyncio.run(make())
    assert waiter.is_gone
    assert not waiter.wake()
