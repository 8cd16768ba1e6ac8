"""Timeouts: what they end, what they leave alone, and who wins where several end at once."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience import events
from resilience.callables import MisuseError
from resilience.deadline import CURRENT, deadline, remaining
from resilience.errors import DeadlineExceeded, TimeoutExceeded
from resilience.events import TimedOut
from resilience.retry import AsyncRetryManager
from resilience.simulation.loop import simulate
from resilience.testing import FakeClock, cancel_at_every_tick
from resilience.timeout import Timeout
from resilience.transient import classify, is_transient


async def forever():
    await asyncio.Event().wait()


async def take(clock, seconds):
    await clock.sleep_async(seconds)
    return remaining()


async def decorated(limit, fn, *args):
    return await limit(fn)(*args)


async def executed(limit, fn, *args):
    return await limit.execute_async(fn, *args)


async def in_block(limit, fn, *args):
    async with limit.guard():
        return await fn(*args)


each_form = pytest.mark.parametrize("call", [decorated, executed, in_block])


# --- sync ----------------------------------------------------------------------------------------


def test_a_sync_call_sees_what_remains():
    clock = FakeClock()
    timeout = Timeout(2.0, clock=clock)

    @timeout
    def fetch(first, *, second):
        clock.advance(0.5)
        return first, second, remaining()

    assert fetch(1, second=2) == (1, 2, 1.5)
    assert timeout.execute(fetch, 1, second=2) == (1, 2, 1.5)
    assert remaining() is None


def test_a_sync_call_that_takes_too_long_is_not_ended_and_its_result_is_returned():
    clock = FakeClock()
    timeout = Timeout(2.0, clock=clock)

    def fetch():
        clock.advance(10.0)
        return remaining()

    assert timeout.execute(fetch) == 0.0
    assert timeout.stats().timed_out == 0


def test_a_sync_call_is_not_begun_once_the_deadline_has_passed():
    clock = FakeClock()
    fetch = Timeout(2.0, name="fetch", clock=clock)(lambda: pytest.fail("it was begun"))

    with deadline(1.0, clock=clock):
        clock.advance(1.5)
        with pytest.raises(
            DeadlineExceeded, match=r"fetch was not begun: the deadline passed 0\.500 s before"
        ):
            fetch()


def test_an_exception_of_a_sync_call_passes_untouched():
    error = TimeoutError("its own")

    def fetch():
        raise error

    with pytest.raises(TimeoutError) as caught:
        Timeout(2.0).execute(fetch)

    assert caught.value is error
    assert error.__cause__ is error.__context__ is None
    assert remaining() is None


def test_a_coroutine_from_a_sync_call_is_refused():
    with pytest.raises(MisuseError, match="returned a coroutine, whose time would not be limited"):
        Timeout(2.0).execute(forever)


def test_a_plain_block_sets_the_deadline():
    clock = FakeClock()
    timeout = Timeout(2.0, clock=clock)

    with timeout.guard(), timeout.guard():
        assert remaining() == 2.0
    assert remaining() is None

    with deadline(0.0, clock=clock), pytest.raises(DeadlineExceeded), timeout.guard():
        pytest.fail("it was begun")


def test_a_plain_block_lets_exceptions_pass():
    with pytest.raises(KeyError), Timeout(2.0).guard():
        raise KeyError
    assert remaining() is None


# --- async ---------------------------------------------------------------------------------------


@each_form
def test_an_async_call_is_cancelled_when_its_time_is_up(call):
    seen = []
    timeout = Timeout(2.0, name="fetch", on_timeout=seen.append)

    async def main(clock):
        with pytest.raises(
            TimeoutExceeded, match=r"^fetch was cancelled: its timeout of 2 s was up$"
        ) as caught:
            await call(timeout, take, clock, 3600.0)
        assert clock.now() == 2.0
        assert asyncio.current_task().cancelling() == 0
        assert remaining() is None
        return caught.value

    error = simulate(main)

    assert isinstance(error, TimeoutError)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error.__cause__, asyncio.CancelledError)
    assert error.status == 504
    assert seen == [TimedOut("fetch", 2.0, by_deadline=False)]
    assert timeout.stats() == ("fetch", 2.0, 1, 0)


@each_form
def test_an_async_call_that_is_quick_enough_is_left_alone(call):
    async def main(clock):
        timeout = Timeout(2.0, clock=clock)
        left = await call(timeout, take, clock, 0.5)
        await clock.sleep_async(10.0)
        assert timeout.stats().timed_out == 0
        return left

    assert simulate(main) == 1.5


def test_the_deadline_of_the_context_comes_first_where_it_is_nearer():
    seen = []
    timeout = Timeout(2.0, name="fetch", on_timeout=seen.append)

    async def main(clock):
        with deadline(1.0, clock=clock):
            await clock.sleep_async(0.25)
            with pytest.raises(DeadlineExceeded, match=r"^fetch was cancelled at its deadline$") as caught:
                await timeout.execute_async(take, clock, 3600.0)
            assert clock.now() == 1.0
            assert remaining() == 0.0
            with pytest.raises(DeadlineExceeded, match="was not begun"):
                await timeout(forever)()
        return caught.value

    error = simulate(main)

    assert not isinstance(error, TimeoutExceeded)
    assert seen == [TimedOut("fetch", 0.75, by_deadline=True)]
    assert timeout.stats() == ("fetch", 2.0, 0, 1)


def test_a_call_that_is_quicker_than_the_nearer_deadline_is_left_alone():
    async def main(clock):
        with deadline(1.0, clock=clock):
            left = await Timeout(2.0, clock=clock)(take)(clock, 0.5)
            await clock.sleep_async(5.0)
        return left

    assert simulate(main) == 0.5


def test_a_timeout_may_be_retried_and_a_deadline_may_not():
    assert is_transient(TimeoutExceeded("2.0 s were up"))
    assert classify(TimeoutExceeded("2.0 s were up")).may_be_processed
    assert not is_transient(DeadlineExceeded("2.0 s were up"))


@pytest.mark.parametrize("retry_on", [is_transient, TimeoutError, DeadlineExceeded])
def test_attempts_that_time_out_are_retried_until_the_deadline(retry_on):
    attempts = []

    async def fetch():
        attempts.append(remaining())
        await forever()

    async def main(clock):
        retries = AsyncRetryManager(
            max_attempts=9,
            initial_delay=1.0,
            multiplier=1.0,
            jitter="none",
            retry_on=retry_on,
            clock=clock,
            budget=None,
            deadline=7.0,
        )
        with pytest.raises(DeadlineExceeded) as caught:
            await retries.execute(Timeout(2.0, clock=clock)(fetch))
        assert clock.now() == 7.0
        return caught.value

    error = simulate(main)

    assert attempts == [2.0, 2.0, 1.0]
    assert not isinstance(error, TimeoutExceeded)


# --- what is not ours ----------------------------------------------------------------------------


def test_the_functions_own_timeout_is_not_taken_for_ours():
    error = TimeoutError("its own")

    async def fetch(clock):
        await clock.sleep_async(1.0)
        raise error

    async def main(clock):
        timeout = Timeout(2.0)
        with pytest.raises(TimeoutError) as caught:
            await timeout(fetch)(clock)
        assert caught.value is error
        assert timeout.stats().timed_out == 0

    simulate(main)

    assert error.__cause__ is error.__context__ is None


def test_the_timeout_of_asyncio_inside_is_not_taken_for_ours():
    async def fetch():
        async with asyncio.timeout(1.0):
            await forever()

    async def main(clock):
        with pytest.raises(TimeoutError) as caught:
            await Timeout(2.0)(fetch)()
        assert type(caught.value) is TimeoutError
        assert clock.now() == 1.0

    simulate(main)


def test_what_the_call_raises_while_it_is_being_cancelled_passes_untouched():
    async def fetch():
        try:
            await forever()
        finally:
            raise ConnectionError("while closing")

    async def main(clock):
        with pytest.raises(ConnectionError, match="while closing"):
            await Timeout(2.0)(fetch)()
        assert asyncio.current_task().cancelling() == 0
        await clock.sleep_async(1.0)  # nothing of the cancellation is left

    simulate(main)


def test_a_result_that_comes_in_spite_of_the_cancellation_is_returned():
    async def stubborn():
        try:
            await forever()
        except asyncio.CancelledError:
            return "late"

    async def main(clock):
        result = await Timeout(2.0)(stubborn)()
        assert asyncio.current_task().cancelling() == 0
        await clock.sleep_async(1.0)
        return result

    assert simulate(main) == "late"


def test_a_cancelled_error_of_the_calls_own_passes_untouched():
    async def fetch():
        raise asyncio.CancelledError("its own")

    async def main(clock):
        with pytest.raises(asyncio.CancelledError, match="its own"):
            await Timeout(2.0)(fetch)()

    simulate(main)


def test_a_cancellation_from_outside_goes_up_untouched():
    timeout = Timeout(2.0)

    async def main(clock):
        task = asyncio.create_task(timeout(forever)())
        await clock.sleep_async(1.0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task
        assert task.cancelled()

    simulate(main)

    assert timeout.stats().timed_out == 0


@pytest.mark.parametrize("first", ["timer", "outside"])
def test_a_cancellation_from_outside_in_the_same_tick_wins(first):
    timeout = Timeout(2.0)

    async def main(clock):
        loop = asyncio.get_running_loop()
        victims = []
        if first == "outside":
            loop.call_at(2.0, lambda: [victim.cancel() for victim in victims])
        task = asyncio.create_task(timeout(forever)())
        victims.append(task)
        await asyncio.sleep(0)
        if first == "timer":
            loop.call_at(2.0, task.cancel)
        await asyncio.wait([task])
        assert clock.now() == 2.0
        assert task.cancelled()

    simulate(main)

    assert timeout.stats().timed_out == 0


def test_a_result_that_is_there_in_the_tick_of_the_timer_is_lost_and_the_task_is_left_whole():
    async def ask(answer):
        return await answer

    async def main(clock):
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_at(2.0, answer.set_result, "just in time")
        with pytest.raises(TimeoutExceeded):
            await Timeout(2.0, clock=clock)(ask)(answer)
        assert asyncio.current_task().cancelling() == 0
        await clock.sleep_async(1.0)

    simulate(main)


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=6), st.sampled_from([0.5, 1.5, 9.0]))
def test_of_nested_timeouts_the_nearest_wins_and_of_equals_the_outermost(seconds, duration):
    async def nested(clock, timeouts):
        if not timeouts:
            return await take(clock, duration)
        async with timeouts[0].guard():
            return await nested(clock, timeouts[1:])

    async def main(clock):
        timeouts = [Timeout(each, clock=clock) for each in seconds]
        nearest = timeouts[seconds.index(min(seconds))]
        if duration < min(seconds):
            await nested(clock, timeouts)
        else:
            with pytest.raises(TimeoutExceeded):
                await nested(clock, timeouts)
            assert clock.now() == min(seconds)
        told = [timeout for timeout in timeouts if timeout.stats()[2:] != (0, 0)]
        assert told == ([nearest] if duration > min(seconds) else [])
        assert nearest.stats().timed_out == len(told)
        assert asyncio.current_task().cancelling() == 0
        await clock.sleep_async(9.0)  # nothing of a cancellation is left

    simulate(main)


def test_a_task_that_is_being_cancelled_already_can_have_a_timeout_for_its_clean_up():
    async def main(clock):
        async def work():
            try:
                await forever()
            finally:
                with pytest.raises(TimeoutExceeded):
                    await Timeout(2.0)(forever)()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert clock.now() == 2.0

    simulate(main)


def test_a_task_group_inside_is_ended_as_a_whole():
    async def group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever())
            tasks.create_task(forever())

    async def main(clock):
        with pytest.raises(TimeoutExceeded):
            await Timeout(2.0)(group)()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    simulate(main)


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_at_any_tick_it_leaves_the_deadline_and_the_task_as_they_were(times):
    timeout = Timeout(3600.0)

    async def work():
        for _ in range(3):
            await asyncio.sleep(0)

    async def main():
        try:
            await timeout(work)()
        finally:
            assert CURRENT.get() is None

    def nothing_is_left():
        assert timeout.stats().timed_out == 0

    assert cancel_at_every_tick(main, nothing_is_left, times=times) > 3


# --- many ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), max_size=30))
def test_many_calls_of_one_timeout_end_each_at_its_own_time(calls):
    timeout = Timeout(2.0)

    async def call(clock, begins, takes):
        await clock.sleep_async(begins)
        began = clock.now()
        try:
            await timeout.execute_async(take, clock, takes)
        except TimeoutExceeded:
            assert clock.now() - began == pytest.approx(2.0)
            assert takes >= 2.0
        else:
            assert takes <= 2.0

    async def main(clock):
        async with asyncio.TaskGroup() as group:
            for begins, takes in calls:
                group.create_task(call(clock, begins, takes))

    simulate(main)


def test_it_serves_loops_in_threads_at_once_and_one_after_the_other():
    timeout = Timeout(0.01)
    ended = []

    def serve():
        for _ in range(5):
            with pytest.raises(TimeoutExceeded):
                asyncio.run(timeout(forever)())
            ended.append(True)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ended) == timeout.stats().timed_out == 20


def test_a_call_leaves_nothing_for_the_garbage_collector():
    timeout = Timeout(3600.0)

    class Thing:
        pass

    async def hold(thing):
        await asyncio.sleep(0)

    async def main():
        gc.collect()
        gc.disable()
        try:
            thing = Thing()
            gone = weakref.ref(thing)
            await timeout.execute_async(hold, thing)
            del thing
            assert gone() is None
            before = len(gc.get_objects())
            for _ in range(100):
                await timeout.execute_async(hold, None)
            assert len(gc.get_objects()) - before < 50
        finally:
            gc.enable()

    asyncio.run(main())


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), "2", True, None])
def test_a_timeout_takes_some_time(seconds):
    with pytest.raises((TypeError, ValueError), match="seconds must be a"):
        Timeout(seconds)


def test_names_are_strings():
    with pytest.raises(TypeError, match="name=7 must be a string"):
        Timeout(2.0, name=7)


def test_generators_are_for_another_class():
    def generator():
        yield

    async def async_generator():
        yield

    for fn in (generator, async_generator):
        with pytest.raises(TypeError, match="use StreamTimeout"):
            Timeout(2.0)(fn)


async def test_what_cannot_be_awaited_is_refused():
    with pytest.raises(MisuseError, match=r"returned 7, which cannot be awaited: use execute"):
        await Timeout(2.0).execute_async(lambda: 7)


async def test_a_block_is_for_one_at_a_time():
    block = Timeout(2.0).guard()
    async with block:
        with pytest.raises(MisuseError, match="has begun already"), block:
            pytest.fail("it was begun")
        with pytest.raises(MisuseError, match="has begun already"):
            async with block:
                pytest.fail("it was begun")
        assert remaining() is not None
    assert remaining() is None
    async with block:  # one after the other is fine
        pass


async def test_leaving_a_block_that_was_never_entered_does_nothing():
    await Timeout(2.0).guard().__aexit__(None, None, None)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_or_pickled(duplicate):
    with pytest.raises(TypeError, match="Timeout 'fetch' cannot be copied or pickled"):
        duplicate(Timeout(2.0, name="fetch"))


# --- what it is called ---------------------------------------------------------------------------


def test_it_is_called_by_its_name_or_what_it_decorates_or_a_number():
    named, decorating, numbered = Timeout(2.0, name="fetch"), Timeout(2.0), Timeout(2.0)
    assert named(take).__name__ == "take"
    decorating(take)
    decorating(forever)

    assert named.name == "fetch"
    assert decorating.name.endswith("test_timeout.take")
    assert numbered.name.startswith("timeout-")
    assert repr(named) == "<Timeout 'fetch', 2 s>"
    assert named.seconds == 2.0


def test_everybody_is_told_of_a_timeout():
    seen = []
    unsubscribe = events.subscribe(seen.append)
    try:
        with pytest.raises(TimeoutExceeded):
            asyncio.run(Timeout(0.01, name="fetch")(forever)())
    finally:
        unsubscribe()

    assert seen == [TimedOut("fetch", 0.01, by_deadline=False)]
