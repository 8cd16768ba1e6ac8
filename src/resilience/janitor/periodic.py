"""Doing something again and again by itself: a reaper's sweep, a leak detector's check.

The rules are the janitors': times are counted from the end of the last one, and jittered; the first comes
after a random part of the interval. What fails is logged (see `failures`), and ends nothing. Stopping waits
for what is in progress. A forked child has nothing running, since it has no threads and no event loop of its
parent; start it there.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from random import random as system_random
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from resilience._core.schedule import Schedule, first_delay, next_delay
from resilience.callables import Kind, kind_of, name_of
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.janitor.failures import FailureLog
from resilience.janitor.runs import Run, TaskRun, ThreadRun, strays_are_errors

if TYPE_CHECKING:
    import asyncio
    import threading

    from resilience.clock import Clock

F = TypeVar("F", bound=Callable[[], Any])
R = TypeVar("R", bound=Run)


class _Periodic(Generic[F, R]):
    """What both have in common: everything but waiting."""

    _kind: Kind
    _twin: str
    _run: R | None

    def __init__(
        self,
        job: F,
        interval: float,
        *,
        jitter: float = 0.1,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = system_random,
    ) -> None:
        if (kind := kind_of(job)) is not self._kind:
            raise TypeError(f"{name_of(job)} is a {kind.value}: give it to {self._twin}")
        self._job = job
        self._interval = number("interval", interval, above=0)
        self._jitter = number("jitter", jitter, least=0, most=1)
        self._name = name_of(job) if name is None else name
        self._clock = clock
        self._random = random
        self._failures = FailureLog(self._name, clock)
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and leave the parent its thread or task."""
        self._lock = RLock()
        self._run = None

    @property
    def is_running(self) -> bool:
        """Whether its thread or task is at work, in this process."""
        run = self._run
        return run is not None and run.is_alive()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(f"{type(self).__name__} belongs to the process it runs in: make a new one instead")

    def _first(self) -> float:
        return self._clock.now() + first_delay(self._interval, self._random)

    def _next(self) -> float:
        return self._clock.now() + next_delay(self._interval, self._jitter, self._random)

    def _wait(self, due: float) -> float:
        return Schedule(sweep_at=due, read_at=math.inf).wait(self._clock.now())

    def _warn_still_busy(self, timeout: float) -> None:
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logging.getLogger("resilience").warning("%s is still busy after %g s", self._name, timeout)


class Periodic(_Periodic[Callable[[], object], ThreadRun]):
    """Calls a function again and again, in a daemon thread.

    Threads may share it. With a `FakeClock`, use one with `auto=False`, as for the janitors.

    Args:
        job: What to call; its result is thrown away.
        interval: Seconds from the end of a call to the next. The first comes after a random part of it.
        jitter: The share of the interval by which a call may come early or late, 0 to 1.
        name: Tells it apart in logs; the name of `job` where left out.
        clock: Tells the time and waits.
        random: Returns a random number in [0, 1).

    Raises:
        TypeError: A number is none, or `job` is no plain function.
        ValueError: A number is out of range.

    Example:
        >>> with Periodic(lambda: None, 60.0) as periodic:
        ...     periodic.is_running
        True
        >>> periodic.is_running
        False
    """

    _kind = Kind.SYNC
    _twin = "AsyncPeriodic"

    def start(self) -> None:
        """Begin. Does nothing if it has begun already; after `stop` it begins anew."""
        with self._lock:
            run = self._run
            if run is None or run.stopping.is_set() or not run.is_alive():
                self._run = ThreadRun(self._work, f"resilience {self._name}")

    def stop(self, timeout: float = 5.0) -> bool:
        """End, after the call in progress.

        Args:
            timeout: Seconds to wait for that call.

        Returns:
            Whether it has ended, or was not running. If not, it ends after that call; a warning is logged.
            Called by the job itself it cannot wait, and returns False.
        """
        with self._lock:  # a job may be quicker than the `start` that has begun it
            run = self._run
        if run is None:
            return True
        run.stopping.set()
        if run.is_current():
            return False
        if not self._clock.wait(run.finished, timeout):
            self._warn_still_busy(timeout)
            return False
        run.join()
        return True

    def __enter__(self) -> Self:
        """Start, and stop at the end of the block."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()

    def _work(self, stopping: threading.Event) -> None:
        due = self._first()
        while not self._clock.wait(stopping, self._wait(due)):
            if self._clock.now() >= due:
                try:
                    self._job()
                except Exception as error:  # noqa: BLE001 - whatever the job does; it is logged
                    self._failures.failed(error)
                else:
                    self._failures.succeeded()
                due = self._next()


class AsyncPeriodic(_Periodic[Callable[[], Awaitable[object]], TaskRun]):
    """Awaits a coroutine function again and again, in a task of the event loop on which it is started.

    After that loop has ended it can be started on another. A cancellation leaves at once. The arguments: see
    `Periodic`.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with AsyncPeriodic(asyncio.Event().wait, 60.0) as periodic:
        ...         return periodic.is_running
        >>> asyncio.run(main())
        True
    """

    _kind = Kind.ASYNC
    _twin = "Periodic"

    async def start(self) -> None:
        """Begin. Does nothing if it has begun already; after `stop` it begins anew."""
        with self._lock:
            run = self._run
            if run is None or run.stopping.is_set() or not run.is_alive():
                self._run = TaskRun(self._work, f"resilience {self._name}")

    async def stop(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - as its twin
        """End, after the call in progress.

        Args:
            timeout: Seconds to wait for that call; then it is cancelled.

        Returns:
            Whether it has ended by itself, or was not running. If not, a warning is logged. Called by the job
            itself it cannot wait, and returns False.

        Raises:
            RuntimeError: It runs on another event loop.
        """
        run = self._run
        if run is None or not run.is_alive():
            return True
        if not run.is_here():
            raise RuntimeError(f"{self._name} runs on another event loop: stop it there")
        run.stopping.set()
        if run.is_current():
            return False
        if not await self._clock.wait_async(run.finished, timeout):
            self._warn_still_busy(timeout)
            run.cancel()
            return False
        return True

    async def __aenter__(self) -> Self:
        """Start, and stop at the end of the block."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop."""
        await self.stop()

    async def _work(self, stopping: asyncio.Event) -> None:
        due = self._first()
        while not await self._clock.wait_async(stopping, self._wait(due)):
            if self._clock.now() >= due:
                try:
                    with strays_are_errors():
                        await self._job()
                except Exception as error:  # noqa: BLE001 - whatever the job does; it is logged
                    self._failures.failed(error)
                else:
                    self._failures.succeeded()
                due = self._next()
