"""The state machine of a breaker that shares its openings, probes and closings with other processes.

It decides by itself, as any breaker does, and never asks. A board carries reports to the ledger that all
processes have together (`_core.ledger`), and brings back answers and news. Rules:

- News of a generation that is not later than the one known changes nothing.
- What has happened here and is not known there is found by comparing: `_agreed` is the period that the
  ledger knows of. So nothing is queued, and whatever was missed is made up for by the next report.
- While half-open after an opening that all share, probes need places that were leased from the ledger. A
  caller that finds none is told to come back in `IDLE` seconds, and a place waits for it for `HELD`; where no
  caller is known of, for `IDLE`. If nobody has come by then, others may have it for a while; then it is asked
  for again, and waits longer. So who calls once in a minute finds one too. A place whose probe has ended is
  given back at once.
- Out of touch with the ledger, and after an opening that no quorum has joined, places are its own, as many as
  any breaker has. So they are where a caller has waited `PATIENCE` seconds for a word from the board.
- One that is held by hand hears news, but keeps to its state, and tells nothing. A reset is a closing.

The caller holds its lock around every call of a method here.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience._core.breaker import Breaker, Event, Outcome, State
from resilience._core.ledger import NO_NEWS, Report

if TYPE_CHECKING:
    from resilience._core.breaker import Change, Period, Policy
    from resilience._core.ledger import Answer, News

IDLE: Final = 1.0
"""Seconds after which a caller is told to come back, and after which places are asked for again; and for
which one waits that was leased before anybody called."""

HELD: Final = 3.0
"""Seconds for which one waits for a caller who was told to come back: somewhat longer than that takes."""

LONGEST_HELD: Final = 30.0
"""Seconds for which one waits at most, where callers have turned out to be rare."""

GOLDEN: Final = (5**0.5 - 1) / 2
"""Its multiples, without their whole parts, are spread evenly and never come round."""

PATIENCE: Final = 3.0
"""Seconds after which one that hears nothing from its board, which hangs perhaps, takes places of its own."""


class Sent(NamedTuple):
    """A report, and what it was made from."""

    report: Report
    period: Period
    """The period here that it speaks of."""
    made: float
    """When."""
    asked: tuple[int, ...]
    """The tickets of the places that it asks for."""
    ended: frozenset[int]
    """The tickets of the places that it gives back, successful or not."""


class SharedBreaker(Breaker):
    """A circuit breaker that hears of the others.

    Args:
        policy: The settings.
        now: When it begins, closed.
        quorum: How many processes must have opened for all to.
    """

    __slots__ = (
        "_again_at",
        "_agreed",
        "_ask_at",
        "_held",
        "_hold",
        "_known",
        "_offered",
        "_private",
        "_quorum",
        "_spare",
        "_succeeded",
        "_tickets",
        "_waiting_since",
        "_wanted",
        "in_touch",
    )

    def __init__(self, policy: Policy, now: float, quorum: int) -> None:
        super().__init__(policy, now)
        self._quorum = quorum
        self._tickets = 0
        self.in_touch = False
        """Whether the board reaches the ledger."""
        self._known = NO_NEWS
        self._agreed: Period = self.period
        """The last period that the ledger knows of."""
        self._private: Period | None = None
        """The last period that is this process's alone, since no quorum has joined its opening."""
        self._waiting_since = inf
        """When a caller first found no leased place, since the board was last heard of."""
        self.forget_places()

    def forget_places(self) -> None:
        """Forget all leased places: their generation is over, or they belong to a forked process's parent."""
        self._held: set[int] = set()
        """The tickets of all that are leased, or may be."""
        self._spare: dict[int, float] = {}
        """The tickets of those that wait for a caller, and until when."""
        self._succeeded: set[int] = set()
        """The tickets of those whose probes succeeded, which the ledger does not know yet."""
        self._wanted = 0
        """How many there are callers for."""
        self._ask_at = -inf
        """When to ask for more."""
        self._again_at = inf
        """When to ask for one for the next caller, since nobody came for the last."""
        self._hold = IDLE
        """For how long one waits for a caller."""
        self._offered = False
        """Whether one was asked for when the recovery time was over, before any caller came."""

    # --- what callers do: the same as of any breaker, but for where places come from --------------

    def apply(self, event: Event, now: float, draw: float = 0.0, reason: str = "") -> Change | None:
        """Make the transition that `TRANSITIONS` holds for `event`; if it holds none, change nothing."""
        before = self.period
        change = super().apply(event, now, draw, reason)
        if event is Event.RECOVERY_OVER:  # the same opening goes on, and so do the places that it was given
            self._agreed = self.period if self._agreed is before else self._agreed
            self._private = self.period if self._private is before else self._private
        elif change is not None:
            self._spare.clear()
            self._succeeded.clear()
            self._wanted = 0
            self._again_at, self._hold = inf, IDLE
        return change

    def retry_after(self, now: float) -> float:
        """Return the seconds until a call may be let in; 0 if at once, infinity if held open."""
        if self._leases_places(now):
            return 0.0 if self._free_places(now) > 0 else min(IDLE, self.policy.recovery_time)
        return super().retry_after(now)

    def _leases_places(self, now: float) -> bool:
        """Whether a probe needs a leased place."""
        return (
            self.in_touch
            and self.period.state is State.HALF_OPEN
            and self.period is not self._private
            and now - self._waiting_since < PATIENCE
        )

    def _free_places(self, now: float) -> int:
        own = super()._free_places(now)
        if not self._leases_places(now):
            return own
        self._drop_idle(now)
        return len(self._spare)

    def _take_place(self, now: float) -> int:
        leased = self._leases_places(now)
        if self._free_places(now) <= 0:
            if leased:
                self._wanted = min(self._wanted + 1, self.policy.probes)
                self._waiting_since = min(self._waiting_since, now)
                self._hold = max(self._hold, HELD)
            return 0
        if not leased:
            return self._next_ticket()
        return self._spare.popitem()[0]

    def _settle_probe(
        self, ticket: int, outcome: Outcome, now: float, draw: float, *, slow: bool
    ) -> Change | None:
        if outcome is not Outcome.SUCCESS or slow or not self._leases_places(now):
            return super()._settle_probe(ticket, outcome, now, draw, slow=slow)
        self._end_leases(now)
        if self.period.leases.pop(ticket, None) is not None:
            self._succeeded.add(ticket)
            self._wanted = max(self._wanted, 1)  # where one has come another will, and should find a place
        return None  # the ledger counts the successes of all, and closes

    def _rest_as_told(self) -> float:
        """Return the rest that the others have, but never more than this breaker could have by itself."""
        policy = self.policy
        longest = policy.max_recovery_time
        self._recovery_time = min(max(self._known.recovery_time, policy.recovery_time), longest)
        return min(self._known.remaining, longest * (1.0 + policy.recovery_jitter))

    # --- what a board does ------------------------------------------------------------------------

    def is_settled(self, news: News) -> bool:
        """Whether `news` is old, and there is nothing to tell. May be asked without the lock, to spare it."""
        return (
            self.in_touch
            and self._known.generation == news.generation
            and self._agreed is self.period
            and not (self._held or self._wanted)
        )

    def lose_touch(self) -> None:
        """Go on alone. Places that wait for a caller are given back when the ledger is in reach again."""
        self.in_touch = False
        self._spare.clear()

    def report(self, voter: str, now: float) -> Sent | None:
        """Return what to tell the ledger, if anything.

        Args:
            voter: The name of this breaker among its like in other processes.
            now: When this is.
        """
        period = self.period
        opens = closes = False
        if period is not self._agreed:
            opens = period.state is State.OPEN
            closes = period.state is State.CLOSED
            if not opens and not closes:
                self._agree()
        self._end_leases(now)
        self._drop_idle(now)
        ended = frozenset(self._held.difference(self._spare, period.leases))
        asked = self._ask(now)
        if not (opens or closes or ended or asked):
            return None
        report = self._statement(voter, now)._replace(
            opens=opens,
            closes=closes,
            rest=max(0.0, period.until - now) if opens else 0.0,
            recovery_time=self._recovery_time,
            quorum=self._quorum,
            succeeded=tuple(_place(voter, ticket) for ticket in ended & self._succeeded),
            returned=tuple(_place(voter, ticket) for ticket in ended - self._succeeded),
            asked=tuple(_place(voter, ticket) for ticket in asked),
        )
        return Sent(report, period, now, asked, ended)

    def reminder(self, voter: str, news: News, now: float) -> Report | None:
        """Return what tells the ledger again what it has lost, if by `news` it has."""
        return self._statement(voter, now) if news.generation < self._known.generation else None

    def hear(self, sent: Sent, answer: Answer, now: float) -> Change | None:
        """Take the answer to a report."""
        self._waiting_since = inf
        report = sent.report
        granted = {ticket for ticket in sent.asked if _place(report.voter, ticket) in answer.granted}
        self._held -= sent.ended.union(sent.asked) - granted
        self._succeeded -= sent.ended
        if not answer.accepted:
            return self.follow(answer.news, now)
        if report.opens or report.closes:
            self._know(answer.news)
            if self.period is sent.period:
                self._agree()
            return None
        change = self.follow(answer.news, now, Event.PROBES_SUCCEEDED)
        if self._follows_an_opening and answer.news.generation == self._known.generation:
            self._spare |= dict.fromkeys(granted, sent.made + report.lease - self.policy.lease)
            self._wanted = max(0, self._wanted - len(granted))
            self._ask_at = now + IDLE if len(granted) < len(sent.asked) else -inf
            self._again_at = inf if granted else self._again_at
        return change

    def follow(self, news: News, now: float, closed_by: Event = Event.CLOSED_ELSEWHERE) -> Change | None:
        """Take news of the ledger.

        Args:
            news: What it says.
            now: When that is heard.
            closed_by: What has closed it, if it was half-open here and is closed there.
        """
        self._waiting_since = inf
        if news.generation < self._known.generation:
            return None  # late: its generation is over
        if news.generation == self._known.generation:
            self._ask_at = -inf
            if self._follows_an_opening:
                self.period.successes = min(news.successes, self.policy.probes - 1)
            return None
        self._know(news)
        before = self.period.state
        if news.is_open:
            event = Event.OPENED_ELSEWHERE
        else:
            event = closed_by if before is State.HALF_OPEN else Event.CLOSED_ELSEWHERE
        change = self.apply(event, now)
        self._private, self._agreed = None, self.period
        return None if change is None or change.after is before else change

    def due_in(self, now: float) -> float:
        """Return the seconds until there is something to report even if nobody calls; infinity if never."""
        dues = [*self._spare.values()]
        if self.in_touch and self._follows_an_opening:
            if self.period.state is State.OPEN and not self._offered:
                dues.append(self.period.until)
            if self._wanted > len(self._spare):
                dues.append(self._ask_at)
            if not self._spare:
                dues.append(max(self._again_at, self._ask_at))
        return max(0.0, min(dues, default=inf) - now)

    @property
    def _follows_an_opening(self) -> bool:
        """Whether it is open or half-open because all are."""
        return (
            self._known.is_open
            and self.period is self._agreed
            and (self.period.state is State.OPEN or self.period.state is State.HALF_OPEN)
        )

    def _agree(self) -> None:
        """Note that the ledger knows of the present period, as an opening of all or else as a private one."""
        self._agreed = self.period
        self._private = None if self._known.is_open else self.period

    def _know(self, news: News) -> None:
        """Note what the ledger says; the places of a generation that is over are void."""
        self._known = news
        self.forget_places()

    def _statement(self, voter: str, now: float) -> Report:
        """Return a report of what is known, and of nothing else."""
        follows = self._follows_an_opening
        known = self._known._replace(
            remaining=max(0.0, self.period.until - now) if follows else 0.0,
            successes=self.period.successes if follows else 0,
        )
        lease = self.policy.lease
        return Report(
            voter,
            known,
            lease=lease + self._hold,
            longest_lease=lease + LONGEST_HELD,
            probes=self.policy.probes,
        )

    def _ask(self, now: float) -> tuple[int, ...]:
        """Return the tickets of places to ask for: those that callers want, or one when recovery is over."""
        if not self.in_touch or not self._follows_an_opening or now < self._ask_at:
            return ()
        if self.period.state is State.HALF_OPEN:
            missing = max(self._wanted, int(now >= self._again_at)) - len(self._spare)
        elif self._offered or self.retry_after(now) > 0:
            missing = 0
        else:
            missing, self._offered = 1, True
        asked = tuple(self._next_ticket() for _ in range(missing))
        self._held.update(asked)
        return asked

    def _drop_idle(self, now: float) -> None:
        """Part with places that no caller has come for; once half-open, ask for one again after a while."""
        kept = {ticket: until for ticket, until in self._spare.items() if until > now}
        if len(kept) == len(self._spare):
            return
        self._spare, self._wanted = kept, 0
        if self.period.state is State.HALF_OPEN:
            # Each time after another pause, or who calls once a minute might come in the pause every time.
            self._again_at = now + IDLE * (1.0 + self._tickets * GOLDEN % 1.0)
            self._hold = min(max(2.0 * self._hold, HELD), LONGEST_HELD)

    def _next_ticket(self) -> int:
        """Return a ticket of any period, so that a place of one that is over is taken for no other."""
        self._tickets += 1
        return self._tickets


def _place(voter: str, ticket: int) -> str:
    """Return the name of a leased place, unlike that of any other process."""
    return f"{voter}/{ticket}"
