"""Counts in this process's own memory: the fastest store, and the default.

Rules:
    - Every process counts by itself: four workers let through four times the limit. Where that matters,
      use a shared store; `RateLimiter(..., require_shared=True)` refuses this one.
    - Time is the monotonic clock, so setting the machine's clock changes nothing. An injected clock that
      steps back stands still until it has caught up.
    - Memory is bounded and expires by itself, as `resilience._core.table` explains.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from resilience._core.key import EVERYBODY, canonical
from resilience._core.quota import Decision, foreseen
from resilience._core.table import SHARDS, SPARE, Table
from resilience.checks import count
from resilience.clock import SYSTEM_CLOCK
from resilience.events import SUBSCRIBERS
from resilience.fork import bound_lock, survive_fork
from resilience.stores import Entry, Holding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.counting import Charge, Counter, State
    from resilience.clock import Clock
    from resilience.events import Hook

Answer = TypeVar("Answer")

_NO_KEY: Final[Any] = object()
"""In place of a key that was left out; bytes would do, but a caller could pass those too."""


class MemoryStore:
    """Counts in this process's memory.

    Args:
        max_keys: How many keys each quota of each limiter may hold, at least 1. A key that counts is never
            dropped to make room: beyond this, newcomers share spare places, and err towards refusal.
        clock: What time is counted on.

    Threads and event loops may share it; it survives a fork, after which parent and child count apart. No
    call blocks, so it is used on event loops as it is.

    Example:
        >>> from resilience.limiter import RateLimiter
        >>> store = MemoryStore()
        >>> login = RateLimiter("6/15 minutes", name="login", store=store)
        >>> login.try_acquire("ada@example.com").remaining
        5
    """

    shared = False
    blocking = False

    def __init__(self, max_keys: int = 1_000_000, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock: Clock = clock
        self._max_keys = count("max_keys", max_keys, least=1)
        self._tables: dict[str, Table] = {}
        self._latest = 0
        # The machine's clock needs no high-water mark, and is read without a call of ours in between.
        self._now: Callable[[], int] = time.monotonic_ns if clock is SYSTEM_CLOCK else self._injected_now
        survive_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = bound_lock()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "a MemoryStore cannot be copied or pickled, as it would count apart from the original: "
            "share the one there is, or use a shared store"
        )

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        now = self._now()
        found: list[tuple[Charge, Table, str | bytes, State | None, State | None]] = []
        fits = True
        with self._lock:
            for charge in charges:
                table = self._table(charge.counter)
                place, state = table.find(charge.key, now)
                after = charge.counter.rules.admit(state, now, charge.cost)
                fits = fits and after is not None
                found.append((charge, table, place, state, after))
            if fits:
                for _, table, place, _, after in found:
                    table.put(place, after, now)
        return [
            Decision((after is not None, after if fits else state, now, charge.cost, charge.counter))
            for charge, _, _, state, after in found
        ]

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        now = self._now()
        with self._lock:
            states = [self._table(charge.counter).find(charge.key, now)[1] for charge in charges]
        return foreseen(charges, states, now)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        now = self._now()
        with self._lock:
            for charge, receipt in zip(charges, receipts, strict=True):
                table = self._table(charge.counter)
                place, state = table.find(charge.key, now)
                table.put(place, charge.counter.rules.refund(state, now, charge.cost, receipt), now)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`; not what counts in a spare place, which is others' too."""
        now = self._now()
        with self._lock:
            for counter in counters:
                table = self._table(counter)
                place, _ = table.find(key, now)
                if place == key:
                    table.put(place, None, now)

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries; one shard at a time is locked."""
        now = self._now()
        size = 0
        entries: list[Entry] = []
        for counter in counters:
            rules = counter.rules
            with self._lock:
                table = self._table(counter)
                size += table.size
            for shard in range(SHARDS):
                if len(entries) >= limit:
                    break
                with self._lock:
                    held = [*table.old[shard].items(), *table.young[shard].items()]
                entries += [
                    Entry(counter, key, rules.remaining(state, now), (rules.whole_at(state, now) - now) / 1e9)
                    for key, state in held
                    if key[:1] != SPARE and rules.whole_at(state, now) > now
                ]
        return Holding(size, tuple(entries[:limit]))

    def fast_path(
        self,
        counter: Counter,
        waiting: object,
        hooks: tuple[Hook, ...],
        otherwise: Callable[..., Answer],
    ) -> Callable[..., Decision | Answer]:
        """Return the quickest way to take one unit for one key of one counter.

        The function takes a key as callers give it. It asks `otherwise` wherever there is anything to it: a
        key that is not held as it stands, a cost, a shard to turn over, another thread in between, a refusal
        that somebody listens to, or while `waiting` is true.

        The decision is made on the state without the lock; the lock is held only to put the new state in
        place of the very one that it was made on. States are immutable and held by a reference meanwhile,
        so the same object is the same state. Thus a refusal needs no lock at all: it rests on one read of
        the dict, which is atomic with the GIL and without.
        """
        table = self._table(counter)
        admit = counter.rules.admit_one()
        young = table.young
        clock = self._now
        last_shard = SHARDS - 1

        def try_acquire(key: Any = _NO_KEY, /, *more: Any, cost: int = 1) -> Decision | Answer:
            now = clock()
            if cost == 1 and now < table.tidy_at and not waiting:
                try:
                    if key.__class__ is str and not more:
                        place: str | bytes = key
                    elif key is _NO_KEY:
                        place = EVERYBODY
                    else:
                        place = canonical((key, *more))
                    shard = young[hash(place) & last_shard]
                    state = shard[place]
                    after = admit(state, now)
                    if after is not None:
                        with self._lock:
                            if shard[place] is state:
                                shard[place] = after
                                return Decision((True, after, now, 1, counter))
                    elif not (hooks or SUBSCRIBERS.hooks):
                        return Decision((False, state, now, 1, counter))
                except (KeyError, TypeError):
                    pass  # it is not held as it stands, or not any more, or cannot be a key at all
            return otherwise(cost=cost) if key is _NO_KEY else otherwise(key, *more, cost=cost)

        return try_acquire

    def entry(self, counter: Counter, waiting: object) -> Callable[[str | bytes], bool]:
        """Return the quickest way to take one unit for one canonical key, for who wants no decision of it.

        The function returns whether it has taken the unit. False says nothing about the key: then ask `take`.
        Why it decides without the lock is said at `fast_path`.
        """
        table = self._table(counter)
        admit = counter.rules.admit_one()
        young = table.young
        clock = self._now
        last_shard = SHARDS - 1

        def take_one(place: str | bytes) -> bool:
            now = clock()
            if now < table.tidy_at and not waiting:
                shard = young[hash(place) & last_shard]
                try:
                    state = shard[place]
                    after = admit(state, now)
                    if after is not None:
                        with self._lock:
                            if shard[place] is state:
                                shard[place] = after
                                return True
                except KeyError:
                    return False  # it is not held as it stands, or not any more
            return False

        return take_one

    def _table(self, counter: Counter) -> Table:
        table = self._tables.get(counter.scope)
        if table is None:
            with self._lock:
                table = self._tables.setdefault(counter.scope, Table(counter.rules, self._max_keys))
        return table

    def _injected_now(self) -> int:
        now = round(self.clock.now() * 1e9)
        with self._lock:
            self._latest = max(self._latest, now)
            return self._latest
