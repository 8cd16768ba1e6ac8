from __future__ import annotations

import asyncio
import copy
import gc
import math
import pickle
import threading
import time

import pytest

from resilience.testing import FakeClock, cancel_at_every_tick


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# --- readings ------------------------------------------------------------------------------------


def test_it_stands_still_by_itself():
    clock = FakeClock(start=5.0, wall=100.0)

    assert (clock.now(), clock.wall(), clock.now(), clock.wall()) == (5.0, 100.0, 5.0, 100.0)


def test_advance_moves_both_readings():
    clock = FakeClock(start=5.0, wall=100.0)

    clock.advance(2.5)

    assert (clock.now(), clock.wall()) == (7.5, 102.5)


def test_step_sets_it_back():
    clock = FakeClock(start=5.0)

    clock.step(-10.0)

    assert clock.now() == -5.0


def test_step_wall_leaves_now_alone():
    clock = FakeClock(start=5.0, wall=100.0)

    clock.step_wall(-3600.0)

    assert (clock.now(), clock.wall()) == (5.0, -3500.0)


def test_time_does_not_pass_backwards():
    with pytest.raises(ValueError, match="use step"):
        FakeClock().advance(-1.0)


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_what_is_not_finite_is_no_time(seconds):
    clock = FakeClock(5.0, wall=100.0)
    for move in (clock.advance, clock.step, clock.step_wall, FakeClock, lambda wall: FakeClock(wall=wall)):
        with pytest.raises(ValueError, match="finite seconds"):
            move(seconds)
    assert (clock.now(), clock.wall()) == (5.0, 100.0)


def check_then_act_goes_wrong(clock):
    """Return whether two threads that share a flag both saw it unset."""
    winners = []
    together = threading.Barrier(2)

    def take():
        together.wait()
        if not winners:
            clock.now()
            winners.append(1)

    threads = [in_thread(take) for _ in range(2)]
    for thread in threads:
        thread.join()
    return len(winners) == 2


def test_a_yielding_clock_lets_other_threads_in(monkeypatch):
    yields = []
    monkeypatch.setattr(time, "sleep", yields.append)

    FakeClock().now()
    assert yields == []

    FakeClock(yielding=True).now()
    assert yields == [0]


def test_a_yielding_clock_brings_a_race_out():
    clock = FakeClock(yielding=True)

    assert any(check_then_act_goes_wrong(clock) for _ in range(200))


# --- in auto mode --------------------------------------------------------------------------------


def test_a_sleep_moves_it():
    clock = FakeClock(start=0.0)

    clock.sleep(3600.0)
    clock.sleep(0)

    assert (clock.now(), clock.sleeps) == (3600.0, [3600.0, 0])


async def test_an_async_sleep_moves_it_and_lets_other_tasks_in():
    clock = FakeClock(start=0.0)
    other = asyncio.create_task(clock.sleep_async(1.0))

    await clock.sleep_async(3600.0)
    await clock.sleep_async(0)
    assert other.done()

    assert clock.now() == 3601.0


def test_a_wait_times_out_at_once():
    clock = FakeClock(start=0.0)

    assert not clock.wait(threading.Event(), 3600.0)
    assert clock.now() == 3600.0


def test_a_wait_for_what_is_set_takes_no_time():
    clock, event = FakeClock(start=0.0), threading.Event()
    event.set()

    assert clock.wait(event, 3600.0)
    assert clock.wait(event, None)
    assert clock.now() == 0.0


async def test_an_async_wait_times_out_at_once():
    clock = FakeClock(start=0.0)

    assert not await clock.wait_async(asyncio.Event(), 3600.0)
    assert clock.now() == 3600.0


async def test_an_async_wait_for_what_is_set_takes_no_time():
    clock, event = FakeClock(start=0.0), asyncio.Event()
    event.set()

    assert await clock.wait_async(event, 3600.0)
    assert await clock.wait_async(event, None)
    assert clock.now() == 0.0


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
async def test_a_sleep_below_zero_is_refused(seconds):
    clock = FakeClock()

    with pytest.raises(ValueError, match="zero or more seconds"):
        clock.sleep(seconds)
    with pytest.raises(ValueError, match="zero or more seconds"):
        await clock.sleep_async(seconds)

    assert clock.sleeps == []


# --- moved by hand -------------------------------------------------------------------------------


def test_a_thread_sleeps_until_its_time_has_come():
    clock = FakeClock(auto=False)
    sleeper = in_thread(lambda: clock.sleep(10.0))
    clock.wait_for_sleepers(1)

    clock.advance(9.0)
    assert clock.sleepers == 1

    clock.advance(1.0)
    sleeper.join()
    assert clock.sleepers == 0


async def test_a_task_sleeps_until_its_time_has_come():
    clock = FakeClock(auto=False)
    sleeper = asyncio.create_task(clock.sleep_async(10.0))
    await clock.wait_for_sleepers_async(1)

    clock.advance(9.0)
    await asyncio.sleep(0)
    assert not sleeper.done()

    clock.advance(1.0)
    await sleeper
    assert clock.sleepers == 0


async def test_a_sleep_of_nothing_returns():
    clock = FakeClock(auto=False)

    clock.sleep(0)
    await clock.sleep_async(0)

    assert clock.sleeps == [0, 0]


def test_sleepers_wake_in_the_order_they_are_due():
    clock = FakeClock(auto=False)
    order = []
    with (
        clock._sleeping(3.0, lambda: order.append(3)),
        clock._sleeping(1.0, lambda: order.append(1)),
        clock._sleeping(9.0, lambda: order.append(9)),
        clock._sleeping(2.0, lambda: order.append(2)),
    ):
        clock.advance(5.0)

        assert order == [1, 2, 3]
        assert clock.sleepers == 1


def test_stepping_wakes_nobody_and_delays_whoever_sleeps():
    clock = FakeClock(auto=False)
    sleeper = in_thread(lambda: clock.sleep(10.0))
    clock.wait_for_sleepers(1)

    clock.step(100.0)
    clock.step(-105.0)
    clock.advance(14.0)
    assert clock.sleepers == 1

    clock.advance(1.0)
    sleeper.join()


def test_an_event_ends_a_threads_wait():
    clock, event, answers = FakeClock(auto=False), threading.Event(), []
    waiting = in_thread(lambda: answers.append(clock.wait(event, 10.0)))
    clock.wait_for_sleepers(1)

    event.set()
    waiting.join()

    assert answers == [True]
    assert clock.sleepers == 0


def test_time_ends_a_threads_wait():
    clock, answers = FakeClock(auto=False), []
    waiting = in_thread(lambda: answers.append(clock.wait(threading.Event(), 10.0)))
    clock.wait_for_sleepers(1)

    clock.advance(10.0)
    waiting.join()

    assert answers == [False]


async def test_an_event_ends_a_tasks_wait():
    clock, event = FakeClock(auto=False), asyncio.Event()
    waiting = asyncio.create_task(clock.wait_async(event, 10.0))
    await clock.wait_for_sleepers_async(1)

    event.set()

    assert await waiting
    assert clock.sleepers == 0


async def test_time_ends_a_tasks_wait():
    clock = FakeClock(auto=False)
    waiting = asyncio.create_task(clock.wait_async(asyncio.Event(), 10.0))
    await clock.wait_for_sleepers_async(1)

    clock.advance(10.0)

    assert not await waiting


async def test_an_event_and_time_in_one_tick_are_a_success():
    clock, event = FakeClock(auto=False), asyncio.Event()
    waiting = asyncio.create_task(clock.wait_async(event, 10.0))
    await clock.wait_for_sleepers_async(1)

    event.set()
    clock.advance(10.0)

    assert await waiting


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_a_wait_for_no_time_only_looks(seconds):
    clock = FakeClock(auto=False)

    assert not clock.wait(threading.Event(), seconds)
    assert not await clock.wait_async(asyncio.Event(), seconds)


def test_a_task_is_woken_from_another_thread():
    clock = FakeClock(auto=False)
    sleeper = in_thread(lambda: asyncio.run(clock.sleep_async(10.0)))
    clock.wait_for_sleepers(1)

    clock.advance(10.0)
    sleeper.join(5.0)

    assert not sleeper.is_alive()


def test_whoever_is_cancelled_sleeps_no_more():
    clock = FakeClock(auto=False)

    async def sleep_and_wait():
        sleeping = asyncio.create_task(clock.sleep_async(10.0))
        waiting = asyncio.create_task(clock.wait_async(asyncio.Event(), 10.0))
        for _ in range(3):
            await asyncio.sleep(0)
        clock.advance(10.0)
        await asyncio.wait([sleeping, waiting])

    def nobody_sleeps():
        assert clock.sleepers == 0

    assert cancel_at_every_tick(sleep_and_wait, nobody_sleeps) > 6


def test_a_child_process_gets_a_free_lock():
    clock = FakeClock()
    lock = clock._lock

    clock.after_fork()

    assert clock._lock is not lock


def test_waiting_for_sleepers_in_vain_says_how_many_there_are():
    clock = FakeClock(auto=False)

    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 2 sleepers, 0 so far"):
        clock.wait_for_sleepers(2, timeout=0.01)


async def test_waiting_for_sleepers_async_in_vain_says_how_many_there_are():
    clock = FakeClock(auto=False)

    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 2 sleepers, 0 so far"):
        await clock.wait_for_sleepers_async(2, timeout=0.01)


def test_the_sleepers_of_a_closed_loop_harm_nobody():
    clock = FakeClock(auto=False)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it tells of the pending task, which is the point
    sleeper = loop.create_task(clock.sleep_async(10.0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    clock.advance(10.0)
    del sleeper
    gc.collect()

    assert clock.sleepers == 0


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(duplicate):
    with pytest.raises(TypeError, match="share this one"):
        duplicate(FakeClock())
