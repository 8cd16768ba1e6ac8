"""Units that a process takes from a shared store in batches, to hand them out without asking again.

Rules:
    - A key is asked for one by one until it proves hot: until more than `HOT` units of it are wanted within
      `life` seconds. From then on a batch is as large as what was wanted within the last `life` seconds, and
      never larger than `most`.
    - A batch is charged at once and used within `life` seconds. What is unused then can be given back.
    - Of each key there is one batch at a time, and one who fetches it, before whom the last one is put away.
      So the store counts units up to `life` seconds before their use and never after it, and at any instant
      a process holds at most `most` units of a key that are yet unused.

From the last rule follows how far a window can be overshot. What is used in a window was charged in it, or
was unused at its beginning. The store charges no more than the limit in it, and of what was unused at its
beginning each process held at most one batch. So `processes` of them let through at most
`limit + processes * most` in any window.

Memory: a key is forgotten once nobody asked for it during one or two lives, and beyond `MOST_KEYS` newcomers
are asked for one by one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilience._core.quota import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.counting import Charge, Counter

HOT: Final = 10
"""Units within one life that a key may want before it is hot."""

MOST_KEYS: Final = 4096
"""Keys whose use is watched at a time, in each of two generations."""

MOST_GIVEN_BACK: Final = 64
"""Batches whose rest is given back at a time."""


class Batch:
    """Units of one key that the store has charged, of which some are yet unused.

    Args:
        charges: What was charged.
        decisions: What the store said to it.
        rest: Units that are yet unused.
        asked: Seconds at which the store was asked.
        life: Seconds for which they may be used from then on.
    """

    __slots__ = ("_answers", "_asked", "charges", "receipts", "rest", "until")

    def __init__(
        self, charges: Sequence[Charge], decisions: Sequence[Decision], rest: int, asked: float, life: float
    ) -> None:
        self.charges = charges
        self.receipts = [decision.receipt for decision in decisions]
        self.rest = rest
        self.until = asked + life
        self._asked = asked
        self._answers = [
            (state, now, counter._replace(rules=_beside(counter))) for _, state, now, _, counter in decisions
        ]

    def decisions(self, costs: Sequence[int], now: float) -> list[Decision]:
        """Return the decisions by which units of it are handed out; the rest counts as left."""
        passed = max(0, round((now - self._asked) * 1e9))
        rest = self.rest
        return [
            Decision((True, (state, rest), instant + passed, cost, counter))
            for cost, (state, instant, counter) in zip(costs, self._answers, strict=True)
        ]


class _Beside:
    """In place of an algorithm in a batch's decisions: the state is (that of the store, units at hand)."""

    __slots__ = ("_limit", "_rules")

    def __init__(self, counter: Counter) -> None:
        self._limit = counter.quota.limit
        self._rules = counter.rules

    def remaining(self, state: Any, now: int) -> int:
        return min(self._limit, self._rules.remaining(state[0], now) + state[1])  # type: ignore[no-any-return]  # a unit at hand is an int

    def whole_at(self, state: Any, now: int) -> int:
        return self._rules.whole_at(state[0], now)

    def receipt(self, state: Any) -> int:
        return self._rules.receipt(state[0])


def _beside(counter: Counter) -> Any:
    """Return what answers all that a decision is asked which allows; it takes no units."""
    return _Beside(counter)


class Refused(NamedTuple):
    """What the store said when it was asked for a batch: not even `cost` units fit."""

    cost: int
    decisions: Sequence[Decision]


class Flight:
    """A batch that somebody is fetching, and who waits for it."""

    __slots__ = ("has_landed", "key", "outcome", "waiting")

    def __init__(self, key: str | bytes) -> None:
        self.key = key
        self.has_landed = False
        self.waiting: list[Any] = []
        self.outcome: Refused | Exception | None = None
        """What became of it, where those who wait need not find that out for themselves."""


class Fetch(NamedTuple):
    """A batch to fetch, for whoever asked."""

    units: int
    flight: Flight


class _Use:
    """How much of a key is wanted, and the batch that serves it."""

    __slots__ = ("batch", "before", "flight", "since", "wanted")

    def __init__(self, now: float) -> None:
        self.since = now
        self.wanted = 0
        """Units since then."""
        self.before = 0
        """Units in the life before that."""
        self.batch: Batch | None = None
        self.flight: Flight | None = None

    def want(self, cost: int, now: float, life: float) -> None:
        passed = now - self.since
        if passed >= life:
            self.before = self.wanted if passed < 2 * life else 0
            self.since = now
            self.wanted = 0
        self.wanted += cost


class Shares:
    """The batches of one limiter's keys. Its caller holds a lock, and lets go of it to ask the store.

    Args:
        most: Units of the largest batch, at least 2.
        life: Seconds for which a batch is used.
    """

    __slots__ = ("_old", "_taken", "_turn_at", "_young", "life", "most")

    def __init__(self, most: int, life: float) -> None:
        self.most = most
        self.life = life
        self._young: dict[str | bytes, _Use] = {}
        self._old: dict[str | bytes, _Use] = {}
        self._turn_at = 0.0
        self._taken: deque[Batch] = deque()
        """In the order in which they were fetched, which is that in which they end."""

    def ask(self, key: str | bytes, cost: int, now: float) -> Batch | Fetch | Flight | None:
        """Return where `cost` units of `key` come from.

        Returns:
            The batch that they were taken from; a `Fetch` to make, which has to land; a `Flight` to wait for
            before asking again; None to ask the store for just these.
        """
        use = self._use(key, now)
        if use is None:
            return None
        batch = use.batch
        fits = batch is not None and now < batch.until and cost <= batch.rest
        if use.flight is not None and not fits:
            return use.flight
        use.want(cost, now, self.life)
        if batch is not None and fits:
            batch.rest -= cost
            return batch
        wanted = max(use.wanted, use.before)
        units = min(self.most, wanted) // cost * cost
        if wanted <= HOT or units <= cost:
            return None
        if batch is not None:
            batch.until = now  # what is too little for this call must not be used beside the new one
            use.batch = None
        use.flight = Flight(key)
        return Fetch(units, use.flight)

    def land(self, flight: Flight, batch: Batch | None) -> None:
        """End a flight, with the batch that it brought or without one.

        Where the key was reset or forgotten meanwhile, the batch is not used, and lapses.
        """
        flight.has_landed = True
        use = self._young.get(flight.key) or self._old.get(flight.key)
        if use is not None and use.flight is flight:
            use.flight = None
            use.batch = batch
            if batch is not None:
                self._taken.append(batch)

    def at_hand(self, key: str | bytes, cost: int, now: float) -> Batch | None:
        """Return the batch from which `cost` units of `key` would come, if there is one."""
        use = self._young.get(key) or self._old.get(key)
        batch = None if use is None else use.batch
        return batch if batch is not None and now < batch.until and cost <= batch.rest else None

    def forget(self, key: str | bytes) -> None:
        """Forget `key`, which is reset: the units of its batch are charged no more."""
        for uses in (self._young, self._old):
            use = uses.pop(key, None)
            if use is not None and use.batch is not None:
                use.batch.rest = 0

    def unused(self, now: float) -> list[tuple[Batch, int]]:
        """Return batches that have ended and what is unused of each, which is the caller's to give back.

        They are few, and each of another key.
        """
        ended: dict[str | bytes, tuple[Batch, int]] = {}
        taken = self._taken
        while taken and len(ended) < MOST_GIVEN_BACK:
            batch = taken[0]
            key = batch.charges[0].key
            if (batch.rest and now < batch.until) or key in ended:
                break
            taken.popleft()
            if batch.rest:
                ended[key] = batch, batch.rest
                batch.rest = 0
        return list(ended.values())

    def _use(self, key: str | bytes, now: float) -> _Use | None:
        """Return what is known of `key`, which begins here; None where there are too many already."""
        if now >= self._turn_at:
            self._old = self._young if now < self._turn_at + self.life else {}
            self._young = {}
            self._turn_at = now + self.life
        use = self._young.get(key)
        if use is None and len(self._young) < MOST_KEYS:
            use = self._young[key] = self._old.pop(key) if key in self._old else _Use(now)
        return use
