from __future__ import annotations

import asyncio
import functools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import AsyncBulkhead, Bulkhead, BulkheadFullError, criticality
from resilience._core.bulkhead import Slots
from resilience.bulkhead import BulkheadStats
from resilience.testing import FakeClock, wait_until
from tests.threads import together


@pytest.fixture
def clock():
    return FakeClock(auto=False)


def work(value="done"):
    return value


async def work_async(value="done"):
    await asyncio.sleep(0)
    return value


def fail():
    raise OSError("down")


async def fail_async():
    raise OSError("down")


# --- threads -------------------------------------------------------------------------------------


def test_a_call_returns_what_it_returned_or_raises_what_it_raised():
    bulkhead = Bulkhead(1)
    assert bulkhead.execute(work, value=1) == 1
    with pytest.raises(OSError, match="down"):
        bulkhead.execute(fail)
    assert bulkhead.stats().running == 0


def test_a_decorated_function_keeps_its_name_and_its_arguments():
    bulkhead = Bulkhead(1)

    @bulkhead
    def double(number, *, times=2):
        """Say twice the number."""
        return number * times, bulkhead.stats().running

    assert double(2, times=3) == (6, 1)
    assert (double.__name__, double.__doc__) == ("double", "Say twice the number.")


def test_a_generator_has_its_place_until_it_ends():
    bulkhead = Bulkhead(1)

    @bulkhead
    def count():
        yield 1
        yield 2

    stream = count()
    assert bulkhead.stats().running == 0
    assert next(stream) == 1
    assert bulkhead.stats().running == 1
    stream.close()
    assert bulkhead.stats().running == 0


def test_what_waits_in_a_task_is_refused():
    bulkhead = Bulkhead(1)
    with pytest.raises(TypeError, match="coroutine function, which waits in a task: use AsyncBulkhead"):
        bulkhead(work_async)

    async def stream():
        yield 1

    with pytest.raises(TypeError, match="use AsyncBulkhead"):
        bulkhead(stream)
    with pytest.raises(TypeError, match="returned a coroutine"):
        bulkhead.execute(work_async)
    assert bulkhead.stats().running == 0


def test_a_wrong_priority_is_refused_before_the_block():
    for priority in (1.5, True, "high"):
        with pytest.raises(TypeError, match="must be a whole number"):
            Bulkhead(1).guard(priority=priority)


def run(target, *args):
    thread = threading.Thread(target=target, args=args)
    thread.start()
    return thread


def test_threads_wait_in_order_of_priority_and_of_arrival(clock):
    bulkhead = Bulkhead(1, 10, clock=clock)
    served = []

    def call(level, number):
        with criticality(level):
            bulkhead.execute(served.append, (level, number))

    with bulkhead.guard():
        threads = []
        for number, level in enumerate(("sheddable", "critical", "sheddable", "critical_plus", "critical")):
            threads.append(run(call, level, number))
            wait_until(lambda number=number: bulkhead.stats().waiting == number + 1)
    for thread in threads:
        thread.join(5)
    assert [number for _, number in served] == [3, 1, 4, 0, 2]
    assert bulkhead.stats()[3:6] == (0, 0, 0)


def test_a_thread_that_waits_in_vain_is_rejected(clock):
    bulkhead = Bulkhead(1, 1, 2.0, clock=clock)
    rejected = []

    def call():
        try:
            bulkhead.execute(work)
        except BulkheadFullError as error:
            rejected.append(error)

    with bulkhead.guard():
        thread = run(call)
        clock.wait_for_sleepers(1)
        clock.advance(2.0)
        thread.join(5)
    assert len(rejected) == 1
    assert bulkhead.stats()[3:6] == (0, 0, 1)


def test_a_thread_that_is_interrupted_while_it_waits_leaves_the_line():
    class Interrupted(FakeClock):
        def wait(self, event, timeout):
            raise KeyboardInterrupt

    bulkhead = Bulkhead(1, 1, clock=Interrupted())
    with bulkhead.guard():
        with pytest.raises(KeyboardInterrupt):
            bulkhead.execute(work)
        assert bulkhead.stats()[3:5] == (1, 0)
    assert bulkhead.stats().running == 0


def test_a_block_waits_too(clock):
    bulkhead = Bulkhead(1, 1, clock=clock)

    def call():
        with bulkhead.guard(priority=1):
            pass

    with bulkhead.guard():
        thread = run(call)
        wait_until(lambda: bulkhead.stats().waiting == 1)
    thread.join(5)
    assert bulkhead.stats()[3:6] == (0, 0, 0)


def test_at_no_moment_do_more_run_than_may():
    clock = FakeClock(yielding=True)
    bulkhead = Bulkhead(3, 100, clock=clock)
    running, most = [], []

    @bulkhead
    def call():
        running.append(1)
        time.sleep(0)
        most.append(len(running))
        running.pop()

    together(8, lambda _: [call() for _ in range(50)])
    assert max(most) <= 3
    assert len(most) == 400
    assert bulkhead.stats() == BulkheadStats(bulkhead.name, 3, 100, 0, 0, 0, bulkhead.stats().longest_wait)


# --- tasks ---------------------------------------------------------------------------------------


async def test_an_awaited_call_returns_what_it_returned_or_raises_what_it_raised():
    bulkhead = AsyncBulkhead(1)
    assert await bulkhead.execute(work_async, value=1) == 1
    with pytest.raises(OSError, match="down"):
        await bulkhead.execute(fail_async)
    assert bulkhead.stats().running == 0


async def test_a_decorated_coroutine_function_keeps_its_name():
    bulkhead = AsyncBulkhead(1)

    @bulkhead
    @functools.wraps(work_async)
    async def call(*args):
        return bulkhead.stats().running

    assert await call() == 1
    assert call.__name__ == "work_async"


async def test_an_async_generator_has_its_place_until_it_ends():
    bulkhead = AsyncBulkhead(1)

    @bulkhead
    async def count():
        yield 1
        yield 2

    stream = count()
    assert await anext(stream) == 1
    assert bulkhead.stats().running == 1
    await stream.aclose()
    assert bulkhead.stats().running == 0


async def test_what_waits_in_a_thread_is_refused():
    bulkhead = AsyncBulkhead(1)
    with pytest.raises(TypeError, match="is a function, which waits in a thread: use Bulkhead"):
        bulkhead(work)
    with pytest.raises(TypeError, match="returned 'done', which cannot be awaited: use Bulkhead"):
        await bulkhead.execute(work)
    assert bulkhead.stats().running == 0


async def test_tasks_wait_in_order_of_priority_and_of_arrival():
    bulkhead = AsyncBulkhead(1, 10)
    served = []

    async def call(level, number):
        with criticality(level):
            await bulkhead.execute(work_async)
        served.append(number)

    async with bulkhead.guard():
        levels = ("sheddable", "critical", "sheddable", "critical_plus", "critical")
        tasks = [asyncio.ensure_future(call(level, number)) for number, level in enumerate(levels)]
        await asyncio.sleep(0)
        assert bulkhead.stats().waiting == 5
    await asyncio.gather(*tasks)
    assert served == [3, 1, 4, 0, 2]


async def test_an_async_block_waits_too():
    bulkhead = AsyncBulkhead(1, 1)

    async def call():
        async with bulkhead.guard(priority=1):
            return bulkhead.stats().running

    async with bulkhead.guard():
        task = asyncio.ensure_future(call())
        await asyncio.sleep(0)
    assert await task == 1


class FreedJustThen(Slots):
    """Slots of which one becomes free between a look at them and the arrival in line."""

    def arrive(self, waiter, priority):
        self.running -= 1
        return super().arrive(waiter, priority)


async def test_who_comes_just_when_a_place_has_come_free_does_not_wait():
    for bulkhead in (Bulkhead(1), AsyncBulkhead(1)):
        slots = bulkhead._slots = FreedJustThen(1, 0)
        slots.running = 1
        result = bulkhead.execute(work if isinstance(bulkhead, Bulkhead) else work_async)
        assert (await result if asyncio.iscoroutine(result) else result) == "done"
        assert slots.running == 0


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line():
    bulkhead = AsyncBulkhead(1, 1)
    async with bulkhead.guard():
        task = asyncio.ensure_future(bulkhead.execute(work_async))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bulkhead.stats()[3:6] == (1, 0, 0)


@given(st.lists(st.tuples(st.sampled_from(["call", "cancel", "tick"]), st.integers(0, 3)), max_size=60))
def test_whatever_tasks_do_no_place_is_lost(steps):
    async def scene():
        bulkhead = AsyncBulkhead(2, 3)
        tasks = []
        for step, number in steps:
            if step == "call":
                tasks.append(asyncio.ensure_future(bulkhead.execute(asyncio.sleep, 0)))
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            else:
                await asyncio.sleep(0)
            assert 0 <= bulkhead.stats().running <= 2
            assert bulkhead.stats().waiting <= 3
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} <= {
            type(None),
            BulkheadFullError,
            asyncio.CancelledError,
        }
        assert bulkhead.stats()[3:5] == (0, 0)

    asyncio.run(scene())
