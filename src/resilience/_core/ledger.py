"""What all processes know together of one breaker: kept by an engine, changed by reports, here worked out.

Rules:

- The ledger has a generation. It grows by at least one with each opening and closing, and is at least the
  engine's clock in microseconds, so that it goes on growing when an engine has lost its data.
- A report speaks of the generation that its process knows. If that is over, the report is late and changes
  nothing. If the engine knows less than the process, since it has lost data, the process's knowledge is
  written down first.
- While open it rejects for its rest; after that it gives out places for probes, each as a lease. At most as
  many are out as successes are still missing, over all processes. A lease that is not given back runs out.
- To open a closed one takes the votes of a quorum. A vote lasts as long as the voter's own recovery time.
- All instants are the engine's, so the clocks of the processes may differ. What goes out are the seconds that
  remain.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


KEPT: Final = 3600.0
"""Seconds for which a ledger in which nothing runs any more is kept, for processes that have been away."""


class News(NamedTuple):
    """What a process learns of a ledger, or knows of it already."""

    generation: int
    """The number of the opening or closing; 0 if there has been none."""
    is_open: bool
    remaining: float
    """Seconds until the first probe; 0 if at once, or closed."""
    recovery_time: float
    """Seconds that it rested, without the jitter: what grows when a probe fails."""
    successes: int
    """How many probes have succeeded, of those that must."""


NO_NEWS = News(0, is_open=False, remaining=0.0, recovery_time=0.0, successes=0)


class Report(NamedTuple):
    """What a process tells about its breaker."""

    voter: str
    """Who tells."""
    known: News
    """What it knew when it made this."""
    opens: bool = False
    """Whether its own breaker has opened."""
    closes: bool = False
    """Whether its own breaker has closed."""
    rest: float = 0.0
    """Seconds for which it has opened."""
    recovery_time: float = 0.0
    """The same without the jitter."""
    quorum: int = 1
    """How many processes must have opened, for all to."""
    succeeded: tuple[str, ...] = ()
    """The places of probes that have succeeded."""
    returned: tuple[str, ...] = ()
    """Places that are given back."""
    asked: tuple[str, ...] = ()
    """Names for places that it would like to have."""
    lease: float = 0.0
    """Seconds for which it would have them."""
    longest_lease: float = 0.0
    """Seconds for which another process may have one: each holds a place for as long as its callers need."""
    probes: int = 1
    """How many probes must succeed, and how many may be in flight."""


class Answer(NamedTuple):
    """What came of a report."""

    news: News
    accepted: bool
    """Whether the report was about the present generation."""
    granted: tuple[str, ...]
    """Which of the places that were asked for it has got."""


class Ledger(NamedTuple):
    """What an engine keeps of one breaker. All instants are seconds of the engine's clock."""

    generation: int = 0
    is_open: bool = False
    began: float = 0.0
    rest: float = 0.0
    """Seconds from `began` to the first probe."""
    recovery_time: float = 0.0
    successes: int = 0
    leases: Mapping[str, float] = {}
    """When the lease of each place that is out runs out."""
    votes: Mapping[str, float] = {}
    """Until when each process's opening counts, while closed."""

    def news(self, now: float) -> News:
        """Return what a process should know."""
        return News(self.generation, self.is_open, self.remaining(now), self.recovery_time, self.successes)

    def take(self, report: Report, now: float) -> tuple[Ledger, Answer]:
        """Return what the ledger is after a report, and the answer to it."""
        if self.generation > report.known.generation:
            return self, Answer(self.news(now), accepted=False, granted=())
        known = report.known
        ledger = self if self.generation == known.generation else _remembered(known, now)
        ledger = _settled(_without_lapsed(ledger, report, now), report)
        if report.opens:
            ledger = _opened(ledger, report, now)
        elif report.closes or ledger.successes >= report.probes:
            ledger = _closed(ledger, report, now)
        ledger, granted = _leased(ledger, report, now)
        return ledger, Answer(ledger.news(now), accepted=True, granted=granted)

    def keep_for(self, now: float) -> float:
        """Return the seconds after which it may be forgotten: those who know of it tell it again."""
        ends = [self.began + self.rest, *self.leases.values(), *self.votes.values()]
        return max(0.0, max(ends) - now) + KEPT

    def remaining(self, now: float) -> float:
        """Return the seconds until probes are let in; 0 if at once, or closed.

        Where the engine's clock was set back, that is the whole rest at most; if by more than that, nothing.
        """
        if not self.is_open or now < self.began - self.rest:
            return 0.0
        return min(max(0.0, self.began + self.rest - now), self.rest)


def _remembered(known: News, now: float) -> Ledger:
    """Return the ledger that an engine has lost, as far as one process knows it."""
    return Ledger(
        known.generation,
        is_open=known.is_open,
        began=now,
        rest=known.remaining,
        recovery_time=known.recovery_time,
        successes=known.successes,
    )


def _without_lapsed(ledger: Ledger, report: Report, now: float) -> Ledger:
    """Drop the leases and votes that have run out, and shorten what a clock set back has made too long."""
    latest_lease = now + max(report.lease, report.longest_lease)
    latest_vote = now + report.rest if report.opens else inf
    return ledger._replace(
        leases={place: min(end, latest_lease) for place, end in ledger.leases.items() if end > now},
        votes={voter: min(end, latest_vote) for voter, end in ledger.votes.items() if end > now},
    )


def _settled(ledger: Ledger, report: Report) -> Ledger:
    """Take back places, and count the successes of those that were still leased."""
    succeeded = ledger.leases.keys() & {*report.succeeded}
    ended = {*report.succeeded, *report.returned}
    return ledger._replace(
        successes=ledger.successes + len(succeeded),
        leases={place: end for place, end in ledger.leases.items() if place not in ended},
    )


def _opened(ledger: Ledger, report: Report, now: float) -> Ledger:
    """Open for all: again if it is open, and else if there are votes enough."""
    votes = {**ledger.votes, report.voter: now + report.rest}
    if not ledger.is_open and len(votes) < report.quorum:
        return ledger._replace(votes=votes)
    return Ledger(
        _generation_after(ledger, now),
        is_open=True,
        began=now,
        rest=report.rest,
        recovery_time=report.recovery_time,
    )


def _closed(ledger: Ledger, report: Report, now: float) -> Ledger:
    """Close for all; if it is closed, take the voter's own opening back."""
    if ledger.is_open:
        return Ledger(_generation_after(ledger, now), began=now)
    votes = {voter: end for voter, end in ledger.votes.items() if voter != report.voter}
    return ledger._replace(votes=votes)


def _leased(ledger: Ledger, report: Report, now: float) -> tuple[Ledger, tuple[str, ...]]:
    """Lease as many of the places that are asked for as there are; return which."""
    if not ledger.is_open or ledger.remaining(now) > 0:
        return ledger, ()
    free = max(0, report.probes - ledger.successes - len(ledger.leases))
    granted = report.asked[:free]
    leases = {**ledger.leases, **dict.fromkeys(granted, now + report.lease)}
    return ledger._replace(leases=leases), granted


def _generation_after(ledger: Ledger, now: float) -> int:
    return max(ledger.generation + 1, int(now * 1e6))
