"""What tests of code that uses resilience need: a clock that makes an hour pass at once.

Example:
    >>> clock = FakeClock()
    >>> started = clock.now()
    >>> clock.sleep(3600)                         # returns at once
    >>> clock.now() - started, clock.sleeps
    (3600.0, [3600])
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeClock:
    """A clock that moves only when told, or when someone sleeps on it.

    Args:
        start: The first reading of `now`, in seconds.
        wall: The first reading of `wall`, in Unix seconds.
        auto: Whether a sleep moves the clock itself and returns at once. If not, a sleep lasts until
            some other thread or task calls `advance`.
        yielding: Whether each reading lets other threads in first, which brings out unlocked
            check-then-act races that a GIL hides.

    Threads and event loops may share it. A cancelled sleep leaves at once.
    """

    def __init__(
        self,
        start: float = 1000.0,
        *,
        wall: float = 1_700_000_000.0,
        auto: bool = True,
        yielding: bool = False,
    ) -> None:
        self.sleeps: list[float] = []
        """The seconds of every sleep, in order of their beginning."""
        self._now = start
        self._wall_offset = wall - start
        self._auto = auto
        self._yielding = yielding
        self._changed = threading.Condition()
        self._wakers: dict[object, tuple[float, Callable[[], object]]] = {}

    def now(self) -> float:
        """Return the monotonic seconds."""
        if self._yielding:
            time.sleep(0)
        return self._now

    def wall(self) -> float:
        """Return the Unix seconds."""
        return self._now + self._wall_offset

    @property
    def sleepers(self) -> int:
        """How many threads and tasks are asleep on this clock."""
        return len(self._wakers)

    def wait_for_sleepers(self, count: int, timeout: float = 5.0) -> None:
        """Block this thread until `count` others are asleep on this clock.

        Raises:
            TimeoutError: There are still fewer after `timeout` real seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.sleepers >= count, timeout):
                raise TimeoutError(f"{self.sleepers} sleepers after {timeout} s, expected {count}")

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and wake whoever sleeps no longer than that."""
        with self._changed:
            self._now += seconds
            due = [waker for waker, (until, _) in self._wakers.items() if until <= self._now]
            wakes = [self._wakers.pop(waker)[1] for waker in due]
        for wake in wakes:
            wake()

    def step(self, seconds: float) -> None:
        """Set `now` forward or back without waking anybody, as a faulty clock would."""
        self._now += seconds

    def step_wall(self, seconds: float) -> None:
        """Set only `wall` forward or back, as an administrator or a leap second would."""
        self._wall_offset += seconds

    def sleep(self, seconds: float) -> None:
        """Block this thread until `seconds` have passed on this clock; in auto mode, make them pass."""
        self.sleeps.append(seconds)
        if self._auto:
            self.advance(seconds)
        else:
            awake = threading.Event()
            self._fall_asleep(awake, seconds, awake.set)
            awake.wait()

    async def sleep_async(self, seconds: float) -> None:
        """Suspend this task until `seconds` have passed on this clock; in auto mode, make them pass."""
        self.sleeps.append(seconds)
        if self._auto:
            self.advance(seconds)
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        awake = asyncio.Event()
        self._fall_asleep(awake, seconds, lambda: loop.call_soon_threadsafe(awake.set))
        try:
            await awake.wait()
        finally:
            self._wakers.pop(awake, None)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set."""
        if timeout is None:
            return event.wait()
        if self._auto:
            if not event.is_set():
                self.advance(timeout)
            return event.is_set()
        timed_out = threading.Event()
        self._fall_asleep(timed_out, timeout, timed_out.set)
        while not event.wait(0.001) and not timed_out.is_set():
            pass  # two events cannot be waited for at once; a real millisecond is a test's affair only
        self._wakers.pop(timed_out, None)
        return event.is_set()

    async def wait_async(self, event: asyncio.Event, timeout: float | None) -> bool:  # noqa: ASYNC109 - it is a clock
        """Suspend until `event` is set or `timeout` seconds have passed; return whether it is set."""
        if timeout is None:
            return await event.wait()
        if self._auto:
            if not event.is_set():
                self.advance(timeout)
                await asyncio.sleep(0)
            return event.is_set()
        loop = asyncio.get_running_loop()
        either = asyncio.Event()
        waiter = loop.create_task(event.wait())
        waiter.add_done_callback(lambda _: either.set())
        self._fall_asleep(either, timeout, lambda: loop.call_soon_threadsafe(either.set))
        try:
            await either.wait()
        finally:
            waiter.cancel()
            self._wakers.pop(either, None)
        return event.is_set()

    def _fall_asleep(self, sleeper: object, seconds: float, wake: Callable[[], object]) -> None:
        with self._changed:
            self._wakers[sleeper] = (self._now + seconds, wake)
            self._changed.notify_all()
