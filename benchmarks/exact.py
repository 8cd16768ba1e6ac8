"""Decisions of the real `RateLimiter`, each compared with what exact rational arithmetic says.

    python -m benchmarks.exact

For each decision the exact rule is asked whether the call fits, given what the limiter has admitted before;
so one wrong decision does not make the next ones wrong too. Time is a fake clock's, in whole nanoseconds, and
arrivals are drawn where rounding would show: at the very instant at which a unit comes back, a nanosecond
before and after it, in bursts, and at random.
"""

from __future__ import annotations

import random
from collections import deque
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilience import Quota, RateLimiter
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 10**9
PARTS = 63
"""How many parts `SlidingCounts` divides a window into."""


class Rule(Protocol):
    """The exact rule for one key."""

    def fits(self, now: Fraction, cost: int) -> bool:
        """Return whether a call fits."""

    def take(self, now: Fraction, cost: int) -> None:
        """Note what the limiter has admitted."""


class ExactWindow:
    """No more than the limit in any window: what was admitted at `t` counts until `t + per`, exclusively."""

    def __init__(self, limit: int, per: Fraction) -> None:
        self.limit = limit
        self.per = per
        self.admitted: deque[Fraction] = deque()

    def fits(self, now: Fraction, cost: int) -> bool:
        while self.admitted and self.admitted[0] + self.per <= now:
            self.admitted.popleft()
        return len(self.admitted) + cost <= self.limit

    def take(self, now: Fraction, cost: int) -> None:
        self.admitted.extend([now] * cost)


class ExactGcra:
    """One unit is earned in `per / limit` seconds, a fraction; up to `limit` can be saved up."""

    def __init__(self, limit: int, per: Fraction) -> None:
        self.limit = limit
        self.earning = per / limit
        self.arrival: Fraction | None = None
        """The theoretical arrival time of ITU-T I.371."""

    def fits(self, now: Fraction, cost: int) -> bool:
        arrival = now if self.arrival is None else max(now, self.arrival)
        return arrival + cost * self.earning <= now + self.limit * self.earning

    def take(self, now: Fraction, cost: int) -> None:
        arrival = now if self.arrival is None else max(now, self.arrival)
        self.arrival = arrival + cost * self.earning


class ExactFixed:
    """A window begins with its first unit, and ends after `per`."""

    def __init__(self, limit: int, per: Fraction) -> None:
        self.limit = limit
        self.per = per
        self.end = Fraction(0)
        self.taken = 0

    def fits(self, now: Fraction, cost: int) -> bool:
        return (0 if self.end <= now else self.taken) + cost <= self.limit

    def take(self, now: Fraction, cost: int) -> None:
        if self.end <= now:
            self.end, self.taken = now + self.per, 0
        self.taken += cost


EXACT: dict[str, Callable[[int, Fraction], Rule]] = {
    "sliding-window": ExactWindow,
    "gcra": ExactGcra,
    "fixed-window": ExactFixed,
}


class Row(NamedTuple):
    """A quota, and by how much its documentation says it may refuse longer than exactly."""

    quota: Quota
    late: Fraction = Fraction(0)
    """Seconds."""
    why: str = ""


def by_parts(limit: int, per: float) -> Row:
    """Return the row of a sliding window that is too large for a log of each unit."""
    return Row(
        Quota(limit, per=per), Fraction(-(-round(per * SECOND) // PARTS), SECOND), "1/63 of the window"
    )


ROWS = (
    Row(Quota(6, per=900.0)),
    Row(Quota(64, per=60.0)),
    Row(Quota(6, per=900.0, algorithm="gcra")),
    Row(Quota(10, per=1.0, algorithm="gcra")),
    Row(Quota(100, per=60.0, algorithm="gcra")),
    Row(Quota(6, per=900.0, algorithm="fixed-window")),
    Row(Quota(100, per=60.0, algorithm="fixed-window")),
    Row(Quota(1000, per=3600.0, algorithm="fixed-window")),
)
"""Held to be exact: no decision may differ."""

BOUNDED = (by_parts(100, 60.0), by_parts(1000, 3600.0))
"""Those that err towards refusal by design, by no more than they say."""


class Tally(NamedTuple):
    """What came of one row."""

    decisions: int
    refused: int
    false_refusals: int
    """Refused, though exactly it fits."""
    too_late: int
    """Refused, though it fits by what is documented too."""
    false_admissions: int
    """Admitted, though exactly it does not fit."""

    def plus(self, other: Tally) -> Tally:
        return Tally(*map(sum, zip(self, other, strict=True)))


class Nanoseconds(FakeClock):
    """A clock that is set to whole nanoseconds. A float keeps them apart for the first 23 days."""

    nanoseconds = SECOND

    def now(self) -> float:
        return self.nanoseconds / 1e9


KEYS = 4
DAYS = 20
"""How long a run lasts on that clock; then another begins, with a new limiter."""


class Run:
    """One limiter, and what is known exactly about it."""

    def __init__(self, row: Row, chance: random.Random) -> None:
        quota = row.quota
        rule = EXACT[quota.algorithm]
        per = Fraction(round(quota.per * SECOND), SECOND)
        self.clock = Nanoseconds()
        self.limiter = RateLimiter(quota, name="exact", store=MemoryStore(clock=self.clock))
        self.exact = [rule(quota.limit, per) for _ in range(KEYS)]
        self.documented = [rule(quota.limit, per + row.late) for _ in range(KEYS)]
        self.chance = chance
        self.most_cost = min(4, quota.limit)
        self.pace = round(quota.per * SECOND / quota.limit / KEYS)

    def decide(self) -> Tally:
        """Have the limiter decide once, and let some time pass."""
        key = self.chance.randrange(KEYS)
        cost = 1 if self.chance.random() < 0.9 else self.chance.randint(1, self.most_cost)
        now = Fraction(self.clock.nanoseconds, SECOND)
        decision = self.limiter.try_acquire(key, cost=cost)
        fits = self.exact[key].fits(now, cost)
        fits_as_documented = self.documented[key].fits(now, cost)
        if decision.allowed:
            self.exact[key].take(now, cost)
            self.documented[key].take(now, cost)
        self.clock.nanoseconds += step(self.chance, self.pace, round((decision.retry_after or 0) * SECOND))
        refused = not decision.allowed
        return Tally(1, refused, refused and fits, refused and fits_as_documented, not (refused or fits))


def compare(row: Row, decisions: int, *, seed: int) -> Tally:
    """Have limiters decide, compare each decision with the exact one, and return what came of it."""
    chance = random.Random(seed)
    run = Run(row, chance)
    total = Tally(0, 0, 0, 0, 0)
    for _ in range(decisions):
        if run.clock.nanoseconds > DAYS * 86_400 * SECOND:
            run = Run(row, chance)
        total = total.plus(run.decide())
    return total


def step(chance: random.Random, pace: int, wait: int) -> int:
    """Return the nanoseconds to the next call: mostly a burst, often the edge, otherwise about the pace."""
    kind = chance.random()
    if kind < 0.5:
        return 0
    if wait and kind < 0.7:
        return max(0, wait + chance.choice((-1, 0, 0, 1)))
    return chance.randrange(4 * pace)


def main(decisions: int = 1_000_000) -> None:
    """Print the table of docs/backend-figures.md."""
    print("| quota | decisions | refused | false refusals | beyond what is documented | false admissions |")
    print("|---|--:|--:|--:|--:|--:|")
    total = Tally(0, 0, 0, 0, 0)
    for number, row in enumerate((*ROWS, *BOUNDED)):
        tally = compare(row, decisions // len(ROWS) if row in ROWS else 100_000, seed=number)
        if row in ROWS:
            total = total.plus(tally)
        print(f"| {title(row)} | " + " | ".join(f"{figure:,}" for figure in tally) + " |", flush=True)
    print("| **all that is exact** | " + " | ".join(f"**{figure:,}**" for figure in total) + " |")


def title(row: Row) -> str:
    """Return the quota, and how late it may be."""
    quota = row.quota
    return f"{quota.limit} in {quota.per:g} s, {quota.algorithm}" + (
        f", up to {row.why} late" if row.why else ""
    )


if __name__ == "__main__":
    main()
