"""A fixed window: the cheapest count, and the least exact.

A key's window begins with its first unit and lasts `per` seconds; then the next unit begins another. The
state is one number that holds both the window's end and the units taken in it.

It can admit twice the limit within an instant: all of it just before a window ends, and all of it again
just after.

Worked timeline, 6 units in 60 s:

    second   0: the window begins, one is admitted
    second  59: five are admitted, the next refused until 60
    second  60: a window begins, six are admitted: eleven within a second
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience._core.counting import KeptAsItIs

if TYPE_CHECKING:
    from collections.abc import Callable


class FixedWindow(KeptAsItIs):
    """The rules of one quota; the state is `end of the window * (limit + 1) + units taken`."""

    __slots__ = ("_base", "_limit", "horizon")

    def __init__(self, limit: int, window: int) -> None:
        self._limit = limit
        self._base = limit + 1
        self.horizon = window

    def admit(self, state: int | None, now: int, cost: int = 1) -> int | None:
        """Return the state after taking `cost` units, or None if they do not fit."""
        if state is None or state // self._base <= now:
            return (now + self.horizon) * self._base + cost if cost <= self._limit else None
        return state + cost if state % self._base + cost <= self._limit else None

    def admit_one(self) -> Callable[[int, int], int | None]:
        """Return `admit` for one unit of a key that has a state, with the figures bound."""
        base = self._base
        limit = self._limit
        window = self.horizon

        def admit(state: int, now: int) -> int | None:
            end, taken = divmod(state, base)
            if end <= now:
                return (now + window) * base + 1
            return state + 1 if taken < limit else None

        return admit

    def remaining(self, state: int | None, now: int) -> int:
        """Return the units that would fit."""
        if state is None or state // self._base <= now:
            return self._limit
        return self._limit - state % self._base

    def fits_at(self, state: int | None, now: int, cost: int) -> int | None:
        """Return the first instant at which `cost` units fit; None if they never do."""
        if cost > self._limit:
            return None
        return now if cost <= self.remaining(state, now) else self.whole_at(state, now)

    def whole_at(self, state: int | None, now: int) -> int:
        """Return the first instant at which nothing counts any more; not before `now`."""
        return now if state is None else max(now, state // self._base)

    def receipt(self, state: int) -> int:
        """Return what identifies the units that the admission to `state` took: the end of their window."""
        return state // self._base

    def refund(self, state: int | None, now: int, cost: int, receipt: int) -> int | None:  # noqa: ARG002 - as in Rules
        """Return the state without `cost` units of `receipt`; those of an earlier window have lapsed."""
        if state is None or state // self._base != receipt:
            return state
        left = state - min(cost, state % self._base)
        return left if left % self._base else None
