"""Timeouts of streams: what they measure, how a stream ends, and what is around it."""

from __future__ import annotations

import asyncio
import copy
import pickle
from contextlib import aclosing

import pytest

from resilience.breaker import CircuitBreaker
from resilience.deadline import deadline, remaining
from resilience.errors import DeadlineExceeded, TimeoutExceeded
from resilience.events import TimedOut
from resilience.retry import with_retry
from resilience.simulation.loop import simulate
from resilience.streams import StreamTimeout
from resilience.testing import FakeClock, cancel_at_every_tick


def stream(clock, *waits, seen=None):
    """Return an async generator function that takes so long for each item, and is closed in the end."""

    async def items():
        try:
            for number, seconds in enumerate(waits):
                await clock.sleep_async(seconds)
                yield number
        finally:
            if seen is not None:
                seen.append("closed")

    return items


async def read(items):
    """Return what can be read before the stream ends, and how it ends."""
    got = []
    try:
        async for item in items:
            got.append(item)  # noqa: PERF401 - what was read before a failure counts
    except OSError as error:
        return got, error
    return got, None


# --- async ---------------------------------------------------------------------------------------


def test_a_first_item_that_comes_too_late_ends_the_stream():
    seen, events = [], []

    async def main(clock):
        timeout = StreamTimeout(2.0, 5.0, name="rows", clock=clock, on_timeout=events.append)
        got, error = await read(timeout(stream(clock, 9.0, seen=seen))())
        assert clock.now() == 2.0
        assert got == []
        assert isinstance(error, TimeoutExceeded)
        assert str(error) == "the first item of rows was cancelled: its timeout of 2 s was up"
        return timeout.stats()

    assert simulate(main) == ("rows", 1, 0, 0)
    assert seen == ["closed"]
    assert events == [TimedOut("the first item of rows", 2.0, by_deadline=False)]


@pytest.mark.parametrize("waits", [(1.0, 4.0, 9.0), (1.0, 4.0, 4.0, 4.0, 9.0)])
def test_a_further_item_that_comes_too_late_ends_the_stream(waits):
    seen = []

    async def main(clock):
        timeout = StreamTimeout(2.0, 5.0, name="rows", clock=clock)
        got, error = await read(timeout(stream(clock, *waits, seen=seen))())
        assert clock.now() == sum(waits[:-1]) + 5.0
        assert got == list(range(len(waits) - 1))
        assert str(error) == "the next item of rows was cancelled: its timeout of 5 s was up"
        return timeout.stats()

    assert simulate(main) == ("rows", 0, 1, 0)
    assert seen == ["closed"]


def test_a_stream_whose_items_come_in_time_is_left_alone_however_long_it_takes():
    async def main(clock):
        return await read(StreamTimeout(2.0, 5.0, clock=clock)(stream(clock, 1.0, *[4.0] * 50))())

    assert simulate(main) == (list(range(51)), None)


def test_the_readers_own_time_does_not_count():
    async def main(clock):
        got = []
        async for item in StreamTimeout(2.0, 2.0, clock=clock)(stream(clock, 1.0, 1.0))():
            got.append(item)
            assert remaining() is None
            await clock.sleep_async(60.0)
        return got

    assert simulate(main) == [0, 1]


@pytest.mark.parametrize(("first_item", "idle", "ends"), [(None, 2.0, 11.0), (2.0, None, 2.0)])
def test_either_limit_may_be_left_out(first_item, idle, ends):
    async def main(clock):
        timeout = StreamTimeout(first_item, idle, clock=clock)
        _, error = await read(timeout(stream(clock, 9.0, 9.0))())
        assert isinstance(error, TimeoutExceeded)
        assert clock.now() == ends
        assert sum(timeout.stats()[1:]) == 1
        await read(StreamTimeout(first_item, idle, clock=clock)(stream(clock, 1.0, 1.0))())

    simulate(main)


def test_an_end_that_does_not_come_is_waited_for_no_longer_than_an_item():
    async def endless(clock):
        yield 1
        await clock.sleep_async(3600.0)

    async def main(clock):
        got, error = await read(StreamTimeout(idle=2.0)(endless)(clock))
        assert got == [1]
        assert isinstance(error, TimeoutExceeded)
        assert clock.now() == 2.0

    simulate(main)


def test_the_deadline_of_the_context_comes_first_where_it_is_nearer():
    async def main(clock):
        timeout = StreamTimeout(2.0, 5.0, name="rows", clock=clock)
        with deadline(3.0, clock=clock):
            got, error = await read(timeout(stream(clock, 1.0, 9.0))())
            assert clock.now() == 3.0
            assert (got, str(error)) == ([0], "the next item of rows was cancelled at its deadline")
            _, error = await read(timeout(stream(clock, 1.0))())
            assert str(error).startswith("the first item of rows was not begun")
        return timeout.stats()

    assert simulate(main) == ("rows", 0, 0, 1)


def test_a_failure_in_mid_stream_goes_up_as_it_is():
    error = ConnectionResetError("cut")

    async def broken():
        yield 1
        raise error

    async def main(clock):
        got, raised = await read(StreamTimeout(2.0, 2.0)(broken)())
        assert (got, raised) == ([1], error)
        assert error.__cause__ is error.__context__ is None

    simulate(main)


def test_a_reader_who_leaves_early_ends_the_stream():
    seen = []

    async def main(clock):
        timeout = StreamTimeout(2.0, 2.0, clock=clock)
        async with aclosing(timeout(stream(clock, 1.0, 1.0, 1.0, seen=seen))()) as items:
            async for _ in items:
                break
        assert seen == ["closed"]
        assert timeout.stats()[1:] == (0, 0, 0)

    simulate(main)


def test_what_is_sent_and_thrown_goes_on_to_the_generator():
    async def echo():
        sent = None
        while sent != "end":
            try:
                sent = yield sent
            except KeyError as error:
                sent = repr(error)

    async def main(clock):
        items = StreamTimeout(2.0, 2.0)(echo)()
        assert await anext(items) is None
        assert await items.asend("ping") == "ping"
        assert await items.athrow(KeyError("x")) == "KeyError('x')"
        with pytest.raises(StopAsyncIteration):
            await items.asend("end")
        items = StreamTimeout(2.0, 2.0)(echo)()
        await anext(items)
        with pytest.raises(ZeroDivisionError):
            await items.athrow(ZeroDivisionError())

    simulate(main)


def test_cancelled_at_any_tick_it_leaves_at_once_and_the_stream_is_closed():
    opened = []

    async def items():
        opened.append(True)
        try:
            for _ in range(2):
                await asyncio.sleep(0)
                yield
        finally:
            opened.pop()

    async def main():
        async with aclosing(StreamTimeout(3600.0, 3600.0)(items)()) as limited:
            async for _ in limited:
                await asyncio.sleep(0)

    def all_closed():
        assert not opened

    assert cancel_at_every_tick(main, all_closed) > 4


@pytest.mark.parametrize("own", [True, False])
def test_what_is_open_already_can_be_iterated(own):
    seen = []

    class Items:
        """An async iterable that is no generator."""

        def __aiter__(self):
            return self.inner()

    async def main(clock):
        Items.inner = staticmethod(stream(clock, 1.0, 9.0))
        items = stream(clock, 1.0, 9.0, seen=seen)() if own else Items()
        got, error = await read(StreamTimeout(2.0, 2.0, clock=clock).iterate_async(items))
        assert got == [0]
        assert isinstance(error, TimeoutExceeded)

    simulate(main)
    assert seen == (["closed"] if own else [])


# --- sync ----------------------------------------------------------------------------------------


def test_sync_waits_are_cooperative():
    clock = FakeClock()
    timeout = StreamTimeout(2.0, 5.0, clock=clock)

    @timeout
    def rows():
        left = [remaining()]
        clock.advance(1.5)
        yield
        left.append(remaining())
        clock.advance(60.0)  # nobody is there to end it
        yield
        left.append(remaining())
        return left

    items = rows()
    next(items)
    assert remaining() is None
    clock.advance(60.0)
    next(items)
    with pytest.raises(StopIteration) as end:
        next(items)

    assert end.value.value == [2.0, 5.0, 5.0]
    assert timeout.stats()[1:] == (0, 0, 0)


def test_no_sync_item_is_asked_for_once_the_deadline_has_passed():
    clock = FakeClock()
    seen = []

    @StreamTimeout(2.0, 5.0, name="rows", clock=clock)
    def rows():
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    with deadline(1.0, clock=clock):
        items = rows()
        assert next(items) == 1
        clock.advance(1.0)
        with pytest.raises(DeadlineExceeded, match="the next item of rows was not begun"):
            next(items)

    assert seen == ["closed"]


def test_sync_streams_take_what_is_sent_and_thrown_and_close_early():
    seen = []

    def echo():
        sent = None
        try:
            while True:
                try:
                    sent = yield sent
                except KeyError as error:
                    sent = repr(error)
        finally:
            seen.append("closed")

    items = StreamTimeout(2.0)(echo)()
    assert next(items) is None
    assert items.send("ping") == "ping"
    assert items.throw(KeyError("x")) == "KeyError('x')"
    items.close()
    assert seen == ["closed"]
    items = StreamTimeout(idle=2.0)(echo)()
    next(items)
    with pytest.raises(ZeroDivisionError):
        items.throw(ZeroDivisionError())


def test_any_iterable_can_be_iterated():
    opened = []

    def rows():
        opened.append(True)
        try:
            yield from "abc"
        finally:
            opened.pop()

    assert list(StreamTimeout(2.0).iterate("abc")) == ["a", "b", "c"]
    items = StreamTimeout(2.0, 2.0).iterate(rows())
    assert next(items) == "a"
    items.close()
    assert not opened


# --- around it -----------------------------------------------------------------------------------


def test_with_retries_around_it_a_late_first_item_is_retried_and_a_later_one_is_not():
    begun = []

    async def main(clock):
        waits = iter([(9.0,), (1.0, 9.0)])

        @with_retry(initial_delay=1.0, jitter="none", clock=clock, budget=None)
        @StreamTimeout(2.0, 5.0, clock=clock)
        async def rows():
            begun.append(clock.now())
            async for item in stream(clock, *next(waits))():
                yield item

        got, error = await read(rows())
        assert got == [0]
        assert isinstance(error, TimeoutExceeded)

    simulate(main)
    assert begun == [0.0, 3.0]


def test_a_breaker_around_it_counts_a_late_item_and_not_an_early_leave():
    async def main(clock):
        breaker = CircuitBreaker(5, 60.0, clock=clock)
        rows = breaker(StreamTimeout(2.0, 5.0, clock=clock)(stream(clock, 1.0, 9.0)))
        await read(rows())
        assert breaker.snapshot().failures == 1
        async with aclosing(rows()) as items:
            assert await anext(items) == 0
        assert breaker.snapshot().failures == 1

    simulate(main)


# --- what it refuses, and what it is called ------------------------------------------------------


def test_some_limit_is_needed():
    with pytest.raises(TypeError, match="needs first_item or idle, or both"):
        StreamTimeout()


@pytest.mark.parametrize(
    "options", [{"first_item": 0}, {"idle": -1.0}, {"idle": True}, {"idle": 1.0, "name": 7}]
)
def test_arguments_are_checked(options):
    with pytest.raises((TypeError, ValueError), match=f"{list(options)[-1]}.* must be a"):
        StreamTimeout(**options)


def test_what_is_no_generator_function_is_refused():
    async def fetch():
        pass

    for fn in (fetch, len):
        with pytest.raises(TypeError, match="limit the call by Timeout, and what it returns by"):
            StreamTimeout(2.0)(fn)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_cannot_be_copied_or_pickled(duplicate):
    with pytest.raises(TypeError, match="StreamTimeout 'rows' cannot be copied or pickled"):
        duplicate(StreamTimeout(2.0, name="rows"))


def test_it_is_called_by_its_name_or_what_it_decorates_or_a_number():
    def rows():
        yield

    def others():
        yield

    named, decorating, numbered = StreamTimeout(2.0, name="rows"), StreamTimeout(2.0), StreamTimeout(idle=2.0)
    assert named(rows).__name__ == "rows"
    decorating(rows)
    decorating(others)

    assert named.name == "rows"
    assert decorating.name.endswith("rows")
    assert decorating.stats().name == decorating.name
    assert numbered.name.startswith("stream-timeout-")
    assert repr(named) == "<StreamTimeout 'rows', first_item=2.0, idle=None>"
