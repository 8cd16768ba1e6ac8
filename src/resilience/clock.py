"""Time: the one place that reads it, and the only code that waits.

Every policy takes a `Clock`. Production uses `SYSTEM_CLOCK`; tests use `resilience.testing.FakeClock`,
which makes an hour pass at once. Decisions are made on `now`, which never steps back; `wall` is for
people and for other machines only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    import threading


class Clock(Protocol):
    """What a policy asks of time. All durations are seconds, as floats."""

    def now(self) -> float:
        """Return monotonic seconds from an arbitrary start."""
        ...

    def wall(self) -> float:
        """Return Unix seconds, for HTTP dates, headers and logs; never for a decision."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block this thread for `seconds`."""
        ...

    async def sleep_async(self, seconds: float) -> None:
        """Suspend this task for `seconds`; a cancellation leaves at once."""
        ...

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set."""
        ...

    async def wait_async(self, event: asyncio.Event, timeout: float | None) -> bool:  # noqa: ASYNC109 - it is a clock
        """Suspend until `event` is set or `timeout` seconds have passed; return whether it is set."""
        ...


class SystemClock:
    """The machine's own clocks.

    Example:
        >>> earlier = SYSTEM_CLOCK.now()
        >>> SYSTEM_CLOCK.now() >= earlier
        True
    """

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    async def sleep_async(self, seconds: float) -> None:
        """Suspend this task for `seconds`; a cancellation leaves at once."""
        import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

        await asyncio.sleep(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set."""
        return event.wait(timeout)

    async def wait_async(self, event: asyncio.Event, timeout: float | None) -> bool:  # noqa: ASYNC109 - it is a clock
        """Suspend until `event` is set or `timeout` seconds have passed; return whether it is set."""
        import asyncio  # noqa: PLC0415 - see sleep_async

        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True


SYSTEM_CLOCK: Final = SystemClock()
