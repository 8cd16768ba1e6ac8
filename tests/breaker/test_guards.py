from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
from contextlib import suppress

import pytest

from resilience.breaker import CircuitBreaker
from resilience.errors import CircuitOpenError
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(clock):
    """Return a maker of breakers: two failures in a row, or as many of two, 60 s, no jitter, one probe."""

    def make(rule="in a row"):
        threshold = (
            {"failure_threshold": 2} if rule == "in a row" else {"failure_ratio": 1.0, "minimum_calls": 2}
        )
        return CircuitBreaker(
            recovery_time=60.0, probes=1, recovery_jitter=0.0, clock=clock, name="b", **threshold
        )

    return make


def work(value="done"):
    return value


def fail():
    raise OSError


async def work_async(value="done"):
    await asyncio.sleep(0)
    return value


async def fail_async():
    await asyncio.sleep(0)
    raise OSError


def attempt(fn, *args):
    """Call `fn` and return its result, or what it raised."""
    try:
        return fn(*args)
    except Exception as error:  # noqa: BLE001 - whatever it was is the result
        return error


def open_up(breaker):
    for _ in range(2):
        attempt(breaker.execute, fail)
    assert breaker.state == "open"


# --- functions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["in a row", "ratio"])
def test_a_function(make, clock, rule):
    breaker = make(rule)
    call = breaker(lambda fn: fn())
    assert [attempt(call, work) for _ in range(3)] == ["done"] * 3
    clock.advance(10.0)  # another slice of the time window
    assert attempt(call, work) == "done"
    clock.advance(10.0)
    assert isinstance(attempt(call, fail), OSError)
    assert breaker.snapshot().failures == 1
    assert attempt(call, work) == "done"
    assert breaker.snapshot().failures == (0 if rule == "in a row" else 1)
    clock.advance(10.0)
    for _ in range(2):
        assert isinstance(attempt(call, fail), OSError)
    assert isinstance(attempt(call, work), CircuitOpenError)
    clock.advance(60.0)
    assert attempt(call, work) == "done"
    assert breaker.is_closed


@pytest.mark.parametrize("rule", ["in a row", "ratio"])
async def test_a_coroutine_function(make, clock, rule):
    breaker = make(rule)

    @breaker
    async def call(fn):
        return await fn()

    for _ in range(3):
        assert await call(work_async) == "done"
    clock.advance(10.0)  # another slice of the time window
    assert await call(work_async) == "done"
    clock.advance(10.0)
    with pytest.raises(OSError):
        await call(fail_async)
    assert breaker.snapshot().failures == 1
    assert await call(work_async) == "done"
    assert breaker.snapshot().failures == (0 if rule == "in a row" else 1)
    clock.advance(10.0)
    for _ in range(2):
        with pytest.raises(OSError):
            await call(fail_async)
    with pytest.raises(CircuitOpenError):
        await call(work_async)
    clock.advance(60.0)
    assert await call(work_async) == "done"
    assert breaker.is_closed


def test_methods_and_partials(make):
    breaker = make()

    class Client:
        @breaker
        def get(self, url):
            """Get it."""
            return (type(self).__name__, url)

        @classmethod
        @breaker
        def make(cls):
            return cls()

    assert Client.make().get("u") == ("Client", "u")
    assert Client.get.__name__ == "get"
    assert Client.get.__doc__ == "Get it."
    assert breaker(functools.partial(work, "p"))() == "p"


def test_what_cannot_be_guarded_is_refused(make):
    with pytest.raises(TypeError, match="above this decorator"):
        make()(classmethod(work))
    with pytest.raises(TypeError, match="cannot be called"):
        make()(5)


# --- generators ----------------------------------------------------------------------------------


def test_a_generator_passes_everything_through(make):
    @make()
    def echo():
        received = yield "first"
        try:
            yield received
        except KeyError:
            yield "caught"
        return "result"

    def outer():
        return (yield from echo())

    stream = outer()
    assert next(stream) == "first"
    assert stream.send("sent") == "sent"
    assert stream.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stopped:
        next(stream)
    assert stopped.value.value == "result"


def test_a_generator_is_admitted_when_its_first_item_is_asked_for(make):
    breaker = make()
    numbers = breaker(lambda: iter(()))  # a plain function: admitted when called

    @breaker
    def stream():
        yield 1

    waiting = stream()
    open_up(breaker)
    with pytest.raises(CircuitOpenError):
        next(waiting)
    with pytest.raises(CircuitOpenError):
        numbers()


def test_a_failure_in_mid_stream_counts_and_an_early_exit_does_not(make):
    breaker = make()

    @breaker
    def stream(broken):
        yield 1
        if broken:
            raise OSError
        yield 2

    with suppress(OSError):
        list(stream(broken=True))
    assert breaker.snapshot().failures == 1

    for _ in stream(broken=True):
        break
    gc.collect()
    assert breaker.snapshot().failures == 1

    assert list(stream(broken=False)) == [1, 2]
    assert breaker.snapshot().failures == 0


async def test_an_async_generator_passes_everything_through(make):
    @make()
    async def echo():
        received = yield "first"
        try:
            yield received
        except KeyError:
            yield "caught"

    stream = echo()
    assert await anext(stream) == "first"
    assert await stream.asend("sent") == "sent"
    assert await stream.athrow(KeyError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_async_generator_sees_the_cancellation_of_the_block_that_it_manages(make):
    breaker = make()
    seen = []

    @contextlib.asynccontextmanager
    @breaker
    async def transaction():
        try:
            yield
        except asyncio.CancelledError:
            seen.append("rolled back")
            raise

    async def use():
        async with transaction():
            await asyncio.sleep(3600)

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert seen == ["rolled back"]
    assert breaker.snapshot().failures == 0


async def test_in_an_async_stream_a_failure_counts_and_an_early_exit_does_not(make, clock):
    breaker = make()
    closed = []

    @breaker
    async def stream(broken):
        try:
            yield 1
            if broken:
                raise OSError
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(broken)

    with suppress(OSError):
        [item async for item in stream(broken=True)]
    assert breaker.snapshot().failures == 1

    early = stream(broken=True)
    await anext(early)
    await early.aclose()
    assert closed == [True, True]
    assert breaker.snapshot().failures == 1

    assert [item async for item in stream(broken=False)] == [1, 2]
    assert breaker.snapshot().failures == 0

    open_up(breaker)
    with pytest.raises(CircuitOpenError):
        await anext(stream(broken=False))


async def test_an_empty_async_stream_is_a_success(make):
    breaker = make()
    attempt(breaker.execute, fail)

    @breaker
    async def nothing():
        return
        yield

    assert [item async for item in nothing()] == []
    assert breaker.snapshot().failures == 0
