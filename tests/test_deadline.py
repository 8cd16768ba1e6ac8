"""Deadlines: how they nest, end, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.deadline import CURRENT, Instant, deadline, leave, remaining, restore
from resilience.errors import DeadlinePassed
from resilience.testing import FakeClock


def test_without_a_deadline_nothing_remains_to_be_told():
    assert remaining() is None


def test_the_time_runs_from_the_beginning_of_the_block():
    clock = FakeClock()
    block = deadline(2.0, clock=clock)
    clock.advance(10)
    with block as entered:
        assert entered is block
        assert remaining() == 2.0
        clock.advance(1.5)
        assert remaining() == 0.5
        clock.advance(1.5)
        assert remaining() == 0.0
    assert remaining() is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_an_inner_deadline_only_shortens(seconds):
    clock = FakeClock()
    blocks = [deadline(each, clock=clock) for each in seconds]
    for number, block in enumerate(blocks):
        block.__enter__()
        assert remaining() == pytest.approx(min(seconds[: number + 1]))
    for block in reversed(blocks):
        block.__exit__(None, None, None)
    assert remaining() is None


def test_deadlines_on_different_clocks_compare_by_what_is_left():
    slow, fast = FakeClock(start=5.0), FakeClock(start=1e6)
    with deadline(3.0, clock=slow), deadline(1.0, clock=fast):
        assert remaining() == 1.0
        fast.advance(0.5)
        slow.advance(2.0)
        assert remaining() == 0.5
    with deadline(1.0, clock=slow), deadline(3.0, clock=fast):
        slow.advance(0.25)
        assert remaining() == 0.75


def test_a_block_may_be_entered_again_also_inside_itself():
    clock = FakeClock()
    block = deadline(2.0, clock=clock)
    with block:
        clock.advance(1.0)
        with block:
            assert remaining() == 1.0
        assert remaining() == 1.0
    with block:
        assert remaining() == 2.0


def test_an_exception_passes_and_the_outer_deadline_returns():
    clock = FakeClock()
    with deadline(5.0, clock=clock):
        with pytest.raises(KeyError), deadline(1.0, clock=clock):
            raise KeyError
        assert remaining() == 5.0


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_only_a_finite_time_from_zero_up_is_a_deadline(seconds):
    with pytest.raises(ValueError, match="deadline must be a finite number of at least 0"):
        deadline(seconds)


@pytest.mark.parametrize("seconds", ["2", None, True])
def test_only_a_number_is_a_deadline(seconds):
    with pytest.raises(TypeError, match="deadline must be a number"):
        deadline(seconds)


def test_an_instant_refuses_what_would_begin_too_late():
    clock = FakeClock()
    instant = Instant(clock.now() + 1.0, clock)
    instant.require("fetch")
    clock.advance(1.0)
    with pytest.raises(DeadlinePassed, match=r"^fetch was not begun: the deadline passed 0\.000 s before$"):
        instant.require("fetch")


async def test_tasks_have_their_own_deadlines_and_inherit_the_outer_one():
    clock = FakeClock()
    seen = {}

    async def child(name, seconds):
        with deadline(seconds, clock=clock):
            await asyncio.sleep(0)
            seen[name] = remaining()

    with deadline(5.0, clock=clock):
        async with asyncio.TaskGroup() as group:
            group.create_task(child("short", 1.0))
            group.create_task(child("long", 9.0))
        assert remaining() == 5.0
    assert seen == {"short": 1.0, "long": 5.0}


def test_a_new_thread_sees_the_deadline_only_in_a_copied_context():
    seen = []
    with deadline(60.0):
        context = contextvars.copy_context()
        for run in (lambda: seen.append(remaining()), lambda: context.run(lambda: seen.append(remaining()))):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    assert seen[0] is None
    assert 50 < seen[1] <= 60


async def test_one_block_may_be_entered_by_many_tasks_at_once():
    clock = FakeClock()
    limit = deadline(5.0, clock=clock)
    entered, left, seen = asyncio.Event(), asyncio.Event(), []

    async def first():
        with limit:
            await entered.wait()
        seen.append(remaining())
        left.set()

    async def second():
        clock.advance(1.0)
        with limit:
            entered.set()
            await left.wait()
            seen.append(remaining())
        seen.append(remaining())

    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        group.create_task(second())
    assert seen == [None, 5.0, None]


def test_one_block_may_be_entered_by_many_threads_at_once():
    limit, ready, seen = deadline(60.0), threading.Barrier(4), []

    def enter(turn):
        with limit:
            ready.wait()
            for _ in range(turn):
                ready.wait()  # they leave one after the other, in the order of their entry or not
            seen.append(remaining())
            for _ in range(3 - turn):
                ready.wait()
        seen.append(remaining())

    threads = [threading.Thread(target=enter, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.count(None) == 4
    assert all(left is None or 50 < left <= 60 for left in seen)


def test_blocks_that_are_left_crosswise_leave_nothing_behind():
    clock = FakeClock()

    def generator():
        with deadline(60.0, clock=clock):
            yield

    suspended = generator()
    with deadline(5.0, clock=clock):
        next(suspended)
        assert remaining() == 5.0
    suspended.close()
    assert CURRENT.get() is None
    suspended = generator()
    with deadline(90.0, clock=clock):
        with deadline(70.0, clock=clock):
            next(suspended)
        suspended.close()
        assert remaining() == 90.0


def test_what_was_set_in_another_context_is_not_restored_here():
    token = contextvars.copy_context().run(CURRENT.set, Instant(1.0, FakeClock()))
    restore(token)
    assert CURRENT.get() is None


def test_who_has_set_a_deadline_by_hand_leaves_it_and_those_that_others_hold_stay():
    clock = FakeClock()
    block = object()
    own = Instant(clock.now() + 9.0, clock, None, block)
    CURRENT.set(own)
    with deadline(5.0, clock=clock):
        leave(own, block)
        assert remaining() == 5.0
    assert CURRENT.get() is None
    leave(own, block)
    assert CURRENT.get() is None
    CURRENT.set(own)
    leave(own, block)
    assert CURRENT.get() is None


def test_a_block_that_is_left_in_another_context_disturbs_nobody():
    def generator():
        with deadline(60.0):
            yield

    first, second = generator(), generator()
    for suspended in (first, second):
        contextvars.copy_context().run(next, suspended)
    with deadline(1.0):
        first.close()  # as the garbage collector would, here
        assert remaining() <= 1.0
    second.close()
    assert CURRENT.get() is None
