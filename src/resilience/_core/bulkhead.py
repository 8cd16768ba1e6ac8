"""Who runs and who waits in a bulkhead: pure, driven by `resilience.bulkhead`.

Rules:
    - While anybody waits, all places are taken: a place that becomes free goes to the first in line in the
      same step, and is never to be had in between. So nobody is overtaken by one who has just come.
    - A higher priority goes first; within one, who came first.
    - Where the queue is full, one who has a higher priority than somebody in it takes the place in the queue
      of the one with the lowest priority, the last to have come of those. Otherwise a flood of what matters
      little would keep out what matters much, and priorities would fail when they are needed.
    - A waiter is one object for one call. It is in line, or it has a place, or it has been sent away.

The caller holds its lock around every call of a method here.
"""

from __future__ import annotations

from enum import Enum
from typing import Generic, NamedTuple, TypeVar

Waiter = TypeVar("Waiter")


class Arrival(Enum):
    """What becomes of a call that has come."""

    ADMITTED = "it may run"
    WAITING = "it waits in line"
    REFUSED = "there is no room, not even in line"


class Arrived(NamedTuple, Generic[Waiter]):
    """A verdict on a call that has come, and whom it has sent away."""

    arrival: Arrival
    evicted: Waiter | None


class Slots(Generic[Waiter]):
    """The places of a bulkhead, and the line of those who wait for one.

    Args:
        limit: How many may run at a time.
        queue: How many may wait.

    Example:
        >>> slots = Slots(limit=1, queue=1)
        >>> slots.arrive("a", 0).arrival.name, slots.arrive("b", 0).arrival.name
        ('ADMITTED', 'WAITING')
        >>> slots.arrive("c", 5)                        # what matters more takes the place in the queue
        Arrived(arrival=<Arrival.WAITING: 'it waits in line'>, evicted='b')
        >>> slots.release(), slots.running              # the place has gone on to c
        ('c', 1)
    """

    __slots__ = ("_lines", "limit", "queue", "running", "waiting")

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.running = 0
        """How many have a place. While that is less than `limit`, nobody waits."""
        self.waiting = 0
        """How many wait."""
        self._lines: dict[int, dict[Waiter, None]] = {}
        """Who waits, by priority; in each line in order of arrival. No line is empty."""

    def arrive(self, waiter: Waiter, priority: int) -> Arrived[Waiter]:
        """Give `waiter` a place, or let it wait, or refuse it."""
        if self.running < self.limit:
            self.running += 1
            return Arrived(Arrival.ADMITTED, None)
        evicted = None
        if self.waiting >= self.queue:
            lowest = min(self._lines, default=priority)
            if lowest >= priority:
                return Arrived(Arrival.REFUSED, None)
            evicted = next(reversed(self._lines[lowest]))
            self.leave(evicted, lowest)
        self._lines.setdefault(priority, {})[waiter] = None
        self.waiting += 1
        return Arrived(Arrival.WAITING, evicted)

    def release(self) -> Waiter | None:
        """Take a place back; return who has it now, if somebody was waiting for it."""
        if not self.waiting:
            self.running -= 1
            return None
        highest = max(self._lines)
        first = next(iter(self._lines[highest]))
        self.leave(first, highest)
        return first

    def leave(self, waiter: Waiter, priority: int) -> bool:
        """Let `waiter` wait no longer; say whether it was still in line."""
        line = self._lines.get(priority, {})
        if waiter not in line:
            return False
        del line[waiter]
        if not line:
            del self._lines[priority]
        self.waiting -= 1
        return True
