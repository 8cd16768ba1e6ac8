from __future__ import annotations

import asyncio
import copy
import gc
import pickle

import pytest

from resilience import AsyncBulkhead, Bulkhead, BulkheadFullError, deadline
from resilience._core.bulkhead import Slots
from resilience.bulkhead import BulkheadStats
from resilience.errors import DeadlinePassed
from resilience.events import CallRefused
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock(auto=False)


async def settled():
    """Let the loop run until nothing is left to do but wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def hold(bulkhead):
    """Take a place, and return what gives it back."""
    block = bulkhead.guard()
    await block.__aenter__()

    async def give_back():
        await block.__aexit__(None, None, None)
        await settled()

    return give_back


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"limit": 0}, ValueError),
        ({"limit": True}, TypeError),
        ({"limit": 1, "queue": -1}, ValueError),
        ({"limit": 1, "queue": 1.5}, TypeError),
        ({"limit": 1, "timeout": -1}, ValueError),
        ({"limit": 1, "timeout": float("nan")}, ValueError),
        ({"limit": 1, "name": 7}, TypeError),
        ({"limit": 1, "on_rejected": 7}, TypeError),
    ],
)
@pytest.mark.parametrize("cls", [Bulkhead, AsyncBulkhead])
def test_wrong_arguments(cls, arguments, error):
    with pytest.raises(error):
        cls(**arguments)


def test_names():
    assert Bulkhead(1, name="storage").name == "storage"
    first, second = Bulkhead(1), AsyncBulkhead(1)
    assert first.name != second.name
    assert first.name.startswith("bulkhead-")
    named, other = Bulkhead(1), Bulkhead(1, name="mine")

    @other
    @named
    def work():
        return 1

    assert work() == 1
    assert named.name.endswith("test_names.<locals>.work")
    assert other.name == "mine"


def test_what_it_shows():
    bulkhead = AsyncBulkhead(2, name="storage")
    assert repr(bulkhead) == "<AsyncBulkhead 'storage', 0 of 2, 0 wait>"


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(make):
    with pytest.raises(TypeError, match="'storage' cannot be copied or pickled"):
        make(Bulkhead(1, name="storage"))


# --- rejections ----------------------------------------------------------------------------------


async def test_without_a_queue_one_too_many_is_rejected_and_told(clock):
    told = []
    bulkhead = AsyncBulkhead(1, name="storage", clock=clock, on_rejected=told.append)
    await hold(bulkhead)
    with pytest.raises(BulkheadFullError, match="all places are taken") as rejection:
        await bulkhead.execute(settled)
    assert (rejection.value.name, rejection.value.retry_after) == ("storage", None)
    assert told == [CallRefused("bulkhead", "storage", "all places are taken")]
    assert bulkhead.stats() == BulkheadStats("storage", 1, 0, 1, 0, 1, 0.0)


async def test_a_full_queue_rejects_and_says_how_long_the_last_one_waited(clock):
    bulkhead = AsyncBulkhead(1, 1, clock=clock)
    give_back = await hold(bulkhead)
    waiting = asyncio.ensure_future(hold(bulkhead))
    await settled()
    clock.advance(3.0)
    await give_back()
    asyncio.ensure_future(hold(bulkhead))  # noqa: RUF006 - it waits until the loop ends
    await settled()
    with pytest.raises(BulkheadFullError, match="the queue is full") as rejection:
        await bulkhead.execute(settled)
    assert rejection.value.retry_after == bulkhead.stats().longest_wait == 3.0
    await waiting


async def test_a_higher_priority_takes_the_place_in_the_queue(clock):
    bulkhead = AsyncBulkhead(1, 1, clock=clock)
    give_back = await hold(bulkhead)

    async def work(priority):
        async with bulkhead.guard(priority=priority):
            return priority

    low = asyncio.ensure_future(work(1))
    await settled()
    high = asyncio.ensure_future(work(2))
    await settled()
    with pytest.raises(BulkheadFullError, match="a call of higher priority has taken its place"):
        await low
    await give_back()
    assert await high == 2
    assert bulkhead.stats()[3:6] == (0, 0, 1)


# --- time ----------------------------------------------------------------------------------------


async def test_a_wait_ends_at_its_timeout(clock):
    bulkhead = AsyncBulkhead(1, 1, 2.0, clock=clock)
    await hold(bulkhead)
    call = asyncio.ensure_future(bulkhead.execute(settled))
    await settled()
    clock.advance(2.0)
    with pytest.raises(BulkheadFullError, match=r"no place has become free within 2\.000 s"):
        await call
    assert bulkhead.stats()[3:] == (1, 0, 1, 2.0)


@pytest.mark.parametrize("longest", [None, 5.0])
async def test_a_wait_ends_at_the_deadline(clock, longest):
    bulkhead = AsyncBulkhead(1, 1, longest, name="storage", clock=clock)
    await hold(bulkhead)

    async def work():
        with deadline(2.0, clock=clock):
            await bulkhead.execute(settled)

    call = asyncio.ensure_future(work())
    await settled()
    clock.advance(2.0)
    with pytest.raises(DeadlinePassed, match=r"after 2\.000 s in the queue of bulkhead 'storage'"):
        await call
    assert bulkhead.stats()[3:6] == (1, 0, 1)


async def test_its_own_timeout_may_come_before_the_deadline(clock):
    bulkhead = AsyncBulkhead(1, 1, 1.0, clock=clock)
    await hold(bulkhead)

    async def work():
        with deadline(2.0, clock=clock):
            await bulkhead.execute(settled)

    call = asyncio.ensure_future(work())
    await settled()
    clock.advance(1.0)
    with pytest.raises(BulkheadFullError):
        await call


async def test_with_no_time_left_it_does_not_wait(clock):
    bulkhead = AsyncBulkhead(1, 1, clock=clock)
    await hold(bulkhead)
    with deadline(0, clock=clock), pytest.raises(DeadlinePassed, match="waiting for bulkhead"):
        await bulkhead.execute(settled)
    assert bulkhead.stats().waiting == 0


async def test_a_clock_that_is_set_back_gives_no_negative_waits(clock):
    bulkhead = AsyncBulkhead(1, 1, clock=clock)
    give_back = await hold(bulkhead)
    call = asyncio.ensure_future(bulkhead.execute(settled))
    await settled()
    clock.step(-100.0)
    await give_back()
    await call
    assert bulkhead.stats().longest_wait == 0.0


# --- places that come back in unusual ways -------------------------------------------------------


async def test_who_has_timed_out_hands_on_the_place_that_is_just_given(clock):
    """The place is given between the end of the wait and the look at what has become of it."""
    bulkhead = AsyncBulkhead(1, 2, 2.0, clock=clock)
    give_back = await hold(bulkhead)
    late = asyncio.ensure_future(bulkhead.execute(settled))
    await settled()
    clock.advance(1.0)
    next_in_line = asyncio.ensure_future(bulkhead.execute(settled))
    await settled()
    rejection = bulkhead._rejection
    rejected = []

    def give_back_while_rejecting(reason):
        rejected.append(reason)
        give_back().send(None)
        return rejection(reason)

    bulkhead._rejection = give_back_while_rejecting
    clock.advance(1.0)
    with pytest.raises(BulkheadFullError):
        await late
    await next_in_line
    assert len(rejected) == 1
    assert bulkhead.stats()[3:6] == (0, 0, 1)


def test_waiters_of_closed_loops_are_passed_over(clock):
    bulkhead = AsyncBulkhead(1, 5, clock=clock)
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    give_back = loop.run_until_complete(hold(bulkhead))
    stale = [bulkhead.execute(settled) for _ in range(2)]

    async def begin(coroutine):
        coroutine.send(None)

    for coroutine in stale:
        other.run_until_complete(begin(coroutine))
    other.close()
    alive = loop.create_task(hold(bulkhead))
    loop.run_until_complete(settled())
    assert bulkhead.stats()[3:5] == (1, 3)
    loop.run_until_complete(give_back())
    loop.run_until_complete(loop.run_until_complete(alive)())
    assert bulkhead.stats()[3:5] == (0, 0)
    for coroutine in stale:
        coroutine.close()  # they have no place: nothing more comes back
    assert bulkhead.stats()[3:5] == (0, 0)
    loop.close()


class Collecting(Slots):
    """Slots in the middle of whose decisions the garbage collector runs, once."""

    garbage = None

    def __init__(self, *args):
        super().__init__(*args)
        slots = self

        class Lines(dict):
            def setdefault(self, *args):  # when it was found that an arrival has to wait
                slots.collect()
                return super().setdefault(*args)

        self._lines = Lines()

    def leave(self, waiter, priority):  # when it was chosen who gets a place
        self.collect()
        return super().leave(waiter, priority)

    def collect(self):
        garbage, self.garbage = self.garbage, None
        if garbage is not None:
            garbage.pop().close()
            gc.collect()


@pytest.mark.parametrize("which", ["one that runs", "one that waits"])
async def test_a_coroutine_abandoned_in_the_middle_of_an_arrival_gives_back_what_it_had(clock, which):
    bulkhead = AsyncBulkhead(2, 5, clock=clock)
    slots = bulkhead._slots = Collecting(2, 5)
    give_back = await hold(bulkhead)
    garbage = bulkhead.execute(clock.sleep_async, 100.0)
    free_the_other = await hold(bulkhead) if which == "one that waits" else None
    garbage.send(None)
    slots.garbage = [garbage]
    call = asyncio.ensure_future(bulkhead.execute(settled))
    await settled()
    if free_the_other is not None:
        assert bulkhead.stats()[3:5] == (2, 1)
        await free_the_other()
    await call
    await give_back()
    assert bulkhead.stats()[3:5] == (0, 0)
    assert not bulkhead._returned


async def test_a_coroutine_abandoned_while_a_place_is_handed_on_gives_back_its_own(clock):
    bulkhead = AsyncBulkhead(2, 5, clock=clock)
    slots = bulkhead._slots = Collecting(2, 5)
    give_back = await hold(bulkhead)
    garbage = bulkhead.execute(clock.sleep_async, 100.0)
    garbage.send(None)
    calls = [asyncio.ensure_future(bulkhead.execute(settled)) for _ in range(2)]
    await settled()
    assert bulkhead.stats()[3:5] == (2, 2)
    slots.garbage = [garbage]
    await give_back()
    await asyncio.gather(*calls)
    assert bulkhead.stats()[3:5] == (0, 0)


def test_how_long_a_call_may_wait():
    assert Bulkhead(1).timeout is None
    assert AsyncBulkhead(1, 1, 2).timeout == 2.0
