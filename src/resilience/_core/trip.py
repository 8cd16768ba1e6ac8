"""When a breaker opens: the trip rules. Each brings the window it needs and judges what that has counted.

A rule is asked only when a call has failed or was slow: no success, and no mere passing of time, opens a
breaker.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilience._core.checks import check_count, check_seconds, check_share
from resilience._core.window import CallWindow, Streak, TimeWindow

if TYPE_CHECKING:
    from resilience._core.window import Figures, Window


class Rule(Protocol):
    """What a breaker asks of a trip rule."""

    @property
    def threshold(self) -> float:
        """What the failures are held against: how many in a row, or which share of the calls."""
        ...

    def fresh(self, now: float) -> Window:
        """Return an empty window for a new generation."""
        ...

    def judge(self, figures: Figures) -> str | None:
        """Return the reason to open, or None."""
        ...


class InARow(NamedTuple):
    """Open after `threshold` failures in a row."""

    threshold: float

    def fresh(self, now: float) -> Window:  # noqa: ARG002 - a row has no duration
        """Return an empty window for a new generation."""
        return Streak()

    def judge(self, figures: Figures) -> str | None:
        """Return the reason to open, or None."""
        return "failures in a row" if figures.failures >= self.threshold else None


class Ratio(NamedTuple):
    """Open when too large a share of the calls failed, or was slow.

    The window spans `seconds`, or `calls` where that is given.
    """

    threshold: float
    slow_threshold: float
    minimum_calls: int
    seconds: float
    calls: int | None

    def fresh(self, now: float) -> Window:
        """Return an empty window for a new generation."""
        return TimeWindow(self.seconds, now) if self.calls is None else CallWindow(self.calls)

    def judge(self, figures: Figures) -> str | None:
        """Return the reason to open, or None."""
        calls, failures, slow = figures
        if calls < self.minimum_calls:
            return None
        # Divided, not multiplied: 3 / 30 is the float 0.1, but 30 * 0.1 is more than 3.
        if failures / calls >= self.threshold:
            return "failure ratio"
        return "slow-call ratio" if slow / calls >= self.slow_threshold else None


def rule_of(
    failure_threshold: int | None,
    failure_ratio: float,
    minimum_calls: int,
    window: float,
    window_calls: int | None,
    slow_after: float | None,
    slow_ratio: float,
) -> Rule:
    """Return the trip rule that the arguments of a breaker mean, or refuse them."""
    if failure_threshold is not None:
        check_count("failure_threshold", failure_threshold)
        if (failure_ratio, minimum_calls, window, window_calls, slow_after) != (0.5, 5, 10.0, None, None):
            raise ValueError(
                f"failure_threshold={failure_threshold!r} counts failures in a row: leave it out to open by "
                "failure_ratio, minimum_calls, window, window_calls or slow_after"
            )
        return InARow(failure_threshold)
    check_share("failure_ratio", failure_ratio)
    check_share("slow_ratio", slow_ratio)
    check_count("minimum_calls", minimum_calls)
    check_seconds("window", window)
    if slow_after is not None:
        check_seconds("slow_after", slow_after)
    if window_calls is not None:
        check_count("window_calls", window_calls)
        if window_calls < minimum_calls:
            raise ValueError(
                f"window_calls={window_calls!r} is less than minimum_calls={minimum_calls!r}: such a breaker "
                "would never open"
            )
    return Ratio(
        failure_ratio, inf if slow_after is None else slow_ratio, minimum_calls, window, window_calls
    )
