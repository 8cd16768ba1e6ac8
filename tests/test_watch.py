"""Watches: one timer for many blocks, on each of several loops."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar

import pytest

from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import CURRENT, deadline
from resilience.errors import DeadlineExceeded
from resilience.simulation.loop import simulate
from resilience.watch import Lines

mark = ContextVar("mark", default=None)


class TooLateError(Exception):
    """What the limit of these tests raises."""


class Limit:
    name = "work"

    def __init__(self, seconds, clock=SYSTEM_CLOCK):
        self.seconds = seconds
        self.clock = clock

    def ended(self, seconds):
        return TooLateError(seconds)


def timers():
    return [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]


def test_many_blocks_have_one_timer():
    async def main(clock):
        lines = Lines(Limit(5.0, clock))

        async def work(seconds):
            with lines.watch():
                await clock.sleep_async(seconds)

        tasks = [asyncio.create_task(work(seconds)) for seconds in (1.0, 2.0, 9.0)]
        await asyncio.sleep(0)
        assert len(timers()) == 1 + len(tasks)  # theirs are for their sleep
        await asyncio.wait(tasks)
        assert clock.now() == 5.0
        assert [task.exception() for task in tasks[:2]] == [None, None]
        assert tasks[2].exception().args == (5.0,)

    simulate(main)


def test_the_timer_is_set_for_the_next_that_is_still_under_way_and_for_nobody_in_the_end():
    async def main(clock):
        lines = Lines(Limit(5.0, clock))
        line = lines.of(asyncio.get_running_loop())

        async def work(begins, seconds):
            await clock.sleep_async(begins)
            with lines.watch():
                await clock.sleep_async(seconds)

        tasks = [
            asyncio.create_task(work(*each)) for each in [(0.0, 1.0), (1.0, 1.0), (3.0, 9.0), (4.0, 2.5)]
        ]
        await clock.sleep_async(5.5)
        assert [handle.when() for handle in timers() if handle.when() == 8.0] == [8.0]
        await asyncio.wait(tasks)
        assert clock.now() == 8.0
        assert not line.pending
        assert not line.is_armed
        with lines.watch():  # and it goes on
            assert line.is_armed

    simulate(main)


def test_blocks_that_end_at_the_same_instant_all_end():
    async def main(clock):
        lines = Lines(Limit(5.0, clock))

        async def work():
            with lines.watch():
                await clock.sleep_async(9.0)

        results = await asyncio.gather(*(work() for _ in range(9)), return_exceptions=True)
        assert [type(result) for result in results] == [TooLateError] * 9

    simulate(main)


def test_a_nearer_deadline_has_a_timer_of_its_own():
    async def main(clock):
        lines = Lines(Limit(5.0, clock))
        with deadline(2.0, clock=clock):
            with lines.watch():
                assert CURRENT.get().at == 2.0
                await clock.sleep_async(1.0)
            assert not timers()
            with pytest.raises(TooLateError, match=r"1\.0"), lines.watch():
                await clock.sleep_async(9.0)
            with pytest.raises(DeadlineExceeded, match="work was not begun"), lines.watch():
                pytest.fail("it was begun")
        assert CURRENT.get() is None

    simulate(main)


def test_a_farther_deadline_returns_after_the_block():
    async def main(clock):
        with deadline(9.0, clock=clock):
            with Lines(Limit(5.0, clock)).watch():
                assert CURRENT.get().at == 5.0
            assert CURRENT.get().at == 9.0

    simulate(main)


def test_each_loop_has_its_own_line_and_is_not_kept_alive_by_it():
    lines = Lines(Limit(5.0))

    async def line():
        with lines.watch():
            pass
        with lines.watch():
            return lines.latest

    first, second = asyncio.Runner(), asyncio.Runner()
    with first, second:
        lines_seen = [runner.run(line()) for runner in (first, second, first, first)]
        assert lines_seen[0] is lines_seen[2] is lines_seen[3] is not lines_seen[1]
        loop = weakref.ref(second.get_loop())
    del first, second, lines_seen
    gc.collect()

    assert loop() is None


def test_the_timer_does_not_keep_the_context_of_the_first_block_alive():
    async def main(clock):
        lines = Lines(Limit(5.0, clock))

        async def work(value):
            mark.set(value)
            with lines.watch():
                await clock.sleep_async(1.0)

        class Value:
            pass

        value = Value()
        gone = weakref.ref(value)
        task = asyncio.create_task(work(value))
        del value
        await task
        del task
        await asyncio.sleep(0)  # the loop forgets what has just run
        gc.collect()
        assert timers()
        assert gone() is None

    simulate(main)


def test_it_needs_a_task():
    loop = asyncio.new_event_loop()
    caught = []

    def without_a_task():
        try:
            with Lines(Limit(5.0)).watch():
                caught.append("it was begun")
        except RuntimeError as error:
            caught.append(str(error))

    try:
        loop.call_soon(without_a_task)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()

    assert caught == ["work ends what takes too long by cancelling its task, and this is none"]
    with pytest.raises(RuntimeError, match="no running event loop"), Lines(Limit(5.0)).watch():
        pytest.fail("it was begun")


def test_a_forked_child_has_a_lock_of_its_own():
    lines = Lines(Limit(5.0))
    before = lines._lock

    lines.after_fork()

    assert lines._lock is not before
