"""What type checkers make of clocks and of the test kit; see retry.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

from resilience.clock import SYSTEM_CLOCK, Clock
from resilience.events import RateLimited, subscribe
from resilience.testing import EventRecorder, FakeClock, FaultInjector, SeededRandom, cancel_at_every_tick

clocks: list[Clock] = [SYSTEM_CLOCK, FakeClock()]
chance: Callable[[], float] = SeededRandom()
faults = FaultInjector(clock=FakeClock()).fail(ConnectionError, on=1).delay(1.0, on=range(2, 4)).hang(on={5})


@faults.wrap
def get(url: str) -> bytes:
    return url.encode()


@faults.wrap
async def get_async(url: str) -> bytes:
    return url.encode()


async def scenario() -> None:
    assert_type(get("a"), bytes)
    assert_type(await get_async("a"), bytes)
    with EventRecorder() as events:
        assert_type(events.of(RateLimited), list[RateLimited])


def synchronous() -> None:
    assert_type(cancel_at_every_tick(scenario), int)
    assert_type(subscribe(print), Callable[[], None])
    get(1)  # type: ignore[arg-type]
    faults.fail("refused")  # type: ignore[arg-type]
