"""How long to wait before the next attempt.

Rules:
    - The ceiling of attempt n's delay is `initial_delay * multiplier ** (n - 1)`, at most `max_delay`.
    - Jitter draws the delay inside the cap: a delay that is drawn first and capped after would be the cap
      itself most of the time, and all clients would come back together.
    - Every delay is finite and between 0 and `max_delay`, however high the attempt or the figures.

Sources: Brooker, "Exponential Backoff And Jitter" (2015), for full, equal and decorrelated jitter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

JITTERS: Final = ("none", "full", "equal", "decorrelated")
"""The jitters that have a name; a proportion has none."""


class Backoff(NamedTuple):
    """A schedule of delays.

    Example:
        >>> backoff = Backoff(initial_delay=1.0, max_delay=30.0, multiplier=2.0, jitter="none")
        >>> [backoff.ceiling(attempt) for attempt in range(1, 8)]
        [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    """

    initial_delay: float
    """Seconds, at least 0."""
    max_delay: float
    """Seconds, at least 0 and finite."""
    multiplier: float
    """At least 1 and finite."""
    jitter: str | float
    """One of `JITTERS`, or a proportion above 0 and up to 1."""

    def ceiling(self, attempt: int) -> float:
        """Return the delay after `attempt` before jitter, in seconds."""
        try:
            return min(self.max_delay, self.initial_delay * self.multiplier ** (attempt - 1))
        except OverflowError:
            return self.max_delay if self.initial_delay else 0.0

    def delay(self, attempt: int, previous: float | None, random: Callable[[], float]) -> float:
        """Return the delay between `attempt` and the next.

        Args:
            attempt: The number of the attempt that failed, counted from 1.
            previous: What this returned before, in the same call; None the first time.
            random: Draws a number from 0 up to, not including, 1.

        Returns:
            Seconds, from 0 to `max_delay`.
        """
        jitter = self.jitter
        if jitter == "decorrelated":
            highest = min(self.max_delay, 3 * (self.initial_delay if previous is None else previous))
            return _between(min(self.initial_delay, self.max_delay), highest, random())
        ceiling = self.ceiling(attempt)
        if jitter == "full":
            return ceiling * random()
        if jitter == "none":
            return ceiling
        if jitter == "equal":
            return _between(ceiling / 2, ceiling, random())
        proportion = float(jitter)
        return _between(ceiling * (1 - proportion), min(ceiling * (1 + proportion), self.max_delay), random())


def _between(low: float, high: float, fraction: float) -> float:
    return min(high, low + fraction * (high - low))  # rounding may lift the sum above `high`
