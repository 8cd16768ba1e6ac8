"""One flight a key: whoever asks for what is under way already waits for that, and gets its outcome.

Without it, ten people who ask for one new recording cost ten downloads. It is a saving and no lock: another
process may fetch the same, and what is fetched must bear it.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from resilience import DeadlineExceeded, remaining

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

TIME_IS_UP: Final = "the time was up while the same was being done for somebody else"


class Flights(Protocol[T]):
    """Lets those who ask for the same at the same time share one piece of work."""

    async def share(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns, or what the flight of this key under way does; likewise raise.

        Raises:
            DeadlineExceeded: The caller's time was up before.
        """
        ...


class SharedByTasks(Generic[T]):
    """Flights for the tasks of one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    async def share(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns, or what the flight of this key under way does; likewise raise.

        A cancelled caller leaves at once, and so does one whose deadline is over; the flight goes on for the
        others.
        """
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = asyncio.create_task(work())
            flight.add_done_callback(lambda done: self._land(key, done))
        patience = asyncio.timeout(remaining())
        try:
            async with patience:
                return await asyncio.shield(flight)
        except TimeoutError:
            if patience.expired():
                raise DeadlineExceeded(TIME_IS_UP) from None
            raise  # the flight's own

    def _land(self, key: str, flight: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not flight.cancelled():
            flight.exception()  # seen, though all who asked may have left: asyncio would complain in the log


class SharedByThreads(Generic[T]):
    """Flights for threads. The first to ask does the work itself; the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[T]] = {}

    async def share(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns, or what the flight of this key under way does; likewise raise.

        Never suspends: who waits for another's flight blocks the thread, for what is left of the deadline.
        """
        with self._lock:
            flight = self._under_way.get(key)
            begins = flight is None
            if flight is None:
                flight = self._under_way[key] = Future()
        if not begins:
            try:
                return flight.result(remaining())
            except TimeoutError:
                if not flight.done():
                    raise DeadlineExceeded(TIME_IS_UP) from None
                raise  # the flight's own
        try:
            outcome = await work()
        except BaseException as error:
            self._land(key)
            flight.set_exception(error)
            raise
        self._land(key)
        flight.set_result(outcome)
        return outcome

    def _land(self, key: str) -> None:
        with self._lock:
            del self._under_way[key]
