"""What type checkers make of bulkheads, adaptive limits, throttles and load shedders; see retry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from resilience import (
    AdaptiveLimit,
    AdaptiveThrottle,
    AsyncBulkhead,
    Bulkhead,
    CircuitBreaker,
    Criticality,
    LoadShedder,
    criticality,
    current_criticality,
    is_overload,
)
from resilience._core.adaptive import Aimd
from resilience.admission import Permit
from resilience.bulkhead import BulkheadStats
from resilience.shedding import WorkPermit

bulkhead = Bulkhead(10, queue=5, timeout=1.0, name="storage")
bulkhead_async = AsyncBulkhead(10, 5, 1.0)
limit = AdaptiveLimit(20, overload=(TimeoutError, is_overload), slow_after=1.0)
throttle = AdaptiveThrottle(2.0, overload=is_overload)
shedder = LoadShedder(8, max_wait=0.5)
breaker = CircuitBreaker(5, 60.0, ramp_up=10.0)


class Client:
    @bulkhead
    def get(self, url: str) -> bytes:
        return url.encode()


@limit
@bulkhead_async
async def get_async(url: str) -> bytes:
    return url.encode()


@bulkhead
def pages(url: str) -> Iterator[bytes]:
    yield url.encode()


@throttle
@bulkhead_async
async def pages_async(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


@shedder
def plain(url: str) -> bytes:
    return url.encode()


def synchronous() -> None:
    assert_type(Client().get("a"), bytes)
    assert_type(pages("a"), Iterator[bytes])
    assert_type(bulkhead.execute(plain, "a"), bytes)
    assert_type(limit.execute(plain, "a"), bytes)
    assert_type(bulkhead.stats(), BulkheadStats)
    assert_type(limit.acquire(), Permit[tuple[Aimd, int, float]])
    assert_type(throttle.guard(), Permit[None])
    with bulkhead.guard(priority=1), criticality("sheddable"), criticality(Criticality.CRITICAL):
        assert_type(current_criticality(), Criticality)
    with shedder.acquire("search", criticality="sheddable") as work:
        assert_type(work, WorkPermit)
        work.begin()
    plain(1)  # type: ignore[arg-type]
    bulkhead.execute(plain, 1)  # type: ignore[arg-type]
    Bulkhead("10")  # type: ignore[arg-type]


async def asynchronous() -> None:
    assert_type(await get_async("a"), bytes)
    assert_type(await bulkhead_async.execute(get_async, "a"), bytes)
    assert_type(await throttle.execute_async(get_async, "a"), bytes)
    async with bulkhead_async.guard(), limit.acquire():
        async for page in pages_async("a"):
            assert_type(page, bytes)
    await bulkhead_async.execute(plain, "a")  # type: ignore[arg-type]
