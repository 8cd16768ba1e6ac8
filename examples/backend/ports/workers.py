"""Who does the work that blocks: a few threads for coroutines, or the calling thread itself.

The queue before them is bounded, in length and in time. A queue that grows without a bound serves nobody:
whoever is at its end has given up by the time it is his turn. It is better to say soon that we are busy.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, TypeVar

from resilience import service_unavailable_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from resilience import ServiceError

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that work may wait to be begun."""


class Workers(Protocol):
    """Does one kind of work, a bounded amount at a time."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns.

        Raises:
            ServiceError: Too much is waiting already, or for too long (503); nothing was begun.
        """
        ...

    def close(self) -> None:
        """Finish what has begun, and take no more."""
        ...


class OnThreads:
    """A few threads that do one kind of work for coroutines.

    Args:
        name: What they do, for logs and errors.
        threads: How many there are.
        queue: How much work may wait for one of them.
    """

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(threads + queue)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, called on one of the threads.

        A cancelled caller leaves at once; work that has begun is finished all the same.

        Raises:
            ServiceError: The queue is full, or does not move (503); nothing was begun.
        """
        future = self._begin(work, *args, **kwargs)
        answer = asyncio.wrap_future(future)
        try:
            await asyncio.wait({answer}, timeout=PATIENCE)
        except asyncio.CancelledError:
            answer.cancel()  # what has not begun is not worth it any more
            raise
        self._check(future)
        return await answer

    def close(self) -> None:
        """Finish what has begun, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if not self._places.acquire(blocking=False):
            raise busy(self._name)
        future = self._pool.submit(work, *args, **kwargs)
        future.add_done_callback(self._leave)
        return future

    def _check(self, future: Future[T]) -> None:
        """Give work up that has waited too long to be begun."""
        if not future.done() and future.cancel():
            raise busy(self._name)

    def _leave(self, _done: Future[T]) -> None:
        self._places.release()


class OnOtherThreads(OnThreads):
    """A few threads that do one kind of work for threads, which wait for it. It never suspends.

    For what takes much memory: an allocator keeps what a thread has once had, so it had better be few that
    ever have it.
    """

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, called on one of the threads, while this one waits.

        Raises:
            ServiceError: The queue is full, or does not move (503); nothing was begun.
        """
        future = self._begin(work, *args, **kwargs)
        wait([future], PATIENCE)
        self._check(future)
        return future.result()


class InThisThread:
    """Lets a calling thread do the work itself, no more than a few at a time. It never suspends.

    Args:
        name: What they do, for errors.
        threads: How many threads may work at a time.
        queue: How many more may wait for that.
    """

    def __init__(self, name: str, *, threads: int, queue: int) -> None:
        self._name = name
        self._turns = threading.Semaphore(threads)
        self._places = threading.BoundedSemaphore(threads + queue)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns, called here and now, or when it is this thread's turn.

        Raises:
            ServiceError: Too many threads wait already, or this one has for too long (503); nothing was
                begun.
        """
        if not self._places.acquire(blocking=False):
            raise busy(self._name)
        try:
            if not self._turns.acquire(timeout=PATIENCE):
                raise busy(self._name)
            try:
                return work(*args, **kwargs)
            finally:
                self._turns.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Do nothing: the threads are their callers'."""


def busy(name: str) -> ServiceError:
    """Return what is raised where too much waits."""
    return service_unavailable_error(name, retry_after=1.0)
