"""What a run came to: levels of service before, during and after; the time to recovery; the series."""

from __future__ import annotations

from bisect import bisect_left
from hashlib import sha256
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience.simulation.log import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilience.simulation.log import Log
    from resilience.simulation.scenario import Scenario

RECOVERED: Final = 0.99
"""The share of the level before at which service counts as recovered."""

HOLD: Final = 10.0
"""Seconds over which it must be held."""

_STEP: Final = 10
"""How many instants of a second are tried for the recovery."""


class Level(NamedTuple):
    """Service over some time."""

    offered: float
    """Calls per second that were begun."""
    ended: float
    """Of those, how many per second ended before the run did."""
    goodput: float
    """Of those, how many per second succeeded, sooner or later."""
    attempts: float
    """Attempts per second, whichever call they were for."""

    @property
    def share(self) -> float:
        """The share of the calls that ended which succeeded; 1 if there was none."""
        return self.goodput / self.ended if self.ended else 1.0

    @property
    def amplification(self) -> float:
        """Attempts per call; 0 if there was none."""
        return self.attempts / self.offered if self.offered else 0.0


class Series(NamedTuple):
    """What happened in each second: one list each, one place for each second."""

    offered: list[int]
    """Calls that were begun."""
    good: list[int]
    """Calls that were begun in it and succeeded, sooner or later."""
    goodput: list[int]
    """Calls that succeeded in it, whenever they began."""
    failed: list[int]
    """Calls that failed in it after at least one attempt."""
    rejected: list[int]
    """Calls that a client's policy rejected in it, without any attempt."""
    attempts: list[int]
    """Attempts that were sent."""
    refused: list[int]
    """Attempts that a server refused."""
    wasted: list[int]
    """Pieces of work that a server did for nobody."""
    waiting: list[int]
    """What waited on all servers, at the beginning of the second."""


class Result:
    """What a run came to.

    Times are seconds since the beginning of the run. A call counts for the second in which it began, and as
    good if it succeeded at last; so a share is one of the same calls, without the noise of arrivals.

    Args:
        scenario: What was run.
        log: What was written down.
    """

    def __init__(self, scenario: Scenario, log: Log) -> None:
        self.scenario = scenario
        self.log = log

    # --- levels ----------------------------------------------------------------------------------

    def level(self, start: float, end: float, shards: tuple[int, ...] | None = None) -> Level:
        """Return the service from `start` to `end`.

        Args:
            start: Seconds since the beginning.
            end: Seconds since the beginning, after `start`.
            shards: Count only calls to these, and attempts by the beginning of their call; None for all.
        """
        log = self.log
        first, last = bisect_left(log.began, start), bisect_left(log.began, end)
        seconds = end - start
        if seconds <= 0:
            return Level(0.0, 0.0, 0.0, 0.0)
        if shards is None:
            outcomes: Sequence[int] = log.outcome[first:last]
            sent = bisect_left(log.sent, end) - bisect_left(log.sent, start)
        else:
            places = [place for place in range(first, last) if log.shard[place] in shards]
            outcomes = [log.outcome[place] for place in places]
            sent = sum(log.attempts[place] for place in places)
        ended = len(outcomes) - outcomes.count(Outcome.UNFINISHED)
        good = outcomes.count(Outcome.SUCCEEDED)
        return Level(len(outcomes) / seconds, ended / seconds, good / seconds, sent / seconds)

    @property
    def before(self) -> Level:
        """The service after the warm-up and before the first trigger."""
        return self.level(min(self.scenario.warm_up, self.scenario.begins), self.scenario.begins)

    @property
    def during(self) -> Level:
        """The service from the first trigger until the last is over."""
        return self.level(self.scenario.begins, self.scenario.ends)

    @property
    def after(self) -> Level:
        """The service from then on."""
        return self.level(self.scenario.ends, self.scenario.duration)

    # --- recovery --------------------------------------------------------------------------------

    @property
    def recovery_time(self) -> float | None:
        """Seconds from the end of the last trigger until service is back, to a tenth; None if it never is.

        It is back at the first instant from which, over 10 s, at least 99 % of the share before succeeds.
        That allows for a tenth of a second of failures, no more, at the beginning of those 10 s.
        """
        needed = RECOVERED * self.before.share
        start = self.scenario.ends
        steps = int((self.scenario.duration - HOLD - start) * _STEP)
        for step in range(steps + 1):
            begin = start + step / _STEP
            level = self.level(begin, begin + HOLD)
            if level.ended and level.share >= needed:
                return step / _STEP
        return None

    def stays_below(self, share: float) -> float:
        """Return for how many seconds after the last trigger none has `share` of the level before.

        This is how long a collapse lasts at least: the whole rest of the run, where nothing ends it.
        """
        needed = share * self.before.share
        start = self.scenario.ends
        for second in range(int(self.scenario.duration - start)):
            level = self.level(start + second, start + second + 1)
            if level.ended and level.share >= needed:
                return float(second)
        return self.scenario.duration - start

    # --- amplification ---------------------------------------------------------------------------

    @property
    def amplification(self) -> float:
        """Attempts per call, over the whole run."""
        return self.level(0.0, self.scenario.duration).amplification

    def peak_amplification(self, window: float = 10.0) -> float:
        """Return the most attempts per call over any `window` seconds, in steps of one second.

        A window of some timeouts tells how much more the servers get. In a shorter one, retries of calls
        that began before it are set against too few.
        """
        last = int(self.scenario.duration - window)
        return max((self.level(at, at + window).amplification for at in range(last + 1)), default=0.0)

    # --- series ----------------------------------------------------------------------------------

    @property
    def series(self) -> Series:
        """What happened in each second."""
        log = self.log
        calls = list(zip(log.began, log.ended, log.outcome, strict=True))
        return Series(
            self._counted(log.began),
            self._counted(began for began, _, outcome in calls if outcome == Outcome.SUCCEEDED),
            self._counted(ended for _, ended, outcome in calls if outcome == Outcome.SUCCEEDED),
            self._counted(ended for _, ended, outcome in calls if outcome == Outcome.FAILED),
            self._counted(ended for _, ended, outcome in calls if outcome == Outcome.REJECTED),
            self._counted(log.sent),
            self._counted(log.refusals),
            self._counted(log.wasted_at),
            log.waiting[: ceil(self.scenario.duration)].tolist(),
        )

    def _counted(self, instants: Iterable[float]) -> list[int]:
        counts = [0] * ceil(self.scenario.duration)
        for instant in instants:
            if instant < self.scenario.duration:
                counts[int(instant)] += 1
        return counts

    def latency(self, share: float, start: float = 0.0, end: float | None = None) -> float | None:
        """Return the seconds within which `share` of the calls that succeeded did so; None if none did.

        Only calls that began from `start` to `end` count.
        """
        log = self.log
        first = bisect_left(log.began, start)
        last = bisect_left(log.began, self.scenario.duration if end is None else end)
        taken = sorted(
            log.ended[place] - log.began[place]
            for place in range(first, last)
            if log.outcome[place] == Outcome.SUCCEEDED
        )
        return taken[min(len(taken) - 1, int(share * len(taken)))] if taken else None

    # --- identity --------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """A digest of every call and attempt: two runs with the same one were the same to the last bit."""
        log = self.log
        return sha256(
            b"".join(
                array.tobytes()
                for array in (log.began, log.ended, log.outcome, log.attempts, log.sent, log.refusals)
            )
        ).hexdigest()

    def __repr__(self) -> str:
        """Show what matters most."""
        recovery = "never" if self.recovery_time is None else f"{self.recovery_time:g} s"
        return (
            f"<Result of {self.scenario.name!r}: goodput {self.before.share:.1%} before, "
            f"{self.during.share:.1%} during, {self.after.share:.1%} after; recovery {recovery}; "
            f"amplification {self.amplification:.2f}>"
        )
