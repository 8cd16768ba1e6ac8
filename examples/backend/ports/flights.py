"""One flight a key: whoever asks for what is under way already waits for that, and gets its outcome."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Flights(Generic[T]):
    """Answers `examples.backend.domain.recordings.Flights`, for the coroutines of one event loop.

    Without it, ten people who ask for one new recording cost ten downloads. It is a saving and no lock:
    another process may fetch the same, and what is fetched must bear it.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    async def share(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `work()` returns, or what the flight of this key under way does; likewise raise.

        A cancelled caller leaves at once, and the flight goes on for the others.
        """
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = asyncio.create_task(work())
            flight.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(flight)

    def _land(self, key: str, flight: asyncio.Task[T]) -> None:
        del self._under_way[key]
        if not flight.cancelled():
            flight.exception()  # seen, though all who asked may have left: asyncio would complain in the log
