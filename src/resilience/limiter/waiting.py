"""Those who wait for units: how long they may, how they are woken, and when nobody can wake them any more."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio

    from resilience.clock import Clock
    from resilience.deadline import Instant


class Patience(NamedTuple):
    """Until when a call may wait: its own timeout, and the deadline of its context."""

    until: float
    """Monotonic seconds of `clock`."""
    clock: Clock
    deadline: Instant | None

    def left(self) -> float:
        """Return the seconds left."""
        left = self.until - self.clock.now()
        return left if self.deadline is None else min(left, self.deadline.left())


class Waiter:
    """A thread that waits in line."""

    is_gone = False
    """Whether it can never be woken any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wake(self) -> bool:
        """Let it look again; return whether it still can."""
        self._event.set()
        return True

    def wait(self, clock: Clock, seconds: float) -> None:
        """Block this thread until it is woken, at most for `seconds`."""
        clock.wait(self._event, seconds)
        self._event.clear()


class AsyncWaiter(Waiter):
    """A task that waits in line, on the loop that it was made on."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        self._on_loop: asyncio.Event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()

    @property
    def is_gone(self) -> bool:  # type: ignore[override]  # what is constant for a thread is not for a task
        """Whether its loop has ended."""
        return self._loop.is_closed()

    def wake(self) -> bool:
        """Let it look again; return whether it still can."""
        try:
            self._loop.call_soon_threadsafe(self._on_loop.set)
        except RuntimeError:  # the loop is closed
            return False
        return True

    async def wait_async(self, clock: Clock, seconds: float) -> None:
        """Suspend this task until it is woken, at most for `seconds`."""
        await clock.wait_async(self._on_loop, seconds)
        self._on_loop.clear()
