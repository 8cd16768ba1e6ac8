"""A clock that makes an hour pass at once."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import TYPE_CHECKING, NoReturn

from resilience.fork import survive_fork
from resilience.testing.waiting import PATIENCE, call_in, wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class FakeClock:
    """A clock that moves only when told, or when someone sleeps on it.

    Args:
        start: The first reading of `now`, in seconds.
        wall: The first reading of `wall`, in Unix seconds.
        auto: Whether a sleep moves the clock itself and returns at once. If not, a sleep lasts until
            some other thread or task calls `advance`; background threads need that, since with a clock
            that moves by itself they never rest.
        yielding: Whether each reading lets other threads in first, which brings out unlocked
            check-then-act races that a GIL hides.

    Raises:
        ValueError: A reading is not finite.

    Threads and event loops may share it. A cancelled sleep leaves at once.

    Example:
        >>> clock = FakeClock()
        >>> started = clock.now()
        >>> clock.sleep(3600)
        >>> clock.now() - started, clock.sleeps
        (3600.0, [3600])
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
        self._now = _finite(start)
        self._wall_offset = _finite(wall) - start
        self._auto = auto
        self._yielding = yielding
        self._asleep: dict[object, tuple[float, Callable[[], object]]] = {}
        survive_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "a FakeClock cannot be copied or pickled: a copy would go its own way; share this one"
        )

    def now(self) -> float:
        """Return the monotonic seconds."""
        if self._yielding:
            time.sleep(0)
        return self._now

    def wall(self) -> float:
        """Return the Unix seconds."""
        return self.now() + self._wall_offset

    @property
    def sleepers(self) -> int:
        """How many threads and tasks are asleep on this clock."""
        return len(self._asleep)

    def wait_for_sleepers(self, count: int, timeout: float = PATIENCE) -> None:
        """Block this thread until at least `count` others are asleep on this clock.

        Whom `advance` has woken does not count any more, so after it this waits until they sleep again.

        Raises:
            TimeoutError: There are still fewer after `timeout` real seconds.
        """
        wait_until(
            lambda: self.sleepers >= count, timeout, lambda: f"{count} sleepers, {self.sleepers} so far"
        )

    async def wait_for_sleepers_async(self, count: int, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109 - of real time
        """Let this loop run until at least `count` threads and tasks are asleep on this clock.

        Raises:
            TimeoutError: There are still fewer after `timeout` real seconds.
        """
        await wait_until_async(
            lambda: self.sleepers >= count, timeout, lambda: f"{count} sleepers, {self.sleepers} so far"
        )

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and wake whoever sleeps no longer than that, in the order they are due.

        Raises:
            ValueError: `seconds` is negative, for which there is `step`, or not finite.
        """
        if seconds < 0:
            raise ValueError(
                f"time does not pass backwards: advance({seconds!r}); use step() to set a clock back"
            )
        with self._lock:
            self._now += _finite(seconds)
            due = [
                (until, sleeper, wake)
                for sleeper, (until, wake) in self._asleep.items()
                if until <= self._now
            ]
            for _, sleeper, _ in due:
                del self._asleep[sleeper]
        for _, _, wake in sorted(due, key=itemgetter(0)):
            wake()

    def step(self, seconds: float) -> None:
        """Set `now` forward or back without waking anybody, as a faulty clock would."""
        with self._lock:
            self._now += _finite(seconds)

    def step_wall(self, seconds: float) -> None:
        """Set only `wall` forward or back, as an administrator or a leap second would."""
        with self._lock:
            self._wall_offset += _finite(seconds)

    def sleep(self, seconds: float) -> None:
        """Block this thread until `seconds` have passed on this clock; in auto mode, make them pass.

        Raises:
            ValueError: `seconds` is negative, as `time.sleep` has it.
        """
        self._begin_sleep(seconds)
        if self._auto:
            self.advance(seconds)
        elif seconds > 0:
            awake = threading.Event()
            with self._sleeping(seconds, awake.set):
                awake.wait()

    async def sleep_async(self, seconds: float) -> None:
        """Suspend this task until `seconds` have passed on this clock; in auto mode, make them pass.

        Raises:
            ValueError: `seconds` is negative, which `asyncio.sleep` would let pass.
        """
        self._begin_sleep(seconds)
        if self._auto or not seconds:
            self.advance(seconds if self._auto else 0)
            await asyncio.sleep(0)
            return
        awake = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._sleeping(seconds, lambda: call_in(loop, awake.set)):
            await awake.wait()

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until `event` is set or `timeout` seconds have passed; return whether it is set.

        In auto mode they pass at once, unless it is set already.
        """
        if timeout is None:
            return event.wait()
        if event.is_set() or timeout <= 0:
            return event.is_set()
        if self._auto:
            self.advance(timeout)
            return event.is_set()
        timed_out = threading.Event()
        with self._sleeping(timeout, timed_out.set):
            wait_until(lambda: event.is_set() or timed_out.is_set(), timeout=math.inf)  # either of two
        return event.is_set()

    async def wait_async(self, event: asyncio.Event, timeout: float | None) -> bool:  # noqa: ASYNC109 - it is a clock
        """Suspend until `event` is set or `timeout` seconds have passed; return whether it is set.

        In auto mode they pass at once, unless it is set already.
        """
        if timeout is None:
            return await event.wait()
        if event.is_set() or timeout <= 0:
            return event.is_set()
        if self._auto:
            self.advance(timeout)
            await asyncio.sleep(0)
            return event.is_set()
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:

                def expire() -> None:
                    with suppress(RuntimeError):  # the event came in the same tick, and the wait is over
                        limit.reschedule(loop.time())

                with self._sleeping(timeout, lambda: call_in(loop, expire)):
                    await event.wait()
        return event.is_set()

    def _begin_sleep(self, seconds: float) -> None:
        if not seconds >= 0:
            raise ValueError(f"a sleep takes zero or more seconds, not {seconds!r}")
        self.sleeps.append(seconds)

    @contextmanager
    def _sleeping(self, seconds: float, wake: Callable[[], object]) -> Generator[None]:
        """Be counted among the sleepers, until woken or until the block is left."""
        sleeper = object()
        with self._lock:
            self._asleep[sleeper] = (self._now + seconds, wake)
        try:
            yield
        finally:
            with self._lock:
                self._asleep.pop(sleeper, None)


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise ValueError(f"a clock reads and moves by finite seconds, not {seconds!r}")
    return seconds
