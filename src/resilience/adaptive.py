"""A limit of calls in flight that finds out by itself how many a dependency can take.

The decisions are `_core.adaptive`'s; here are the lock, the clock and the predicate. Rules:

- It never waits: a call that is one too many is refused at once. So one object serves threads and event
  loops.
- Dropped, which cuts the limit, is a call that failed by overload (`resilience.is_overload`: refused by the
  other side, or timed out), or that took longer than `slow_after`. Other failures say nothing about the load.
- A neutral outcome is a note in a list that the next decision takes, since the garbage collector may bring
  one about in the middle of a decision, on the thread that holds the lock.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from resilience import checks, events
from resilience._core.adaptive import Aimd, Verdict
from resilience.admission import Admission, Permit
from resilience.clock import SYSTEM_CLOCK
from resilience.conditions import matcher
from resilience.fork import bound_lock, survive_fork
from resilience.overload import is_overload

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilience.clock import Clock
    from resilience.conditions import Condition
    from resilience.events import Listener

__all__ = ["AdaptiveLimit", "AdaptiveLimitStats"]

Flight = tuple[Aimd, int, float]
"""A call in flight: what counts it, since a fork begins another count; its generation; when it began."""


class AdaptiveLimitStats(NamedTuple):
    """An adaptive limit at one moment."""

    name: str
    limit: int
    """How many calls may be in flight."""
    in_flight: int
    refused: int
    """Calls that were one too many, since it was made."""
    cuts: int
    """How often the limit was cut, since it was made."""


class AdaptiveLimit(Admission[Flight]):
    """Lets as many calls be in flight as their dependency has shown that it can take.

    Args:
        initial: The limit at the beginning, from `minimum` to `maximum`.
        minimum: What it never falls below, at least 1. Leave it at 1 where there are many processes: together
            they keep that many calls in flight, whatever state the dependency is in.
        maximum: What it never exceeds.
        cut: What one dropped call, or several in one round trip, multiply it by; above 0 and below 1.
        slow_after: Seconds after which a call that succeeded counts as dropped, above 0; None for never.
        overload: Which failures are drops: types, predicates of an exception, or a tuple of either.
        name: What errors, events and statistics call it; a number where left out.
        clock: Where time comes from; read only where `slow_after` is given.
        on_refused: Called with a `CallRefused` for each call that was one too many.
        on_change: Called with an `AdaptiveLimitChanged` when the limit has become another whole number.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. A cancelled call is neutral. A forked child knows what its
    parent knew, and begins with no calls in flight.

    Example:
        >>> search = AdaptiveLimit(initial=2, name="search")
        >>> def find(text: str) -> str:
        ...     raise TimeoutError("no answer within 1 s")
        >>> try:
        ...     search.execute(find, "engine")
        ... except TimeoutError:
        ...     search.limit
        1
    """

    def __init__(
        self,
        initial: int = 20,
        *,
        minimum: int = 1,
        maximum: int = 200,
        cut: float = 0.5,
        slow_after: float | None = None,
        overload: Condition = is_overload,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_refused: Listener | None = None,
        on_change: Listener | None = None,
    ) -> None:
        checks.count("minimum", minimum, least=1)
        checks.count("maximum", maximum, least=minimum)
        if not minimum <= checks.count("initial", initial, least=1) <= maximum:
            raise ValueError(f"initial must be from minimum={minimum} to maximum={maximum}, not {initial!r}")
        cut = checks.number("cut", cut, above=0)
        if cut >= 1:
            raise ValueError(f"cut must be below 1, not {cut!r}: it is what the limit is multiplied by")
        super().__init__("adaptive limit", name, events.hooks(on_refused))
        self._slow_after = inf if slow_after is None else checks.number("slow_after", slow_after, above=0)
        self._is_drop = matcher(overload, "overload")
        self._now = clock.now
        self._on_change = events.hooks(on_change)
        self._refused = 0
        self._core = Aimd(float(initial), minimum, maximum, cut)
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and let no calls be in flight: the parent's other threads do not exist here."""
        self._lock = bound_lock()
        self._core = self._core.afresh()
        self._given_back: deque[Aimd] = deque()

    @property
    def limit(self) -> int:
        """How many calls may be in flight. Takes no lock."""
        return self._core.calls

    def acquire(self) -> Permit[Flight]:
        """Return a permit for one call or block, to be settled when its outcome is known.

        Raises:
            OverloadedError: As many calls are in flight as may be.

        Example:
            >>> with AdaptiveLimit().acquire():
            ...     print("the call")
            the call
        """
        return Permit(self, self._admit())

    guard = acquire

    def admission_of(self, fn: Callable[..., Any]) -> Callable[[], Flight]:  # noqa: ARG002 - all functions count alike
        """Return what admits a call."""
        return self._admit

    def _admit(self) -> Flight:
        began = self._now() if self._slow_after < inf else 0.0
        with self._lock:
            if self._given_back:
                self._take_back()
            core = self._core
            generation = core.admit()
            if generation is None:
                self._refused += 1
        if generation is None:
            raise self._refusal(f"all {core.calls} calls of the limit are in flight", None)
        return core, generation, began

    def stats(self) -> AdaptiveLimitStats:
        """Return its figures, all of the same instant."""
        with self._lock:
            self._take_back()
            core = self._core
            return AdaptiveLimitStats(
                self._name, core.calls, core.in_flight, self._refused, core.generation - 1
            )

    def take(self, ticket: Flight, error: Exception | None) -> None:
        """Take the outcome of a call; for permits and wrappers, once."""
        core, generation, began = ticket
        if error is None:
            slow = self._slow_after < inf and self._now() - began > self._slow_after
            verdict = Verdict.DROPPED if slow else Verdict.SERVED
        else:
            verdict = Verdict.DROPPED if self._is_drop(error) else Verdict.NEUTRAL
        with self._lock:
            before = core.calls
            core.settle(generation, verdict)
            after = core.calls
        if after != before and events.is_heard(self._on_change):
            events.publish(events.AdaptiveLimitChanged(self._name, before, after), self._on_change)

    def give_back(self, ticket: Flight) -> None:
        """Take the neutral outcome of a call; for permits and wrappers, once."""
        self._given_back.append(ticket[0])  # atomic, also without the GIL

    def _take_back(self) -> None:
        """Take the neutral outcomes that were noted. The caller holds the lock."""
        while self._given_back:
            self._given_back.popleft().settle(0, Verdict.NEUTRAL)

    def __repr__(self) -> str:
        """Show its name and its limit."""
        return f"<AdaptiveLimit {self._name!r}, {self.limit}>"
