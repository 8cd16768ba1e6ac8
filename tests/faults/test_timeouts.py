"""The fault catalogue's lines on timeouts, streams' timeouts, fallbacks and hedges, by number."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import subprocess
import sys
import threading
import warnings
from contextlib import aclosing, suppress

import pytest

from resilience import (
    DeadlineExceeded,
    Fallback,
    Hedge,
    RetryBudget,
    StreamTimeout,
    Timeout,
    TimeoutExceeded,
    deadline,
)
from resilience.deadline import CURRENT
from resilience.simulation.loop import simulate
from resilience.testing import FakeClock, cancel_at_every_tick
from tests.children import forking, in_child

POLICIES = [
    lambda **options: Timeout(60.0, **options),
    lambda **options: StreamTimeout(60.0, **options),
    lambda **options: Fallback(value=None, **options),
    lambda **options: Hedge(60.0, **options),
]
each_policy = pytest.mark.parametrize("make", POLICIES, ids=["Timeout", "StreamTimeout", "Fallback", "Hedge"])


async def fail(*_):
    raise ConnectionError("down")


# --- A. cancellation -----------------------------------------------------------------------------


def test_fault_05_a_cancellation_at_any_tick_is_no_timeout_and_leaves_no_deadline():
    timeout = Timeout(3600.0)

    async def main():
        try:
            await timeout.execute_async(asyncio.sleep, 0)
        finally:
            assert CURRENT.get() is None

    assert cancel_at_every_tick(main, lambda: timeout.stats()[2:] == (0, 0)) > 1
    assert timeout.stats()[2:] == (0, 0)


def test_fault_05_a_call_hedged_and_cancelled_at_any_tick_leaves_no_attempt():
    running = [0]
    hedges = []

    async def work():
        running[0] += 1
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            running[0] -= 1

    async def main():
        hedges.append(Hedge(1e-9, budget=None))
        await hedges[-1].execute(work)

    async def nothing_is_left():
        await hedges[-1].drain()
        assert running == [0]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    assert cancel_at_every_tick(main, nothing_is_left, times=2) > 6


async def test_fault_06_with_no_time_left_nothing_is_begun_and_no_hedge_paid():
    clock = FakeClock()
    begun = []
    budget = RetryBudget()

    async def work():
        begun.append(1)

    async def stream():
        begun.append(1)
        yield

    with deadline(0.0, clock=clock):
        for call in (Timeout(1.0)(work), Hedge(1.0, budget=budget)(work)):
            with pytest.raises(DeadlineExceeded, match="was not begun"):
                await call()
        with pytest.raises(DeadlineExceeded, match="was not begun"):
            await anext(StreamTimeout(1.0)(stream)())
        with pytest.raises(DeadlineExceeded, match="was not begun"):
            Timeout(1.0).execute(begun.append, 1)
    assert not begun
    assert budget.tokens == budget.capacity


async def test_fault_06_a_task_cancelled_before_it_ran_begins_nothing():
    begun = []

    async def work():
        begun.append(1)

    for policy in (Timeout(60.0), Hedge(60.0), Fallback(value=1, on=Exception)):
        task = asyncio.ensure_future(policy(work)())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not begun


async def test_fault_08_when_a_sibling_fails_all_attempts_have_ended_before_the_group_does():
    running = [0]

    async def work():
        running[0] += 1
        try:
            await asyncio.sleep(60)
        finally:
            running[0] -= 1

    async def siblings():
        async with asyncio.TaskGroup() as group:
            for policy in (Hedge(0.001, budget=None), Timeout(60.0)):
                group.create_task(policy(work)())
            await asyncio.sleep(0.01)
            assert running == [3]
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await siblings()
    assert running == [0]


def test_fault_09_cancelled_again_while_it_unwinds_it_still_waits_for_its_attempts():
    async def stuck():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5.0)

    async def main(clock):
        call = asyncio.create_task(Hedge(1.0).execute(stuck))
        await clock.sleep_async(2.0)
        for _ in range(3):
            call.cancel()
            await clock.sleep_async(0.1)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert asyncio.all_tasks() == {asyncio.current_task()}

    simulate(main)


# --- B. event loops, generators, coroutines ------------------------------------------------------


def test_fault_11_one_object_serves_one_loop_after_the_other():
    timeout = Timeout(0.005)
    hedge = Hedge(0.001, budget=None)
    for _ in range(3):
        with pytest.raises(TimeoutExceeded):
            asyncio.run(timeout.execute_async(asyncio.sleep, 60))
        assert asyncio.run(hedge.execute(asyncio.sleep, 0.002, "answer")) == "answer"
    assert timeout.stats().timed_out == 3


def test_fault_12_loops_in_threads_share_it_and_each_call_ends_on_its_own():
    timeout = Timeout(0.005)
    ended = []

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(5):
            with suppress(TimeoutExceeded):
                await timeout.execute_async(asyncio.sleep, 60)
            ended.append(asyncio.get_running_loop() is loop)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [True] * 20
    assert timeout.stats().timed_out == 20


def test_fault_13_a_loop_that_is_closed_with_calls_pending_reports_nothing():
    reported, tasks = [], []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        loser = Hedge(0.001, budget=None)
        attempts = iter([asyncio.sleep(60), asyncio.sleep(0)])
        await loser.execute(lambda: next(attempts))
        pending = Timeout(60.0).execute_async(asyncio.sleep, 60), Hedge(0.001, budget=None).execute(fail)
        tasks.extend(map(asyncio.ensure_future, pending))
        await asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()
    assert not reported


async def test_fault_15_a_call_that_is_not_begun_makes_no_coroutine():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with deadline(0.0):
            for policy in (Timeout(1.0), Hedge(1.0)):
                with pytest.raises(DeadlineExceeded):
                    await policy(fail)()
            with pytest.raises(DeadlineExceeded):
                await Timeout(1.0).execute_async(fail)
        gc.collect()


@pytest.mark.parametrize("leave", ["closed", "collected"])
async def test_fault_16_a_stream_abandoned_half_way_is_closed_once(leave):
    closed = []

    async def rows():
        try:
            for number in range(9):
                yield number
        finally:
            closed.append(1)

    items = StreamTimeout(60.0, 60.0)(rows)()
    assert await anext(items) == 0
    if leave == "closed":
        async with aclosing(items):
            pass
    else:
        del items
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
    assert closed == [1]
    assert CURRENT.get() is None


# --- C. threads ----------------------------------------------------------------------------------


async def test_fault_22_a_listener_that_raises_or_asks_again_breaks_nothing(caplog):
    heard = []

    def listen(event):
        heard.append(event)
        policy.stats()
        raise ValueError("a broken listener")

    policy = Timeout(0.001, on_timeout=listen)
    with pytest.raises(TimeoutExceeded):
        await policy.execute_async(asyncio.sleep, 60)
    policy = Fallback(value="no", on_fallback=listen)
    assert await policy.execute_async(fail) == "no"
    policy = Hedge(0.001, budget=None, on_hedge=listen)
    assert await policy.execute(asyncio.sleep, 0.01, "answer") == "answer"
    assert len(heard) == 3
    assert caplog.text.count("the listener") == 3


@each_policy
def test_fault_23_a_finaliser_while_the_lock_is_held_does_not_block(make):
    policy = make()
    locked = policy if hasattr(policy, "_lock") else policy._first
    with locked._lock:
        policy.stats()


async def test_fault_26_a_predicate_that_raises_reaches_the_caller_with_the_failure_as_its_context():
    def broken(error):
        raise LookupError("in the predicate")

    with pytest.raises(LookupError) as caught:
        await Fallback(value=1, on=broken).execute_async(fail)
    assert isinstance(caught.value.__context__, ConnectionError)


# --- D. processes --------------------------------------------------------------------------------


@forking
def test_fault_28_a_child_forked_while_a_lock_is_held_works():
    timeout, fallback, hedge = Timeout(0.005), Fallback(value="no"), Hedge(0.001, budget=None)
    asyncio.run(Timeout.execute_async(timeout, asyncio.sleep, 0))  # its line is there, on a loop that is gone
    held, leave = threading.Event(), threading.Event()

    def hold():
        with timeout._lock, timeout._lines._lock, fallback._lock, hedge._lock:
            held.set()
            leave.wait()

    async def use_all():
        with pytest.raises(TimeoutExceeded):
            await timeout.execute_async(asyncio.sleep, 60)
        assert await fallback.execute_async(fail) == "no"
        assert await hedge.execute(asyncio.sleep, 0.01, "answer") == "answer"
        assert (timeout.stats().timed_out, fallback.stats().used, hedge.stats().hedges) == (1, 1, 1)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(lambda: asyncio.run(use_all())) == 0
    finally:
        leave.set()
        thread.join()


@each_policy
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_fault_31_none_is_copied_and_each_says_why(make, copied):
    with pytest.raises(TypeError, match="'storage' cannot be copied or pickled: it"):
        copied(make(name="storage"))


def test_fault_31_a_timeout_round_trips():
    twin = pickle.loads(pickle.dumps(TimeoutExceeded("2.0 s were up")))
    assert (type(twin), str(twin), twin.status) == (TimeoutExceeded, "2.0 s were up", 504)


def test_fault_33_the_interpreter_ends_with_timers_set_and_attempts_under_way():
    source = """
import asyncio
from resilience import Hedge, Timeout
async def main():
    asyncio.ensure_future(Timeout(60.0).execute_async(asyncio.sleep, 60))
    asyncio.ensure_future(Hedge(0.001).execute(asyncio.sleep, 60))
    await asyncio.sleep(0.01)
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, timeout=10, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


# --- H. dependencies -----------------------------------------------------------------------------


def test_fault_64_a_peer_that_sends_a_byte_now_and_then_is_ended_by_the_total():
    async def main(clock):
        async def trickle():
            while True:
                await clock.sleep_async(1.0)
                yield b"x"

        async def download():
            return [piece async for piece in StreamTimeout(5.0, 5.0, clock=clock)(trickle)()]

        with pytest.raises(TimeoutExceeded, match="download"):
            await Timeout(30.0, name="download", clock=clock).execute_async(download)
        assert clock.now() == 30.0

    simulate(main)


def test_fault_67_while_everything_is_slow_or_down_hedges_stay_within_the_budget():
    requests = [0]

    async def main(clock):
        async def slow():
            requests[0] += 1
            await clock.sleep_async(2.0)

        async def down():
            requests[0] += 1
            await clock.sleep_async(2.0)
            raise ConnectionError

        hedge = Hedge(1.0, budget=RetryBudget())
        for _ in range(60):
            with suppress(ConnectionError):
                await hedge.execute(down)
        assert requests[0] == 60 + 5  # the budget, once
        requests[0] = 0
        for _ in range(110):
            await hedge.execute(slow)
        assert requests[0] == 110 + 10  # what clean successes have earned

    simulate(main)


# --- L. resources --------------------------------------------------------------------------------


async def test_fault_100_calls_leave_no_timers_tasks_or_objects_behind():
    timeout, hedge = Timeout(3600.0), Hedge(3600.0)
    loop = asyncio.get_running_loop()

    async def use(times):
        for _ in range(times):
            await timeout.execute_async(asyncio.sleep, 0)
            await hedge.execute(asyncio.sleep, 0)
            with suppress(ConnectionError):
                await hedge.execute(fail)
        gc.collect()
        return len(gc.get_objects()), sum(not handle.cancelled() for handle in loop._scheduled)

    await use(200)
    objects, timers = await use(100)
    more_objects, more_timers = await use(1000)
    assert more_timers == timers <= 1
    assert more_objects - objects < 200
    assert asyncio.all_tasks() == {asyncio.current_task()}
