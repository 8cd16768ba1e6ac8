"""Keys and their states, in memory: bounded, and expiring without a pause.

Rules:
    - A key has nothing that stays with the garbage collector, which so has nothing to walk through. Two
      hundred and fifty-six dicts in place of one, so none is long in growing.
    - Each shard has two generations. One shard at a time is turned over: what is old falls, what was young
      becomes old. A full round takes at least the counter's horizon, so whatever falls lapsed long ago. What
      has fallen is freed in slices, one a call: with the last keys of a flood whole arenas of memory go back
      to the machine, and that takes milliseconds. No call does more than that, and none needs a thread.
    - A key that still counts is never freed before its time. Where the table is full, a key that is not in
      it counts in one of the spare places, which it shares with others: it may be refused for what they
      did, never admitted too often. It stays with its place while anything counts there, also if there is
      room again by then. A flood of keys thus frees nobody's lock and takes no more memory; newcomers are
      let in as far as the spare places go, and are rid of the flood one window after its end.

Which shard or place a key falls to is decided by Python's salted hash, so nobody can aim at it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from resilience._core.counting import Rules, State

SHARDS: Final = 256
SPARE: Final = b"*"
"""What the spare places begin with, and no canonical key of bytes does."""

_SLICE: Final = 256
"""How many keys one call frees."""

_SPARE_PART: Final = 16
"""One spare place for so many keys."""


class Table:
    """The states of one counter's keys. Its caller holds a lock.

    Args:
        rules: What says how long a state counts.
        most: How many keys it may hold; one sixteenth more for the spare places.
    """

    __slots__ = (
        "_crowded_until",
        "_fallen",
        "_most",
        "_next",
        "_pause",
        "_rules",
        "_spare",
        "old",
        "size",
        "tidy_at",
        "young",
    )

    def __init__(self, rules: Rules, most: int) -> None:
        self._rules = rules
        self._most = most
        self._spare = -(-most // _SPARE_PART)
        self._pause = -(-rules.horizon // SHARDS)
        self._next = 0
        self._fallen: dict[str | bytes, State] = {}
        """What is to be freed; none of it counts any more, and it is not looked at."""
        self._crowded_until = 0
        """Until then something may count in a spare place."""
        self.tidy_at = 0
        """When the next slice is to be freed, or the next shard to be turned over."""
        self.size = 0
        """How many keys and spare places are held."""
        self.young: list[dict[str | bytes, State]] = [{} for _ in range(SHARDS)]
        self.old: list[dict[str | bytes, State]] = [{} for _ in range(SHARDS)]

    def find(self, key: str | bytes, now: int) -> tuple[str | bytes, State | None]:
        """Return the place where `key` counts, and the state there."""
        if now >= self.tidy_at:
            self._tidy(now)
        state = self._state(key, now)
        if state is None and (self.size >= self._most or now < self._crowded_until):
            spare = b"%b%d" % (SPARE, hash(key) % self._spare)
            there = self._state(spare, now)
            counts = there is not None and self._rules.whole_at(there, now) > now
            if counts or self.size >= self._most:
                return spare, there
        return key, state

    def put(self, place: str | bytes, state: State | None, now: int) -> None:
        """Keep what `place` has come to; None forgets it."""
        shard = hash(place) % SHARDS
        young = self.young[shard]
        if state is None:
            self.size -= young.pop(place, None) is not None
            return
        if place not in young:
            self.size += 1
        young[place] = state
        if place[:1] == SPARE:
            self._crowded_until = now + self._rules.horizon

    def _state(self, place: str | bytes, now: int) -> State | None:
        """Return what counts at `place`, and make an old one that does young again."""
        shard = hash(place) % SHARDS
        state = self.young[shard].get(place)
        if state is not None:
            return state
        state = self.old[shard].get(place)
        if state is None:
            return None
        if self._rules.whole_at(state, now) <= now:
            del self.old[shard][place]
            self.size -= 1
            return None
        # First here, then not there: an interrupt in between leaves it in both, never in neither.
        self.young[shard][place] = state
        del self.old[shard][place]
        return state

    def _tidy(self, now: int) -> None:
        """Free a slice of what has fallen; turn the next shard over where there is nothing left of it."""
        for _ in range(min(_SLICE, len(self._fallen))):
            self._fallen.popitem()
        if self._fallen:
            return
        # A driver may still hold what falls, which it found as young more than a horizon ago: what it takes
        # there counts from that instant on, and so has lapsed as well.
        turned = self._next
        self._fallen = self.old[turned]
        self.size -= len(self._fallen)
        self.old[turned], self.young[turned] = self.young[turned], {}
        self._next = (turned + 1) % SHARDS
        self.tidy_at = now + self._pause
