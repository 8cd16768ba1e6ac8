"""How long to wait before the next attempt.

Rules:
    - The ceiling of attempt n's delay is `initial_delay * multiplier ** (n - 1)`, at most `max_delay`.
    - Jitter draws the delay inside the cap: a delay that is drawn first and capped after would be the cap
      itself most of the time, and all clients would come back together.
    - Every delay is finite and between 0 and `max_delay`, however high the attempt or the figures.

Source: Brooker, "Exponential Backoff And Jitter" (2015), for full, equal and decorrelated jitter. There the
decorrelated delay is capped after it is drawn; here the range is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    Random = Callable[[], float]

JITTERS: Final = ("none", "full", "equal", "decorrelated")
"""The jitters that have a name; a proportion has none."""


class Backoff:
    """A schedule of delays; it never changes.

    Args:
        initial_delay: Seconds, at least 0 and finite.
        max_delay: Seconds, at least 0 and finite.
        multiplier: At least 1 and finite.
        jitter: One of `JITTERS`, or a proportion above 0 and up to 1.

    Example:
        >>> backoff = Backoff(initial_delay=1.0, max_delay=30.0, multiplier=2.0, jitter="none")
        >>> [backoff.delay(attempt, None, random=lambda: 0.5) for attempt in range(1, 8)]
        [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    """

    __slots__ = ("initial_delay", "jitter", "max_delay", "multiplier")

    def __init__(
        self, initial_delay: float, max_delay: float, multiplier: float, jitter: str | float
    ) -> None:
        self.initial_delay = initial_delay
        self.max_delay = max_delay
        self.multiplier = multiplier
        self.jitter = jitter

    def delay(self, attempt: int, previous: float | None, random: Random) -> float:
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
            lowest = min(self.initial_delay, self.max_delay)
            highest = 3 * (lowest if previous is None else previous)
            return _between(lowest, min(highest, self.max_delay), random)
        try:
            ceiling = self.initial_delay * self.multiplier ** (attempt - 1)
        except OverflowError:
            ceiling = self.max_delay if self.initial_delay else 0.0
        if ceiling > self.max_delay:  # noqa: PLR1730 - min() costs a call
            ceiling = self.max_delay
        if jitter == "full":
            return ceiling * random()
        if jitter == "none":
            return ceiling
        if jitter == "equal":
            return _between(ceiling / 2, ceiling, random)
        proportion = float(jitter)
        return _between(ceiling * (1 - proportion), min(ceiling * (1 + proportion), self.max_delay), random)


def _between(low: float, high: float, random: Random) -> float:
    return min(low + (high - low) * random(), high)  # rounding may lift the sum above `high`
