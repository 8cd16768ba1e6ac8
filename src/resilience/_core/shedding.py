"""What a server refuses when it has more to do than it can: pure, driven by `resilience.shedding`.

Work that is begun too late is done for nobody, and it takes the time of work that could still be in time. So
a server that is behind must not work off what has waited longest. Rules:
    - Work is refused where its deadline leaves less time than nine of ten pieces of its kind have needed.
      That is a quantile and not a mean, because a mean is too short for many: what was begun with just that
      much time left would be done in vain about as often as not.
    - The wait in line is bounded: for the least critical work by a quarter of the bound, for the next by half
      of it, and so on. So what matters least is refused first, while there is still time for the rest.
    - Before anything has waited, the wait is foreseen by Little's law: whoever is ahead, times the mean
      time that one takes, by the number of workers.
    - Only what has happened within the window is known. Less than `FEWEST` pieces say nothing, so an
      estimate that refuses everything lapses.

Sources: the SRE book, "Handling Overload" and "Addressing Cascading Failures"; Little (1961); and what was
simulated for this library (`docs/overload.md`).

The caller holds its lock around every call of a method here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience._core.criticality import Criticality

if TYPE_CHECKING:
    from collections.abc import Mapping

FEWEST: Final = 5
"""How many pieces of work an estimate needs."""

REMEMBERED: Final = 100
"""How many pieces of each kind are remembered at most: with nine tenths, ten of them are longer."""

MOST_KINDS: Final = 1000
"""How many kinds are known at a time; a further one takes the place of the one least in use."""

SHARES: Final[Mapping[Criticality, float]] = {level: (level + 1) / len(Criticality) for level in Criticality}
"""How much of the bound on waiting each level may use: a quarter, a half, three quarters, all."""


class Durations:
    """How long the last pieces of one kind of work have taken.

    Args:
        window: Seconds for which one is remembered.
    """

    __slots__ = ("_by_length", "_by_time", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._by_time: deque[tuple[float, float]] = deque()
        self._by_length: list[float] = []

    def add(self, now: float, seconds: float) -> None:
        """Remember a piece that ended at `now`."""
        self._forget(now)
        if len(self._by_time) >= REMEMBERED:
            self._forget_oldest()
        self._by_time.append((now, seconds))
        insort(self._by_length, seconds)

    def known(self, now: float) -> int:
        """Return how many are remembered."""
        self._forget(now)
        return len(self._by_length)

    def mean(self, now: float) -> float | None:
        """Return the mean in seconds; None where too little is known."""
        known = self.known(now)
        return sum(self._by_length) / known if known >= FEWEST else None

    def quantile(self, now: float, share: float) -> float | None:
        """Return the seconds that are enough for `share` of them; None where too little is known."""
        known = self.known(now)
        return self._by_length[ceil(share * known) - 1] if known >= FEWEST else None

    def _forget(self, now: float) -> None:
        # One that lies in the future is from before the clock was set back: it must not stay for longer.
        while self._by_time and not now - self._window <= self._by_time[0][0] <= now:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, seconds = self._by_time.popleft()
        del self._by_length[bisect_left(self._by_length, seconds)]


class Policy(NamedTuple):
    """The settings of a shedder; checked by who makes it."""

    workers: int | None
    """How many pieces of work are done at a time; None where that is not known, and nothing is foreseen."""
    max_wait: float | None
    """Seconds that the most critical work may wait; None for no bound."""
    share: float
    """For what share of its kind the time that is left must be enough."""
    window: float
    """Seconds for which a piece of work is remembered."""


class Refusal(NamedTuple):
    """Why a piece of work is not to be done."""

    reason: str
    retry_after: float | None
    """Seconds after which it would be accepted if nothing else came; None where that is not known."""


class Shedder:
    """What a server knows of its work, and what it refuses."""

    __slots__ = ("_all", "_kinds", "_policy", "pending")

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._all = Durations(policy.window)
        self._kinds: dict[str, Durations] = {}
        self.pending = 0
        """How many pieces were admitted and have not ended."""

    def admit(self, kind: str, level: Criticality, left: float | None, now: float) -> Refusal | None:
        """Admit a piece of work that has come, or say why not.

        Args:
            kind: What kind of work it is.
            level: How much it matters.
            left: Seconds until its deadline; None without one.
            now: When it came.
        """
        wait = self.expected_wait(now)
        refusal = self._too_long(wait, level, "would be") or self._too_late(kind, wait, left, now)
        if refusal is None:
            self.pending += 1
        return refusal

    def begin(
        self, kind: str, level: Criticality, waited: float, left: float | None, now: float
    ) -> Refusal | None:
        """Say why a piece of work that has waited, and could begin now, is not to be done after all."""
        return self._too_long(waited, level, "was") or self._too_late(kind, 0.0, left, now)

    def end(self, kind: str, seconds: float | None, now: float) -> None:
        """Take the end of a piece that was admitted, and the seconds of its work, if they say anything."""
        self.pending -= 1
        if seconds is not None:
            self._all.add(now, seconds)
            self._of(kind).add(now, seconds)

    def expected_wait(self, now: float) -> float:
        """Return the seconds that what comes now would wait before its work begins."""
        workers = self._policy.workers
        if workers is None or self.pending < workers:
            return 0.0
        return (self.pending - workers + 1) * (self._all.mean(now) or 0.0) / workers

    def estimate(self, kind: str, now: float) -> float | None:
        """Return the seconds that are enough for most work of this kind; None where too little is known."""
        durations = self._kinds.get(kind)
        return None if durations is None else durations.quantile(now, self._policy.share)

    def _too_long(self, wait: float, level: Criticality, verb: str) -> Refusal | None:
        if self._policy.max_wait is None:
            return None
        bound = self._policy.max_wait * SHARES[level]
        if wait <= bound:
            return None
        return Refusal(
            f"the wait {verb} {wait:.3f} s, and {level.name.lower()} work waits no longer than {bound:.3f} s",
            wait - bound,
        )

    def _too_late(self, kind: str, wait: float, left: float | None, now: float) -> Refusal | None:
        estimate = None if left is None else self.estimate(kind, now)
        if left is None or estimate is None or wait + estimate <= left:
            return None
        return Refusal(f"{left:.3f} s are left, and it takes {wait + estimate:.3f} s", None)

    def _of(self, kind: str) -> Durations:
        """Return what is known of a kind of which a piece has just ended."""
        durations = self._kinds.pop(kind, None) or Durations(self._policy.window)
        self._kinds[kind] = durations  # behind all others
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]
        return durations
