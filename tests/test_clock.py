from __future__ import annotations

import asyncio
import threading
import time

import pytest

from resilience.clock import SYSTEM_CLOCK


def test_now_never_steps_back():
    readings = [SYSTEM_CLOCK.now() for _ in range(1000)]

    assert readings == sorted(readings)


def test_wall_is_unix_time():
    assert time.time() - 60 < SYSTEM_CLOCK.wall() < time.time() + 60


def test_sleep_lasts():
    started = time.monotonic()

    SYSTEM_CLOCK.sleep(0.01)

    assert time.monotonic() - started >= 0.01


async def test_sleep_async_lasts():
    started = time.monotonic()

    await SYSTEM_CLOCK.sleep_async(0.01)

    assert time.monotonic() - started >= 0.0099  # the loop's timer may be early by its resolution


async def test_sleep_async_leaves_at_once_when_cancelled():
    sleeper = asyncio.create_task(SYSTEM_CLOCK.sleep_async(3600))
    await asyncio.sleep(0)

    sleeper.cancel()

    with pytest.raises(asyncio.CancelledError):
        await sleeper


def test_wait_says_whether_the_event_is_set():
    event = threading.Event()

    assert not SYSTEM_CLOCK.wait(event, 0.001)

    event.set()
    assert SYSTEM_CLOCK.wait(event, 0)
    assert SYSTEM_CLOCK.wait(event, None)


async def test_wait_async_says_whether_the_event_is_set():
    event = asyncio.Event()

    assert not await SYSTEM_CLOCK.wait_async(event, 0.001)

    event.set()
    assert await SYSTEM_CLOCK.wait_async(event, 0)
    assert await SYSTEM_CLOCK.wait_async(event, None)


async def test_wait_async_ends_when_the_event_comes():
    event = asyncio.Event()
    waiting = asyncio.create_task(SYSTEM_CLOCK.wait_async(event, 3600))
    await asyncio.sleep(0)

    event.set()

    assert await waiting


async def test_wait_async_leaves_at_once_when_cancelled():
    waiting = asyncio.create_task(SYSTEM_CLOCK.wait_async(asyncio.Event(), 3600))
    await asyncio.sleep(0)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
