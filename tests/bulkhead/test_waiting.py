from __future__ import annotations

import asyncio
import threading

from resilience.bulkhead.waiting import AsyncWaiter, Fate, Patience, Waiter


def test_a_thread_is_woken():
    waiter = Waiter(2)
    assert (waiter.priority, waiter.fate, waiter.event.is_set()) == (2, Fate.WAITING, False)
    assert waiter.wake()
    assert waiter.event.is_set()


async def test_a_task_is_woken_on_its_loop_from_any_thread():
    waiter = AsyncWaiter(1)
    thread = threading.Thread(target=waiter.wake)
    thread.start()
    await asyncio.wait_for(waiter.event.wait(), 5)
    thread.join()
    assert (waiter.priority, waiter.fate) == (1, Fate.WAITING)


def test_a_task_whose_loop_is_closed_cannot_be_woken():
    async def make():
        return AsyncWaiter(0)

    assert not asyncio.run(make()).wake()


def test_patience_without_an_end():
    assert Patience(1.0, None, None).seconds is None
