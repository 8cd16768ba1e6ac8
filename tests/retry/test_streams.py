"""Generators beside a breaker: the permit of a first attempt is settled by how the stream ends."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from resilience.breaker import CircuitBreaker
from resilience.errors import CircuitOpenError
from resilience.retry import RetryManager, with_retry
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def half_open(clock):
    """A breaker that waits for the outcome of one probe."""
    breaker = CircuitBreaker(1, 60.0, probes=1, recovery_jitter=0.0, clock=clock)
    with contextlib.suppress(OSError), breaker.guard():
        raise OSError
    clock.advance(60.0)
    return breaker


def stream(*outcomes):
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome
    return "end"


async def stream_async(*outcomes):
    for item in stream(*outcomes):
        await asyncio.sleep(0)
        yield item


async def consume(kind, retries, *outcomes, leave_after=None):
    """Read a stream of this kind, up to an item if told so."""
    if kind == "sync":
        with contextlib.closing(retries(stream)(*outcomes)) as items:
            for item in items:
                if item == leave_after:
                    break
    else:
        async with contextlib.aclosing(retries(stream_async)(*outcomes)) as items:
            async for item in items:
                if item == leave_after:
                    break


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
@pytest.mark.parametrize("items", [(), (1, 2)])
async def test_a_stream_that_ends_is_a_success(kind, items, half_open, clock):
    await consume(kind, RetryManager(circuit_breaker=half_open, clock=clock), *items)
    assert half_open.state == "closed"


@both
async def test_a_stream_that_has_begun_has_not_succeeded_yet(kind, half_open, clock):
    retries = RetryManager(circuit_breaker=half_open, clock=clock)
    if kind == "sync":
        items = retries(stream)(1, 2)
        next(items)
    else:
        items = retries(stream_async)(1, 2)
        await anext(items)
    assert half_open.state == "half-open"
    with pytest.raises(CircuitOpenError):
        half_open.execute(len, "one probe at a time")
    if kind == "sync":
        items.close()
    else:
        await items.aclose()


@both
async def test_a_failure_in_mid_stream_counts(kind, half_open, clock):
    with pytest.raises(ConnectionError):
        await consume(kind, RetryManager(circuit_breaker=half_open, clock=clock), 1, ConnectionError())
    assert half_open.state == "open"


@both
async def test_a_failure_before_the_first_item_counts_once(kind, half_open, clock):
    retries = RetryManager(circuit_breaker=half_open, clock=clock)
    with pytest.raises(ConnectionError) as caught:
        await consume(kind, retries, ConnectionError())
    assert half_open.state == "open"
    assert caught.value.__notes__ == ["resilience: 1 attempt; stopped: circuit open"]


@both
async def test_a_reader_who_leaves_says_nothing_and_gives_the_place_back(kind, half_open, clock):
    retries = RetryManager(circuit_breaker=half_open, clock=clock)
    await consume(kind, retries, 1, 2, leave_after=1)
    assert half_open.state == "half-open"
    half_open.execute(len, "the place is free")
    assert half_open.state == "closed"


@both
async def test_without_a_breaker_any_end_is_its_own(kind, clock):
    retries = RetryManager(clock=clock)
    await consume(kind, retries, 1)
    await consume(kind, retries, 1, leave_after=1)
    with pytest.raises(ConnectionError):
        await consume(kind, retries, 1, ConnectionError())


def test_only_what_a_stream_yields_is_a_result_to_its_breaker(clock):
    asked = []
    breaker = CircuitBreaker(1, 60.0, failure_if_result=asked.append, clock=clock)
    guarded = with_retry(stream, circuit_breaker=breaker, clock=clock)
    assert list(guarded(1, 2)) == [1, 2]
    assert asked == []  # the stream itself is none


def test_retries_of_a_stream_are_counted_with_the_managers(half_open, clock):
    half_open.force_close()
    outcomes = iter([ConnectionError(), 1])
    retries = RetryManager(circuit_breaker=CircuitBreaker(9, clock=clock), clock=clock)

    @retries
    def items():
        yield from stream(next(outcomes))

    assert list(items()) == [1]
    assert retries.stats().successful_retries == 1
