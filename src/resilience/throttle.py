"""A client that holds back part of its own calls while its dependency refuses them.

Each refusal costs the other side something too: a connection, a parsed request, an answer. A client that goes
on asking at full speed can keep a server busy with nothing but refusing. The rule is `_core.throttle`'s. It
never waits, so one object serves threads and event loops at the same time.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from resilience import checks, events
from resilience._core.throttle import Policy, Throttle
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

__all__ = ["AdaptiveThrottle", "AdaptiveThrottleStats"]


class AdaptiveThrottleStats(NamedTuple):
    """An adaptive throttle at one moment."""

    name: str
    requests: int
    """Requests that count, those that were refused here included."""
    accepts: int
    """Those of them that the dependency accepted."""
    probability: float
    """With which the next call is refused here."""
    refused: int
    """Calls that were refused here, since it was made."""


class AdaptiveThrottle(Admission[None]):
    """Refuses a share of the calls, which grows with the share of them that the dependency refuses.

    Args:
        ratio: How many calls are made for each that is accepted, before any is held back; at least 1. Nearer
            to 1 spares the dependency more, and takes longer to find out that it is well again.
        window: Seconds that a call counts, above 0 and up to 10: with 120 s, the share that is let through
            grows e-fold in 75 s after a total failure, which is far too slow.
        most: The largest share that is refused, from 0 to 0.9; else too little is asked to find out.
        overload: Which failures mean that the call was not accepted: types, predicates of an exception, or a
            tuple of either. Any other failure is an answer, and so is accepted.
        name: What errors, events and statistics call it; a number where left out.
        clock: Where time comes from.
        random: What decides: a function that returns a number from 0 up to, not including, 1.
        on_refused: Called with a `CallRefused` for each call that was refused here.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. A cancelled call is not counted.

    Example:
        >>> search = AdaptiveThrottle(name="search", random=lambda: 0.95)
        >>> for _ in range(3):
        ...     search.acquire().failure(TimeoutError())
        >>> search.stats().probability
        0.75
    """

    def __init__(
        self,
        ratio: float = 2.0,
        *,
        window: float = 10.0,
        most: float = 0.9,
        overload: Condition = is_overload,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        random: Callable[[], float] = random.random,
        on_refused: Listener | None = None,
    ) -> None:
        if not callable(random):
            raise TypeError(f"random={random!r} must be a function that returns a number from 0 to 1")
        policy = Policy(
            checks.number("ratio", ratio, least=1),
            checks.number("window", window, above=0, most=10),
            checks.number("most", most, least=0, most=0.9),
        )
        super().__init__("adaptive throttle", name, events.hooks(on_refused))
        self._is_overload = matcher(overload, "overload")
        self._now = clock.now
        self._random = random
        self._refused = 0
        self._core = Throttle(policy, clock.now())
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = bound_lock()

    def acquire(self) -> Permit[None]:
        """Return a permit for one call or block, to be settled when its outcome is known.

        Raises:
            OverloadedError: The call is held back.

        Example:
            >>> with AdaptiveThrottle().acquire():
            ...     print("the call")
            the call
        """
        self._admit()
        return Permit(self, None)

    guard = acquire

    def admission_of(self, fn: Callable[..., Any]) -> Callable[[], None]:  # noqa: ARG002 - all functions count alike
        """Return what admits a call."""
        return self._admit

    def _admit(self) -> None:
        now = self._now()
        if self._core.is_calm(now):
            return
        draw = self._random()
        with self._lock:
            admitted = self._core.admits(now, draw)
            self._refused += not admitted
        if not admitted:
            raise self._refusal("it refuses more calls than it accepts", None)

    def stats(self) -> AdaptiveThrottleStats:
        """Return its figures, all of the same instant."""
        now = self._now()
        with self._lock:
            requests, refused, _ = self._core.figures(now)
            probability = self._core.probability(now)
            return AdaptiveThrottleStats(self._name, requests, requests - refused, probability, self._refused)

    def take(self, ticket: None, error: Exception | None) -> None:  # noqa: ARG002 - a request is like any other
        """Take the outcome of a call; for permits and wrappers, once."""
        refused = error is not None and self._is_overload(error)
        now = self._now()
        if not refused and self._core.note_accepted(now):
            return
        with self._lock:
            if refused:
                self._core.rejected(now)
            else:
                self._core.accepted(now)

    def give_back(self, ticket: None) -> None:
        """Do nothing: a call that says nothing was not counted yet."""

    def __repr__(self) -> str:
        """Show its name, and with which probability it refuses."""
        return f"<AdaptiveThrottle {self._name!r}, refuses {self.stats().probability:.0%}>"
