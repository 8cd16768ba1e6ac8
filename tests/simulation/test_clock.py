"""What policies read and wait on in a simulation."""

from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.simulation.clock import BEGINNING, BlockingError, SimulatedClock
from resilience.simulation.loop import simulate


def test_it_reads_and_waits_on_the_loop():
    async def main(clock):
        event = asyncio.Event()
        await clock.sleep_async(2.5)
        in_vain = await clock.wait_async(event, 1.0)
        asyncio.get_running_loop().call_later(3.0, event.set)
        return (
            clock.now(),
            clock.wall() - BEGINNING,
            in_vain,
            await clock.wait_async(event, None),
            clock.now(),
        )

    assert simulate(main) == (3.5, 3.5, False, True, 6.5)


def test_a_thread_cannot_wait_on_it():
    clock = SimulatedClock(lambda: 7.0)
    assert clock.now() == 7.0
    with pytest.raises(BlockingError, match=r"a sleep of 1\.5 s would stop all .* AsyncRetryManager"):
        clock.sleep(1.5)
    with pytest.raises(BlockingError, match="waiting for"):
        clock.wait(threading.Event(), None)
