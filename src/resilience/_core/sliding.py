"""Sliding windows: never more than the limit in any window, wherever one lays it.

`SlidingLog` keeps, for each unit, the instant at which it lapses: exact, and small while the limit is.
`SlidingCounts` is for larger limits. It divides the window into 63 parts and keeps one count for each
part, so at most 64 that still count; a unit lapses with the last one of its part, so at most one part of
the window (1.6 %) later than it would exactly. It errs towards refusal.

Both keep instants as 8 bytes with the highest first: bytes then compare as the numbers do.

Worked timeline of the log, 6 units in 60 s:

    second   0: one is admitted; it lapses at 60
    second  59: five are admitted; they lapse at 119; the next is refused until 60
    second  60: the first has lapsed: one is admitted, the next refused until 119
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilience._core.counting import KeptAsItIs

if TYPE_CHECKING:
    from collections.abc import Callable

EXACT_UP_TO: Final = 64
"""The largest limit that is kept as a log: 512 bytes a key."""

_PARTS: Final = 63
_INSTANT: Final = 8
_ENTRY: Final = 16


def _pack(number: int) -> bytes:
    return number.to_bytes(_INSTANT, "big")


def _unpack(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


class SlidingLog(KeptAsItIs):
    """The rules of one quota; the state is the instants at which its units lapse, the first one first."""

    __slots__ = ("_full", "_limit", "horizon")

    def __init__(self, limit: int, window: int) -> None:
        self._limit = limit
        self._full = limit * _INSTANT
        self.horizon = window

    def admit(self, state: bytes | None, now: int, cost: int = 1) -> bytes | None:
        """Return the state after taking `cost` units, or None if they do not fit."""
        if state is None:
            return _pack(now + self.horizon) * cost if cost <= self._limit else None
        excess = len(state) + _INSTANT * cost - self._full
        if (
            excess > 0
            and (
                cost > self._limit
                # The first `excess` must have lapsed: the last of them has not if it lies after now.
                or state[excess - _INSTANT : excess] > now.to_bytes(_INSTANT, "big")
            )
        ):
            return None
        lapse = (now + self.horizon).to_bytes(_INSTANT, "big")
        newest = state[-_INSTANT:]
        return state[max(0, excess) :] + max(lapse, newest) * cost

    def admit_one(self) -> Callable[[bytes, int], bytes | None]:
        """Return `admit` for one unit of a key that has a state, with the figures bound."""
        full = self._full
        window = self.horizon

        def admit(state: bytes, now: int) -> bytes | None:
            if len(state) == full:
                if state >= (now + 1).to_bytes(8, "big"):  # the first lapses after now; the rest is no matter
                    return None
                state = state[8:]
            lapse = (now + window).to_bytes(8, "big")
            newest = state[-8:]
            return state + (lapse if newest <= lapse else newest)  # noqa: FURB136 - max() takes twice as long

        return admit

    def _taken(self, state: bytes | None, now: int) -> int:
        """Return the units that still count."""
        if state is None:
            return 0
        instant = _pack(now)
        lapsed = 0
        while lapsed < len(state) and state[lapsed : lapsed + _INSTANT] <= instant:
            lapsed += _INSTANT
        return (len(state) - lapsed) // _INSTANT

    def remaining(self, state: bytes | None, now: int) -> int:
        """Return the units that would fit."""
        return self._limit - self._taken(state, now)

    def fits_at(self, state: bytes | None, now: int, cost: int) -> int | None:
        """Return the first instant at which `cost` units fit; None if they never do."""
        if cost > self._limit:
            return None
        excess = 0 if state is None else len(state) + _INSTANT * cost - self._full
        if state is None or excess <= 0:
            return now
        return max(now, _unpack(state[excess - _INSTANT : excess]))

    def whole_at(self, state: bytes | None, now: int) -> int:
        """Return the first instant at which nothing counts any more; not before `now`."""
        return now if state is None else max(now, _unpack(state[-_INSTANT:]))

    def receipt(self, state: bytes) -> int:
        """Return what identifies the units that the admission to `state` took: when they lapse."""
        return _unpack(state[-_INSTANT:])

    def refund(self, state: bytes | None, now: int, cost: int, receipt: int) -> bytes | None:  # noqa: ARG002 - as in Rules
        """Return the state without `cost` units of `receipt`."""
        if state is None:
            return None
        instants = [state[at : at + _INSTANT] for at in range(0, len(state), _INSTANT)]
        for _ in range(min(cost, instants.count(_pack(receipt)))):
            instants.remove(_pack(receipt))
        return b"".join(instants) or None


Counts = tuple[int, int, int, int, bytes]
"""What `SlidingCounts` keeps of a key, so that one more unit mostly costs a sum and a comparison:

    - the instant up to which a unit is just one more in the newest part: none lapses before, none begins;
    - the units in all;
    - when the newest part lapses;
    - the units of the parts before it;
    - these parts, packed: the lapse and the units of each.
"""


class SlidingCounts:
    """The rules of one quota; the state is `Counts`."""

    __slots__ = ("_limit", "_part", "_window", "horizon")

    def __init__(self, limit: int, window: int) -> None:
        self._limit = limit
        self._window = window
        self._part = -(-window // _PARTS)
        self.horizon = window + self._part

    def admit(self, state: Counts | None, now: int, cost: int = 1) -> Counts | None:
        """Return the state after taking `cost` units, or None if they do not fit."""
        if state is not None and now < state[0]:
            until, total, newest, before, parts = state
            return (until, total + cost, newest, before, parts) if total + cost <= self._limit else None
        total, parts = self._counting(state, now)
        if total + cost > self._limit:
            return None
        lapse = _pack((now // self._part + 1) * self._part + self._window)
        if parts and parts[-_ENTRY:-_INSTANT] >= lapse:
            parts = parts[:-_INSTANT] + _pack(_unpack(parts[-_INSTANT:]) + cost)
        else:
            parts += lapse + _pack(cost)
        return self._state(total + cost, parts)

    def admit_one(self) -> Callable[[Counts, int], Counts | None]:
        """Return `admit` for one unit of a key that has a state, with the figures bound."""
        limit = self._limit

        def admit(state: Counts, now: int) -> Counts | None:
            until, total, lapse, before, parts = state
            if now >= until:
                return self.admit(state, now)
            return (until, total + 1, lapse, before, parts) if total < limit else None

        return admit

    def remaining(self, state: Counts | None, now: int) -> int:
        """Return the units that would fit."""
        if state is None:
            return self._limit
        return self._limit - (state[1] if now < state[0] else self._counting(state, now)[0])

    def fits_at(self, state: Counts | None, now: int, cost: int) -> int | None:
        """Return the first instant at which `cost` units fit; None if they never do."""
        if cost > self._limit:
            return None
        total, parts = self._counting(state, now)
        at = now
        while total + cost > self._limit:
            at = _unpack(parts[:_INSTANT])
            total -= _unpack(parts[_INSTANT:_ENTRY])
            parts = parts[_ENTRY:]
        return at

    def whole_at(self, state: Counts | None, now: int) -> int:
        """Return the first instant at which nothing counts any more; not before `now`."""
        return now if state is None else max(now, state[2])

    def receipt(self, state: Counts) -> int:
        """Return what identifies the units that the admission to `state` took: when their part lapses."""
        return state[2]

    def refund(self, state: Counts | None, now: int, cost: int, receipt: int) -> Counts | None:
        """Return the state without `cost` units of `receipt`."""
        total, parts = self._counting(state, now)
        kept = b""
        for at in range(0, len(parts), _ENTRY):
            lapse, taken = parts[at : at + _INSTANT], _unpack(parts[at + _INSTANT : at + _ENTRY])
            if _unpack(lapse) == receipt:
                given_back = min(cost, taken)
                total -= given_back
                taken -= given_back
            if taken:
                kept += lapse + _pack(taken)
        return self._state(total, kept) if kept else None

    @staticmethod
    def pack(state: Counts) -> bytes:
        """Return the units in all, then each part's lapse and its units."""
        _, total, lapse, before, parts = state
        return _pack(total) + parts + _pack(lapse) + _pack(total - before)

    def unpack(self, packed: bytes) -> Counts:
        """Return the state that was packed."""
        return self._state(_unpack(packed[:_INSTANT]), packed[_INSTANT:])

    def _state(self, total: int, parts: bytes) -> Counts:
        """Return the state of `total` units that are in these parts, of which there is at least one."""
        lapse = _unpack(parts[-_ENTRY:-_INSTANT])
        until = min(lapse - self._window, _unpack(parts[:_INSTANT]))
        return until, total, lapse, total - _unpack(parts[-_INSTANT:]), parts[:-_ENTRY]

    def _counting(self, state: Counts | None, now: int) -> tuple[int, bytes]:
        """Return the units that still count, and the parts that they are in."""
        if state is None or state[2] <= now:
            return 0, b""
        packed = self.pack(state)
        total = state[1]
        first = _INSTANT
        instant = _pack(now)
        while packed[first : first + _INSTANT] <= instant:
            total -= _unpack(packed[first + _INSTANT : first + _ENTRY])
            first += _ENTRY
        return total, packed[first:]
