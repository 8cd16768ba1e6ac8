"""When a janitor does what, and how much of it: arithmetic only.

Two things recur: the sweep, and the reading of memory. Each comes again an interval after it *ended*, so a
slow sweep never runs into the next one, and a machine that slept for an hour wakes to one of each.

Many nodes start in the same second, after a deployment. So the first sweep comes after a random part of the
interval: the nodes are spread over all of it, and a service that restarts more often than the interval
lasts still sweeps now and then. Every later sweep moves by the jitter, so that nodes which fell into step
fall out of it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_WAIT: Final = 86_400.0  # seconds; a thread can wait 49 days on Windows (`threading.TIMEOUT_MAX`)


class Schedule(NamedTuple):
    """When the next sweep and the next reading are due, as readings of the clock, in seconds."""

    sweep_at: float
    read_at: float

    def wait(self, now: float) -> float:
        """Return the seconds until one of the two is due, 0 if one is, and a day at most: ask again then."""
        return max(0.0, min(self.sweep_at - now, self.read_at - now, _LONGEST_WAIT))


def first_delay(interval: float, random: Callable[[], float]) -> float:
    """Return the seconds from the start to the first sweep: a random part of the interval.

    Example:
        >>> first_delay(1800.0, lambda: 0.25)
        450.0
    """
    return interval * random()


def next_delay(interval: float, jitter: float, random: Callable[[], float]) -> float:
    """Return the seconds from the end of a sweep to the next: the interval, up to `jitter` of it off.

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

    def after(self, limit: int, deleted: int) -> Tally:
        """Return the tally after a batch that was allowed `limit` sessions and deleted `deleted`."""
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
        if tally.complete or elapsed >= self.max_seconds:
            return 0
        return min(self.batch, self.max_rows - tally.cleaned)
