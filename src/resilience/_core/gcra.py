"""GCRA, the generic cell rate algorithm: even pacing, with one number for each key.

A key may save up `limit` units, and earns one back every `per / limit` seconds. The state is the instant
from which one more unit fits; each unit taken moves it on by the time in which a unit is earned. That time
is rounded up to a whole nanosecond, which errs towards refusal.

Over one window it can admit nearly twice the limit: what was saved up, and what is earned meanwhile. It is
the token bucket without a counter to refill. Source: ITU-T I.371, virtual scheduling algorithm.

Worked timeline, 6 units in 60 s, so one is earned every 10 s:

    second   0: six calls at once are admitted; the state becomes 10, the seventh is refused until then
    second  10: one is admitted, the next refused until 20
    second  70: the state is still 20, but no more than six units can be saved up: it counts as 20
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience._core.counting import KeptAsItIs

if TYPE_CHECKING:
    from collections.abc import Callable


def _compact(number: int) -> int:
    """Return the same number, without the room for one more digit that a sum is made with: 16 bytes a key."""
    return number | 0


class Gcra(KeptAsItIs):
    """The rules of one quota; the state is an int."""

    __slots__ = ("_earning", "_limit", "_saved", "horizon")

    def __init__(self, limit: int, window: int) -> None:
        self._limit = limit
        self._earning = -(-window // limit)
        """Nanoseconds in which a unit is earned."""
        self._saved = (limit - 1) * self._earning
        """How far the state of an unused key lies back."""
        self.horizon = limit * self._earning

    def admit(self, state: int | None, now: int, cost: int = 1) -> int | None:
        """Return the state after taking `cost` units, or None if they do not fit."""
        unused = now - self._saved
        if state is None or state < unused:
            state = unused
        after = state + cost * self._earning
        return _compact(after) if after - self._earning <= now else None

    def admit_one(self) -> Callable[[int, int], int | None]:
        """Return `admit` for one unit of a key that has a state, with the figures bound."""
        earning = self._earning
        saved = self._saved
        saved_but_one = saved - earning

        def admit(state: int, now: int) -> int | None:
            if state > now:
                return None
            if state < now - saved:
                return now - saved_but_one
            return (state + earning) | 0  # compact, without a call

        return admit

    def remaining(self, state: int | None, now: int) -> int:
        """Return the units that would fit."""
        if state is None:
            return self._limit
        return max(0, min(self._limit, (now - state) // self._earning + 1))

    def fits_at(self, state: int | None, now: int, cost: int) -> int | None:
        """Return the first instant at which `cost` units fit; None if they never do."""
        if cost > self._limit:
            return None
        return now if state is None else max(now, state + (cost - 1) * self._earning)

    def whole_at(self, state: int | None, now: int) -> int:
        """Return the first instant at which nothing counts any more; not before `now`."""
        return now if state is None else max(now, state + self._saved)

    def receipt(self, state: int) -> int:
        """Return what identifies the units that the admission to `state` took: the state itself."""
        return state

    def refund(self, state: int | None, now: int, cost: int, receipt: int) -> int | None:
        """Return the state without `cost` units of `receipt`.

        Units are earned back in the order they were taken. So of these, what has not been earned back yet
        is what lies after `now` of the stretch they took, which ends where the receipt is whole again.
        """
        if state is None:
            return None
        still_taken = max(0, min(cost * self._earning, receipt + self._saved - now))
        without = state - still_taken
        return without if without + self._saved > now else None
