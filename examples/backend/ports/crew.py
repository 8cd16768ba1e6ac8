"""A few that work side by side, as long as there is work: tasks of an event loop, or threads.

Each calls the same job again and again. A job returns whether it found something to do; if not, whoever asked
waits for a while, or until somebody says that there is news. What fails is logged, and ends nothing; the log
of an outage is short (see `resilience.janitor.failures`).
"""

from __future__ import annotations

import asyncio
import random
import threading
from typing import TYPE_CHECKING

from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.failures import FailureLog
from resilience.janitor.runs import strays_are_errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class TaskCrew:
    """A crew of tasks; all methods are called on their event loop.

    Args:
        job: Returns whether it found something to do.
        size: How many do it at the same time.
        pause: Seconds between two looks for something to do, jittered by a fifth.
        name: What they are, for logs.
    """

    def __init__(self, job: Callable[[], Awaitable[bool]], *, size: int, pause: float, name: str) -> None:
        self._job = job
        self._size = size
        self._pause = pause
        self._name = name
        self._failures = FailureLog(name, SYSTEM_CLOCK)
        self._stopping = False
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin."""
        self._stopping = False
        self._tasks = [asyncio.create_task(self._work(), name=self._name) for _ in range(self._size)]

    def wake(self) -> None:
        """Say that there is something to do."""
        self._news.set()

    async def stop(self, timeout: float) -> bool:  # noqa: ASYNC109 - as its twin
        """End, after what is in progress; whoever takes longer than `timeout` seconds is cancelled.

        Returns:
            Whether all ended by themselves.
        """
        self._stopping = True
        self._news.set()
        if not self._tasks:
            return True
        _, late = await asyncio.wait(self._tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return not late

    async def _work(self) -> None:
        while not self._stopping:
            self._news.clear()  # before looking: what becomes known meanwhile is seen at the next look
            try:
                with strays_are_errors():
                    busy = await self._job()
            except Exception as error:  # noqa: BLE001 - whatever the job does; it is logged
                self._failures.failed(error)
                busy = False
            else:
                self._failures.succeeded()
            if not busy and not self._stopping:
                await SYSTEM_CLOCK.wait_async(self._news, _jittered(self._pause))


class ThreadCrew:
    """A crew of daemon threads. The arguments: see `TaskCrew`."""

    def __init__(self, job: Callable[[], bool], *, size: int, pause: float, name: str) -> None:
        self._job = job
        self._size = size
        self._pause = pause
        self._name = name
        self._failures = FailureLog(name, SYSTEM_CLOCK)
        self._changed = threading.Condition()
        self._stopping = False
        self._news = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin."""
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=self._name, daemon=True) for _ in range(self._size)
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Say that there is something to do."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def stop(self, timeout: float) -> bool:
        """End, after what is in progress; wait no longer than `timeout` seconds for that.

        Returns:
            Whether all have ended. Who has not ends after what is in progress.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        ends_at = SYSTEM_CLOCK.now() + timeout
        for thread in self._threads:
            thread.join(max(0.0, ends_at - SYSTEM_CLOCK.now()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while not self._stopping:
            known = self._news  # before looking: what becomes known meanwhile is seen at the next look
            try:
                busy = self._job()
            except Exception as error:  # noqa: BLE001 - whatever the job does; it is logged
                self._failures.failed(error)
                busy = False
            else:
                self._failures.succeeded()
            if not busy:
                self._wait_for_news(known)

    def _wait_for_news(self, known: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._news != known, _jittered(self._pause))


def _jittered(pause: float) -> float:
    """Return the pause, a little shorter or longer, so that not everybody asks at the same moment."""
    return pause * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
