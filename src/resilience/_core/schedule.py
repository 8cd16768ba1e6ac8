"""When a janitor does what, and how much of it: arithmetic only.

Three things recur: the sweep, the reading of memory, and the check of the open sockets. Each comes again an
interval after it *ended*, so a slow sweep never runs into the next one, and a machine that slept for an hour
wakes to one of each.

Many nodes start in the same second, after a deployment. So the first sweep comes after a random part of the
interval: the nodes are spread over all of it, and a service that restarts more often than the interval
lasts still sweeps now and then. Every later sweep moves by the jitter, so that nodes which fell into step
fall out of it again.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_WAIT: Final = 86_400.0  # seconds; a thread can wait 49 days on Windows (`threading.TIMEOUT_MAX`)


class Schedule(NamedTuple):
    """When the next of each is due, as readings of the clock, in seconds."""

    sweep_at: float
    read_at: float
    check_at: float = inf

    def wait(self, now: float) -> float:
        """Return the seconds until one of them is due, 0 if one is, and a day at most: ask again then."""
        return max(0.0, min(min(self) - now, _LONGEST_WAIT))


def first_delay(interval: float, random: Callable[[], float]) -> float:
    """Return the seconds from the start to the first time: a random part of the interval.

    Example:
        >>> first_delay(1800.0, lambda: 0.25)
        450.0
    """
    return interval * random()


def next_delay(interval: float, jitter: float, random: Callable[[], float]) -> float:
    """Return the seconds from the end of one time to the next: the interval, up to `jitter` of it off.

    Example:
        >>> next_delay(1800.0, 0.1, lambda: 0.75)
        1890.0
    """
    return interval * (1.0 + jitter * (2.0 * random() - 1.0))


class Tally(NamedTuple):
    """What a sweep has done so far."""

    cleaned: int = 0
    """Sessions deleted."""
    complete: bool = False
    """Whether nothing expired is left."""
    left_to_another: bool = False
    """Whether another node was found to be cleaning."""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do for this sweep."""
        return self.complete or self.left_to_another

    def after(self, limit: int, deleted: int | None) -> Tally:
        """Return the tally after a batch.

        Args:
            limit: How many sessions it was allowed to delete.
            deleted: How many it did; None if another node was cleaning.
        """
        if deleted is None:
            return self._replace(left_to_another=True)
        return Tally(self.cleaned + deleted, complete=deleted < limit)


class Bounds(NamedTuple):
    """How much one sweep may do."""

    batch: int
    """Sessions that one transaction deletes at most."""
    max_rows: int
    """Sessions that one sweep deletes at most."""
    max_seconds: float
    """Seconds after which a sweep begins no further batch."""

    def next_batch(self, tally: Tally, elapsed: float) -> int:
        """Return how many sessions the next batch may delete; 0 if the sweep has to end.

        Args:
            tally: What this sweep has done so far.
            elapsed: Seconds since it began.

        Example:
            >>> Bounds(batch=250, max_rows=600, max_seconds=60.0).next_batch(Tally(500), elapsed=1.0)
            100
        """
        if tally.over or elapsed >= self.max_seconds:
            return 0
        return min(self.batch, self.max_rows - tally.cleaned)
