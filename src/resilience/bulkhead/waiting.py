"""Those who wait for a place: what has become of each, and how it learns that."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import asyncio

    from resilience.deadline import Instant


class Fate(Enum):
    """What has become of one who waits."""

    WAITING = "it waits"
    ADMITTED = "it has a place"
    SENT_AWAY = "it has none, and does not wait any more"


class Waiter:
    """A thread that waits for a place."""

    __slots__ = ("event", "fate", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.fate = Fate.WAITING
        """Changed under the bulkhead's lock only."""
        self.event = threading.Event()

    def wake(self) -> bool:
        """Tell it to look what has become of it; return whether it still can."""
        self.event.set()
        return True


class AsyncWaiter:
    """A task that waits for a place, on the loop that it was made on."""

    __slots__ = ("_loop", "event", "fate", "priority")

    def __init__(self, priority: int) -> None:
        import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

        self.priority = priority
        self.fate = Fate.WAITING
        """Changed under the bulkhead's lock only."""
        self.event: asyncio.Event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def wake(self) -> bool:
        """Tell it to look what has become of it; return whether it still can."""
        try:
            self._loop.call_soon_threadsafe(self.event.set)
        except RuntimeError:  # the loop is closed
            return False
        return True


AnyWaiter = TypeVar("AnyWaiter", Waiter, AsyncWaiter)


class Patience(NamedTuple):
    """How long a call may wait."""

    began: float
    deadline: Instant | None
    seconds: float | None
    """None for as long as it takes."""
