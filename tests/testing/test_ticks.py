from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from resilience.testing import cancel_at_every_tick


class Permits:
    """A semaphore with one permit, and a fault to choose."""

    def __init__(self, fault):
        self.free = 1
        self.fault = fault
        self.waiting = []

    async def __aenter__(self):
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and self.fault != "loses what it was handed":
                self.hand_on()
            raise

    async def __aexit__(self, *error):
        self.hand_on()

    def hand_on(self):
        while self.waiting:
            turn = self.waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


def sweep(fault=None, **options):
    permits = None

    async def three_workers():
        nonlocal permits
        permits = Permits(fault)

        async def work():
            async with permits:
                await asyncio.sleep(0)

        await asyncio.gather(*(work() for _ in range(3)), return_exceptions=True)

    def all_free():
        assert permits.free == 1

    return cancel_at_every_tick(three_workers, all_free, patience=0.02, **options)


def test_a_sound_scenario_passes():
    assert sweep() > 10


def test_it_may_be_cancelled_several_times():
    assert sweep(times=3) > 10


def test_a_permit_lost_in_the_tick_of_its_handing_over_is_found():
    with pytest.raises(AssertionError) as found:
        sweep("loses what it was handed")

    assert "cancelled was task" in found.value.__notes__[0]
    assert "at tick" in found.value.__notes__[0]


def test_a_swallowed_cancellation_is_found():
    async def deaf():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="swallowed its cancellation"):
        cancel_at_every_tick(deaf)


def test_every_task_is_struck_at_every_tick():
    struck = set()

    async def parent():
        ticks = {"child": 0, "parent": 0}

        async def count(name):
            try:
                for _ in range(3):
                    ticks[name] += 1
                    await asyncio.sleep(0)
            except asyncio.CancelledError:
                struck.add((name, ticks[name]))
                raise

        child = asyncio.create_task(count("child"))
        await count("parent")
        await asyncio.wait([child])

    cancel_at_every_tick(parent)

    assert {(name, tick) for name in ("child", "parent") for tick in (1, 2, 3)} <= struck


def test_the_first_run_is_undisturbed():
    async def broken():
        await asyncio.sleep(0)
        raise LookupError("by itself")

    with pytest.raises(LookupError, match="by itself") as raised:
        cancel_at_every_tick(broken)

    assert not hasattr(raised.value, "__notes__")


def test_a_check_may_be_awaited_on_the_same_loop():
    loops = set()

    async def scenario():
        loops.add(asyncio.get_running_loop())

    async def check():
        assert loops <= {asyncio.get_running_loop()}
        loops.clear()

    cancel_at_every_tick(scenario, check)


def test_a_task_is_also_cancelled_before_it_begins():
    made, begun = [], []

    async def begin():
        begun.append(1)

    def make():
        made.append(1)
        return begin()

    assert cancel_at_every_tick(make) == 1
    assert len(begun) == len(made) - 1


def test_tasks_left_running_are_ended_before_the_check():
    left = []

    async def scenario():
        left.append(asyncio.create_task(asyncio.Event().wait()))
        await asyncio.sleep(0)

    def all_done():
        assert left[-1].done()

    cancel_at_every_tick(scenario, all_done)


def test_a_lost_wake_up_is_found():
    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"nothing moved any more for 0\.01 s"):
        cancel_at_every_tick(forever, patience=0.01)


def test_another_thread_may_wake_it():
    async def scenario():
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        threading.Timer(0.005, loop.call_soon_threadsafe, [event.set]).start()
        with contextlib.suppress(RuntimeError):
            await event.wait()

    async def await_timer():
        for timer in threading.enumerate():
            if isinstance(timer, threading.Timer):
                await asyncio.to_thread(timer.join)

    assert cancel_at_every_tick(scenario, await_timer) >= 1


def test_what_the_loop_reports_is_a_failure():
    async def scenario():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="the event loop reports: Exception in callback") as found:
        cancel_at_every_tick(scenario)

    assert isinstance(found.value.__cause__, ZeroDivisionError)
