"""After how long a call takes longer than usual: a percentile of recent latencies.

Rules:
    - Of the latest latencies, at most so many count, and none that is older than the window. So memory is
      bounded, a busy caller knows the last second, and an idle one goes by nothing stale.
    - A percentile is a latency that was measured: the least one that so large a share of the others does not
      exceed (nearest rank).
    - Of a call that was given up, it is known only that it took longer than that. Such a latency counts as it
      is: it lies above the percentile as it should, and how far above does not change it.
    - Below `minimum` latencies there is no percentile, and so nothing is hedged.

Source for hedging after a high percentile: Dean and Barroso, "The Tail at Scale", CACM 2013.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil


class Latencies:
    """The latest latencies.

    Args:
        percentile: The share of the calls that it should not take longer than, above 0 and below 1.
        window: Seconds that a latency counts.
        minimum: How many are needed to tell a percentile.
        most: How many count at most; about 100 bytes each.

    Example:
        >>> latencies = Latencies(0.9, window=60.0, minimum=5, most=1000)
        >>> for number in range(1, 11):
        ...     latencies.add(number / 1000, now=0.0)
        >>> latencies.percentile(now=1.0), latencies.percentile(now=61.0)
        (0.009, None)
    """

    __slots__ = ("_by_age", "_by_length", "_minimum", "_most", "_share", "_window")

    def __init__(self, percentile: float, window: float, minimum: int, most: int) -> None:
        self._share = percentile
        self._window = window
        self._minimum = minimum
        self._most = most
        self._by_age: deque[tuple[float, float]] = deque()
        self._by_length: list[float] = []

    def __len__(self) -> int:
        """Return how many count."""
        return len(self._by_length)

    def add(self, seconds: float, now: float) -> None:
        """Count a call that took `seconds`."""
        self._forget(now)
        if len(self._by_age) == self._most:
            self._drop()
        self._by_age.append((now, seconds))
        insort(self._by_length, seconds)

    def percentile(self, now: float) -> float | None:
        """Return the seconds that a call seldom exceeds; None while too little is known."""
        self._forget(now)
        length = len(self._by_length)
        if length < self._minimum:
            return None
        return self._by_length[ceil(self._share * length) - 1]

    def _forget(self, now: float) -> None:
        """Drop what is older than the window; a clock that was set back ages nothing."""
        oldest = now - self._window
        by_age = self._by_age
        while by_age and by_age[0][0] <= oldest:
            self._drop()

    def _drop(self) -> None:
        _, seconds = self._by_age.popleft()
        del self._by_length[bisect_left(self._by_length, seconds)]
