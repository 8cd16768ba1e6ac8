"""The circuit breaker's state machine: pure, driven by `resilience.breaker`.

Rules:

- The transitions are the table `TRANSITIONS` and nothing else. What is not in it is refused, and changes
  nothing.
- A state lasts for one `Period`, which holds all that belongs to it. A transition is one assignment of a
  new period: whoever reads `Breaker.period` sees all of the old one or all of the new.
- The period is the generation. An outcome belongs to the period that admitted its call; if that is over,
  the outcome is late and ignored.
- While half-open a call needs a place. Places are leased: at most as many as successes are still missing,
  each settled once, or given back by itself when its lease has run out.
- Neutral outcomes say nothing about the dependency: they give a place back, and neither open nor close.
- Closed after it was open, it may let a growing share of the calls pass first. The period passes all once
  that is over, and from then on for good.

The caller holds its lock around every call of a method here.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience._core.ramp import Ramp
from resilience._core.window import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience._core.trip import Rule
    from resilience._core.window import Figures, Window


class State(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """Lets all pass, and counts."""
    OPEN = "open"
    """Rejects all until the recovery time is over."""
    HALF_OPEN = "half-open"
    """Lets a few probes pass, and judges by them."""
    FORCED_OPEN = "forced-open"
    """Rejects all until told otherwise."""
    FORCED_CLOSED = "forced-closed"
    """Lets all pass, and counts, but does not open."""


class Event(Enum):
    """What makes a breaker change; the value is the reason that people read."""

    TRIPPED = "too many failures"
    RECOVERY_OVER = "recovery time over"
    PROBES_SUCCEEDED = "probes succeeded"
    PROBE_FAILED = "probe failed"
    OPENED_ELSEWHERE = "opened by another process"
    CLOSED_ELSEWHERE = "closed by another process"
    FORCE_OPEN = "forced open"
    FORCE_CLOSE = "forced closed"
    RESET = "reset"


class Action(Enum):
    """What the period after a transition begins with."""

    COUNT = "an empty window, and the recovery time as first set"
    RAMP_UP = "the same, and a share of the calls that grows"
    REST = "the recovery time"
    REST_LONGER = "the recovery time, grown"
    REST_AS_TOLD = "what is left of another's recovery time"
    TEST = "places for probes"
    HOLD = "no end of its own"


TRANSITIONS: Final[Mapping[State, Mapping[Event, tuple[State, Action]]]] = {
    State.CLOSED: {
        Event.TRIPPED: (State.OPEN, Action.REST),
        Event.OPENED_ELSEWHERE: (State.OPEN, Action.REST_AS_TOLD),
        Event.FORCE_OPEN: (State.FORCED_OPEN, Action.HOLD),
        Event.FORCE_CLOSE: (State.FORCED_CLOSED, Action.COUNT),
        Event.RESET: (State.CLOSED, Action.COUNT),
    },
    State.OPEN: {
        Event.RECOVERY_OVER: (State.HALF_OPEN, Action.TEST),
        Event.OPENED_ELSEWHERE: (State.OPEN, Action.REST_AS_TOLD),
        Event.CLOSED_ELSEWHERE: (State.CLOSED, Action.RAMP_UP),
        Event.FORCE_OPEN: (State.FORCED_OPEN, Action.HOLD),
        Event.FORCE_CLOSE: (State.FORCED_CLOSED, Action.COUNT),
        Event.RESET: (State.CLOSED, Action.COUNT),
    },
    State.HALF_OPEN: {
        Event.PROBES_SUCCEEDED: (State.CLOSED, Action.RAMP_UP),
        Event.PROBE_FAILED: (State.OPEN, Action.REST_LONGER),
        Event.OPENED_ELSEWHERE: (State.OPEN, Action.REST_AS_TOLD),
        Event.CLOSED_ELSEWHERE: (State.CLOSED, Action.RAMP_UP),
        Event.FORCE_OPEN: (State.FORCED_OPEN, Action.HOLD),
        Event.FORCE_CLOSE: (State.FORCED_CLOSED, Action.COUNT),
        Event.RESET: (State.CLOSED, Action.COUNT),
    },
    State.FORCED_OPEN: {
        Event.FORCE_CLOSE: (State.FORCED_CLOSED, Action.COUNT),
        Event.RESET: (State.CLOSED, Action.COUNT),
    },
    State.FORCED_CLOSED: {
        Event.FORCE_OPEN: (State.FORCED_OPEN, Action.HOLD),
        Event.RESET: (State.CLOSED, Action.COUNT),
    },
}


class Outcome(Enum):
    """How a call ended, as far as its dependency is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEUTRAL = "neutral"


class Policy(NamedTuple):
    """The settings of a breaker; checked by who makes it."""

    rule: Rule
    recovery_time: float
    """Seconds that it stays open at least."""
    recovery_jitter: float
    """The largest share of the recovery time that chance adds."""
    recovery_growth: float
    """What the recovery time is multiplied by when a probe failed."""
    max_recovery_time: float
    """Seconds that growth ends at."""
    probes: int
    """How many probes must succeed to close it, and how many may be in flight."""
    lease: float
    """Seconds after which a probe that has not ended loses its place."""
    ramp_up: float = 0.0
    """Seconds for which a share of the calls grows, once probes have closed it; 0 for none."""


class Period:
    """One generation: the time from one change to the next, and what belongs to it.

    Everything but `passes`, `until`, `leases`, `tickets` and `successes` is fixed, so it may be read without
    a lock. `passes` becomes true at most once, and stays so.
    """

    __slots__ = (
        "began",
        "counts",
        "figures",
        "generation",
        "leases",
        "passes",
        "ramp",
        "rest",
        "state",
        "successes",
        "tickets",
        "until",
        "window",
    )

    def __init__(
        self,
        state: State,
        generation: int,
        began: float,
        window: Window,
        figures: Figures = NOTHING,
        rest: float = 0.0,
        ramp: Ramp | None = None,
    ) -> None:
        self.state = state
        self.generation = generation
        self.began = began
        self.counts = state is State.CLOSED or state is State.FORCED_CLOSED
        """Whether calls pass, and are counted."""
        self.ramp = ramp
        """What lets a share of them pass first."""
        self.passes = self.counts and ramp is None
        """Whether all calls pass."""
        self.window = window
        """What counts the calls of this generation, where they pass; elsewhere the last that did."""
        self.figures = figures
        """What the window held when the breaker opened, where calls do not pass."""
        self.rest = rest
        """Seconds that it stays open; 0 unless it is open."""
        self.until = began + rest if rest else -inf
        """The instant before which every call is rejected; infinity where held open."""
        self.tickets = 0
        """How many places have been given out, while half-open."""
        self.leases: dict[int, float] = {}
        """When the lease of each ticket in flight runs out."""
        self.successes = 0
        """How many probes have succeeded."""


class Change(NamedTuple):
    """A transition that took place."""

    before: State
    after: State
    reason: str
    figures: Figures
    retry_after: float
    """Seconds until the first probe is let in; 0 unless it opened, infinity while it is held open."""


class Grant(NamedTuple):
    """The right to run once."""

    period: Period
    ticket: int
    """Which place it holds, counted from 1; 0 where it needs none."""
    deadline: float
    """When its lease runs out; infinity where it holds no place."""
    change: Change | None
    """The transition that this admission caused."""


class Breaker:
    """A circuit breaker without a clock, a lock or a caller.

    Args:
        policy: The settings.
        now: When it begins, closed.
    """

    __slots__ = ("_recovery_time", "period", "policy")

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.period = Period(State.CLOSED, 1, now, policy.rule.fresh(now))
        self._recovery_time = policy.recovery_time

    def admit(self, now: float) -> Grant | None:
        """Let a call in, or return None where it is rejected."""
        period = self.period
        change = None
        if period.state is State.OPEN and self.retry_after(now) <= 0:
            change = self.apply(Event.RECOVERY_OVER, now)
            period = self.period
        if period.passes or (period.ramp is not None and self._ramp_admits(period, period.ramp, now)):
            return Grant(period, 0, inf, change)
        if period.state is State.HALF_OPEN and (ticket := self._take_place(now)):
            deadline = period.leases[ticket] = now + self.policy.lease
            return Grant(period, ticket, deadline, change)
        return None

    def settle(
        self,
        period: Period,
        ticket: int,
        outcome: Outcome,
        now: float,
        draw: float = 0.0,
        *,
        slow: bool = False,
    ) -> Change | None:
        """Take the outcome of a call that was admitted in `period` with `ticket`.

        Args:
            period: The period of its grant.
            ticket: The ticket of its grant.
            outcome: How it ended.
            now: When it ended.
            draw: A random number from 0 to 1, in case the breaker opens.
            slow: Whether it took too long; a slow probe has failed.
        """
        if period is not self.period:
            return None  # late: its generation is over
        if ticket:
            return self._settle_probe(ticket, outcome, now, draw, slow=slow)
        if outcome is Outcome.NEUTRAL:
            return None
        failed = outcome is Outcome.FAILURE
        if not failed and not slow:
            period.window.succeed(now)
            return None
        period.window.add(now, failed=failed, slow=slow)
        reason = self.policy.rule.judge(period.window.figures(now))
        return None if reason is None else self.apply(Event.TRIPPED, now, draw, reason)

    def _settle_probe(
        self, ticket: int, outcome: Outcome, now: float, draw: float, *, slow: bool
    ) -> Change | None:
        self._end_leases(now)
        if self.period.leases.pop(ticket, None) is None or outcome is Outcome.NEUTRAL:
            return None
        if outcome is Outcome.FAILURE or slow:
            return self.apply(Event.PROBE_FAILED, now, draw)
        if self.period.successes + 1 == self.policy.probes:
            return self.apply(Event.PROBES_SUCCEEDED, now)
        self.period.successes += 1
        return None

    def apply(self, event: Event, now: float, draw: float = 0.0, reason: str = "") -> Change | None:
        """Make the transition that `TRANSITIONS` holds for `event`; if it holds none, change nothing."""
        before = self.period
        transition = TRANSITIONS[before.state].get(event)
        if transition is None:
            return None
        state, action = transition
        figures = self.figures(now)
        self.period = after = self._begin(state, action, figures, now, draw)
        return Change(before.state, state, reason or event.value, figures, after.rest)

    def _begin(self, state: State, action: Action, figures: Figures, now: float, draw: float) -> Period:
        policy = self.policy
        number = self.period.generation + 1
        if action is Action.COUNT or action is Action.RAMP_UP:
            self._recovery_time = policy.recovery_time
            ramp = Ramp(policy.ramp_up, now) if action is Action.RAMP_UP and policy.ramp_up else None
            return Period(state, number, now, policy.rule.fresh(now), ramp=ramp)
        rest = self._rest_as_told() if action is Action.REST_AS_TOLD else 0.0
        if action is Action.REST_LONGER:
            self._recovery_time = min(self._recovery_time * policy.recovery_growth, policy.max_recovery_time)
        if action is Action.REST or action is Action.REST_LONGER:
            # Jitter only lengthens: the dependency gets the rest that was asked for.
            rest = self._recovery_time * (1.0 + policy.recovery_jitter * draw)
        elif action is Action.HOLD:
            rest = inf
        return Period(state, number, now, self.period.window, figures, rest)

    def go_on_by(self, policy: Policy, now: float) -> None:
        """Go on by other settings: in the same state, and with the same window if both count in the same way.

        Else one that counts begins a new generation, which counts afresh.
        """
        counts_alike = policy.rule.counts_as == self.policy.rule.counts_as
        self.policy = policy
        self._recovery_time = policy.recovery_time
        period = self.period
        if period.counts and not counts_alike:
            ramp = None if period.passes else period.ramp
            fresh = policy.rule.fresh(now)
            self.period = Period(period.state, period.generation + 1, now, fresh, ramp=ramp)

    def retry_after(self, now: float) -> float:
        """Return the seconds until a call may be let in; 0 if at once, infinity if held open.

        While only a share of the calls passes, it is the seconds until all do.
        """
        period = self.period
        if period.ramp is not None and not period.passes:
            return period.ramp.left(now)
        if period.state is State.OPEN:
            # A clock that was set back must not keep it open for longer than it rests.
            period.until = min(period.until, now + period.rest)
            return max(0.0, period.until - now)
        if period.state is State.HALF_OPEN and self._free_places(now) <= 0:
            return min(min(period.leases.values()) - now, self.policy.recovery_time)
        return inf if period.state is State.FORCED_OPEN else 0.0

    def figures(self, now: float) -> Figures:
        """Return what the window holds; unless closed, what it held when the breaker opened."""
        return self.period.window.figures(now) if self.period.counts else self.period.figures

    def last_trouble(self, now: float) -> float:
        """Return the last instant with a sign of trouble.

        Minus infinity if there was none; infinity while the breaker is held by hand.
        """
        period = self.period
        if period.state is State.CLOSED:
            _, failures, slow = period.window.figures(now)
            return period.window.last_trouble if failures or slow else -inf
        if period.state is State.OPEN or period.state is State.HALF_OPEN:
            return max([period.began + period.rest, *period.leases.values()])
        return inf

    @staticmethod
    def _ramp_admits(period: Period, ramp: Ramp, now: float) -> bool:
        """Say whether a call belongs to the share that passes; once that is all, let the period pass all."""
        period.passes = ramp.left(now) <= 0
        return period.passes or ramp.admits(now)

    def _rest_as_told(self) -> float:
        """Return what another process has said; `_core.shared` hears it."""
        return 0.0

    def _take_place(self, now: float) -> int:
        """Return the ticket of a place that was free, counted from 1, or 0 if none was."""
        if self._free_places(now) <= 0:
            return 0
        self.period.tickets += 1
        return self.period.tickets

    def _free_places(self, now: float) -> int:
        self._end_leases(now)
        return self.policy.probes - self.period.successes - len(self.period.leases)

    def _end_leases(self, now: float) -> None:
        """Drop the leases that have run out, and shorten those that a clock set back has made too long."""
        latest = now + self.policy.lease
        leases = self.period.leases
        self.period.leases = {ticket: min(end, latest) for ticket, end in leases.items() if end > now}
