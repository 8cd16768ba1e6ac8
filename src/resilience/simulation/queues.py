"""In which order a server takes up what waits, and what it gives up on meanwhile.

- `Fifo` is what nearly every server has. In an overload it serves those who have waited longest, and who are
  the most likely to have gone.
- `Lifo` serves the newest: some get good service while the rest get none.
- `CoDel` bounds the time in the queue: what has waited too long is turned away. While the queue has not been
  empty for an `interval`, too long is `target`; otherwise it is the `interval`. That is the form for servers
  in Maurer, "Fail at Scale", ACM Queue 13(8), 2015, after Nichols and Jacobson, "Controlling Queue Delay",
  ACM Queue 10(5), 2012.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from resilience.checks import number

if TYPE_CHECKING:
    from resilience.simulation.server import Work


class Queue(Protocol):
    """What waits on one server."""

    def __len__(self) -> int:
        """Return how much waits."""
        ...

    def put(self, work: Work, now: float) -> None:
        """Let `work` wait."""
        ...

    def take(self, now: float) -> tuple[Work, bool]:
        """Return what is next, and whether it is in time; if not, it has waited too long."""
        ...


class Discipline(Protocol):
    """What makes the queue of a server."""

    def queue(self) -> Queue:
        """Return an empty queue."""
        ...


@dataclass(frozen=True)
class Fifo:
    """First in, first out."""

    def queue(self) -> Queue:
        """Return an empty queue."""
        return _FifoQueue()


@dataclass(frozen=True)
class Lifo:
    """Last in, first out."""

    def queue(self) -> Queue:
        """Return an empty queue."""
        return _LifoQueue()


@dataclass(frozen=True)
class CoDel:
    """First in, first out, and no one waits long.

    Args:
        target: Seconds that work may wait while there is an overload, above 0.
        interval: Seconds that it may wait otherwise, and after which a queue that is never empty is taken for
            an overload; at least `target`.
    """

    target: float = 0.005
    interval: float = 0.1

    def __post_init__(self) -> None:
        """Check the figures."""
        number("target", self.target, above=0)
        number("interval", self.interval, least=self.target)

    def queue(self) -> Queue:
        """Return an empty queue."""
        return _CoDelQueue(self)


class _FifoQueue:
    def __init__(self) -> None:
        self._waiting: deque[Work] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work, now: float) -> None:  # noqa: ARG002 - other orders go by time
        self._waiting.append(work)

    def take(self, now: float) -> tuple[Work, bool]:  # noqa: ARG002 - see put
        return self._waiting.popleft(), True


class _LifoQueue(_FifoQueue):
    def take(self, now: float) -> tuple[Work, bool]:  # noqa: ARG002 - see put
        return self._waiting.pop(), True


class _CoDelQueue:
    def __init__(self, limits: CoDel) -> None:
        self._limits = limits
        self._waiting: deque[tuple[float, Work]] = deque()
        self._last_empty = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: Work, now: float) -> None:
        if not self._waiting:
            self._last_empty = now
        overloaded = now - self._last_empty > self._limits.interval
        self._waiting.append((now + (self._limits.target if overloaded else self._limits.interval), work))

    def take(self, now: float) -> tuple[Work, bool]:
        until, work = self._waiting.popleft()
        return work, now <= until
