"""What a composition of policies comes to at worst: how many attempts, how many seconds.

Pure arithmetic on `Step`s, each of which says what one policy adds. Rules:
    - Attempts multiply: each attempt of an outer step runs all that the inner ones do.
    - Seconds add up: waiting before, all attempts one after the other, the delays between them.
    - What ends the work after some seconds caps all that is inside it. Where it can only ask for that, as
      with sync code, the attempt under way then goes on, and its seconds come on top.
    - Nothing is taken off for what a budget, a breaker or a mark would spare: the figures are bounds.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from resilience._core.retry import UPWARD_JITTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.retry import Limits


class Role(Enum):
    """What a step is there for."""

    DEADLINE = "deadline"
    LIMITER = "limiter"
    BULKHEAD = "bulkhead"
    REFUSAL = "refusal"
    """It may refuse a call under load, and never waits."""
    RETRY = "retry"
    BREAKER = "breaker"
    TIMEOUT = "timeout"
    STREAM = "stream timeout"
    """It limits the wait for each item, and not the whole."""
    HEDGE = "hedge"
    FALLBACK = "fallback"
    OTHER = "other"


class Step(NamedTuple):
    """What one policy adds to what is inside it."""

    role: Role
    name: str = ""
    attempts: int = 1
    """How often what is inside may run."""
    delays: float = 0.0
    """Seconds between attempts in all, by the policy's own settings."""
    asked: float = 0.0
    """The same, if the other side asks by `Retry-After` to wait for as long as the policy allows."""
    wait: float = 0.0
    """Seconds that it may wait before anything inside begins; infinity where nothing bounds that."""
    limit: float = inf
    """Seconds after which it ends what is inside."""
    budgeted: bool = True
    """Whether a budget caps its further attempts."""
    idempotent: bool = True
    """Whether it takes what is inside for what may be repeated at will."""
    first_attempts: bool = False
    """Of a breaker: whether retries feed it first attempts only."""


class Worst(NamedTuple):
    """The worst that a composition comes to."""

    attempts: int
    seconds: float
    """Infinity where nothing bounds them."""


def delays_of(limits: Limits) -> tuple[float, float]:
    """Return the seconds that a call's delays take at most: by backoff, and if longer ones are asked for.

    Example:
        >>> from resilience._core.backoff import Backoff
        >>> from resilience._core.retry import Limits
        >>> delays_of(Limits(3, 60.0, Backoff(0.5, 10.0, 2.0, "full")))
        (1.5, 132.0)
    """
    by_backoff = asked = 0.0
    drawn: float | None = None
    for attempt in range(1, limits.max_attempts):
        drawn = limits.backoff.delay(attempt, drawn, _highest)
        by_backoff += drawn
        asked += max(drawn, limits.max_retry_after * (1 + UPWARD_JITTER))
    return by_backoff, asked


def _highest() -> float:
    return 1.0


def worst(steps: Sequence[Step], call: Worst, *, interrupts: bool, asked: bool) -> Worst:
    """Return the worst that `steps` around one call come to.

    Args:
        steps: Outermost first.
        call: What the call itself comes to at worst.
        interrupts: Whether a step can end what is inside it, as it can with tasks.
        asked: Whether the other side asks for the longest delays.

    Example:
        >>> retry, timeout = Step(Role.RETRY, attempts=3, delays=1.5), Step(Role.TIMEOUT, limit=2.0)
        >>> worst([retry, timeout], Worst(1, inf), interrupts=True, asked=False)
        Worst(attempts=3, seconds=7.5)
        >>> worst([timeout, retry], Worst(1, 5.0), interrupts=False, asked=False)
        Worst(attempts=3, seconds=7.0)
    """
    attempts, seconds = call
    overrun = 0.0 if interrupts or call.seconds == inf else call.seconds
    for step in reversed(steps):
        attempts *= step.attempts
        delays = max(step.delays, step.asked) if asked else step.delays
        if step.role is Role.HEDGE:  # side by side: the last one begins after all delays, or when others end
            seconds = min(seconds * step.attempts, seconds + delays)
        else:
            seconds = seconds * step.attempts + delays
        seconds = min(seconds, step.limit + overrun) + step.wait
    outermost = min([step.limit for step in steps if step.role is Role.DEADLINE], default=inf)
    return Worst(attempts, min(seconds, outermost + overrun))
