"""Keys and their states, in memory: bounded, and expiring without a pause.

Rules:
    - A key has one number or one string of bytes, never a container, so the garbage collector has nothing
      to walk through. Two hundred and fifty-six dicts in place of one, so none is long in growing.
    - Each shard has two generations. One shard at a time is turned over: what is old is freed, what was
      young becomes old. A full round takes at least the counter's horizon, so whatever is freed lapsed long
      ago. No call turns more than one shard, and none needs a thread.
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
        self._crowded_until = 0
        """Until then something may count in a spare place."""
        self.tidy_at = 0
        """When the next shard is to be turned over."""
        self.size = 0
        """How many keys and spare places are held."""
        self.young: list[dict[str | bytes, State]] = [{} for _ in range(SHARDS)]
        self.old: list[dict[str | bytes, State]] = [{} for _ in range(SHARDS)]

    def find(self, key: str | bytes, now: int) -> tuple[str | bytes, State | None]:
        """Return the place where `key` counts, and the state there."""
        if now >= self.tidy_at:
            self._turn_over(now)
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

    def _turn_over(self, now: int) -> None:
        freed = self.old[self._next]
        self.size -= len(freed)
        freed.clear()  # not merely let go: a driver may still look into it without the lock
        self.old[self._next] = self.young[self._next]
        self.young[self._next] = freed
        self._next = (self._next + 1) % SHARDS
        self.tidy_at = now + self._pause
