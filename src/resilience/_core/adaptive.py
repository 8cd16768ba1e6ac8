"""How many calls a dependency can take at a time, found out by trying: pure, driven by `resilience.adaptive`.

Rules:
    - A call that was dropped, or timed out, cuts the limit by a factor, at most once per round trip: the cut
      begins a generation, and the outcomes of calls that began before it are void. They say nothing new.
    - A success adds its share of 1 per round trip, if at least half of the limit is in use: a limit that
      nobody has come near is not known to be good.
    - The limit stays between a minimum, which may be 1, and a maximum.

This is the additive increase and multiplicative decrease of TCP's congestion avoidance (RFC 5681), which
comes to a fair share among many processes that know nothing of each other. `docs/overload.md` has what was
measured: why the factor is 0.5, and why neither Vegas nor Gradient2 is here.

The caller holds its lock around every call of a method here.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What the end of a call says about the load."""

    SERVED = "in good time"
    DROPPED = "refused as too much, or too late"
    NEUTRAL = "nothing"


class Aimd:
    """A limit of calls in flight, and how many there are.

    Args:
        limit: What it begins with.
        minimum: What it never falls below, at least 1.
        maximum: What it never exceeds.
        cut: What a drop multiplies it by.

    Example:
        >>> limit = Aimd(limit=2, minimum=1, maximum=10, cut=0.5)
        >>> first, second, third = limit.admit(), limit.admit(), limit.admit()
        >>> (first, second, third), limit.in_flight
        ((1, 1, None), 2)
        >>> limit.settle(first, Verdict.DROPPED)
        >>> limit.settle(second, Verdict.DROPPED)        # of the same round trip: void
        >>> limit.calls
        1
    """

    __slots__ = ("_cut", "_maximum", "_minimum", "calls", "generation", "in_flight", "limit")

    def __init__(self, limit: float, minimum: int, maximum: int, cut: float) -> None:
        self.limit = limit
        self.calls = int(limit)
        """How many calls may be in flight: the limit without its fraction."""
        self._minimum = minimum
        self._maximum = maximum
        self._cut = cut
        self.in_flight = 0
        self.generation = 1
        """How often it has been cut, and one."""

    def afresh(self) -> Aimd:
        """Return one that knows the same, and has no calls in flight."""
        return Aimd(self.limit, self._minimum, self._maximum, self._cut)

    def admit(self) -> int | None:
        """Let a call in, and return its generation; or return None where too many are in flight."""
        if self.in_flight >= self.calls:
            return None
        self.in_flight += 1
        return self.generation

    def settle(self, generation: int, verdict: Verdict) -> None:
        """Take the end of a call that was admitted in `generation`."""
        in_flight, self.in_flight = self.in_flight, self.in_flight - 1
        if verdict is Verdict.NEUTRAL or generation != self.generation:
            return
        if verdict is Verdict.DROPPED:
            self.limit = max(float(self._minimum), self.limit * self._cut)
            self.generation += 1
        elif 2 * in_flight >= self.limit:
            self.limit = min(float(self._maximum), self.limit + 1.0 / self.limit)
        self.calls = int(self.limit)
