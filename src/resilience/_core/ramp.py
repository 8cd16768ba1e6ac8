"""A share of the calls that grows to all of them: what a breaker lets pass after it has closed.

What has just come back is cold: empty caches, few connections, a queue of its own. All of the traffic at once
may bring it down again. Rules:
    - The share grows with time, in a straight line, from `FLOOR` to 1.
    - Calls are let pass as evenly as they can be: each earns its share, and one passes for each whole that is
      earned. That needs no chance, and no two of the first go together.
    - It is over when its time is; it never begins anew, and a clock that is set back does not prolong it.

Source: Envoy's slow start mode with an aggression of 1, and its least weight.
"""

from __future__ import annotations

from typing import Final

FLOOR: Final = 0.1
"""The least share."""


class Ramp:
    """One such time.

    Args:
        seconds: How long it lasts, above 0.
        now: When it begins.

    Example:
        >>> ramp = Ramp(seconds=10.0, now=0.0)
        >>> [ramp.admits(5.0) for _ in range(6)]           # half of the time: every second call
        [True, False, True, False, True, False]
        >>> ramp.left(5.0), ramp.left(10.0)
        (5.0, 0.0)
    """

    __slots__ = ("_began", "_earned", "_seconds")

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._began = now
        self._earned = 1.0  # the first call passes at once

    def left(self, now: float) -> float:
        """Return the seconds until all calls pass; 0 once they do."""
        self._began = min(self._began, now)
        return max(0.0, self._began + self._seconds - now)

    def admits(self, now: float) -> bool:
        """Say whether a call may pass."""
        share = max(FLOOR, 1.0 - self.left(now) / self._seconds)
        passes = self._earned >= 1.0
        self._earned += share - passes
        return passes
