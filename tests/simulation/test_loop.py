"""Simulated time moves from timer to timer, and says so when it cannot."""

from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.simulation import loop as loops
from resilience.simulation.loop import SimulatedLoop, StandstillError, simulate


def test_an_hour_passes_at_once_and_exactly():
    async def main(clock):
        seen = []
        for seconds in (0.1, 0.2, 3599.7):
            await asyncio.sleep(seconds)
            seen.append(clock.now())
        return seen

    assert simulate(main) == [0.1, 0.1 + 0.2, 0.1 + 0.2 + 3599.7]


def test_timers_strike_at_their_very_instant_and_in_their_order():
    """As floats, 0.26 + (2.44 - 0.26) is less than 2.44."""

    async def main(clock):
        struck = []
        running = asyncio.get_running_loop()
        for at in (2.44, 0.26, 2.44):
            running.call_at(at, lambda: struck.append(clock.now()))
        await asyncio.sleep(3)
        return struck

    assert simulate(main) == [0.26, 2.44, 2.44]


async def wait_for_more_than_a_day(clock):
    await asyncio.sleep(1_000_000)
    return clock.now()


def test_a_wait_may_be_longer_than_any_selector_waits():
    assert simulate(wait_for_more_than_a_day) == 1_000_000.0


def test_asyncio_works_as_ever():
    async def main(clock):
        queue = asyncio.Queue(1)
        event = asyncio.Event()

        async def consumer():
            await asyncio.sleep(5)
            event.set()
            return await queue.get()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(consumer())
            await queue.put("first")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await event.wait()
            timed_out_at = clock.now()
            await event.wait()
        return timed_out_at, clock.now(), task.result()

    assert simulate(main) == (2.0, 5.0, "first")


def test_whoever_is_woken_from_elsewhere_is_woken():
    async def main(_clock):
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(event.set)
        await event.wait()
        return "woken"

    assert simulate(main) == "woken"


def test_waiting_for_what_never_comes_is_told():
    async def main(_clock):
        await asyncio.Event().wait()

    with pytest.raises(StandstillError, match="nothing is due after 0 s, and something still waits"):
        simulate(main)


def test_repeating_without_waiting_is_told(monkeypatch):
    monkeypatch.setattr(loops, "MOST_TURNS", 1000)

    async def main(_clock):
        await asyncio.sleep(2)
        while True:  # noqa: ASYNC110 - that is the point
            await asyncio.sleep(0)

    with pytest.raises(StandstillError, match="time stands still at 2 s"):
        simulate(main)


async def test_inside_another_loop_it_needs_a_thread():
    async def main(_clock):
        return threading.current_thread().name

    with pytest.raises(RuntimeError, match=r"event loop is running .* asyncio\.to_thread"):
        simulate(main)
    assert await asyncio.to_thread(simulate, main)


def test_it_needs_no_socket():
    loop = SimulatedLoop()
    try:
        loop._process_events(None)
        loop._write_to_self()
        assert loop.time() == 0.0
    finally:
        loop.close()
