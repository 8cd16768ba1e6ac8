"""When a breaker opens: the trip rules. Each brings the window it needs and judges what that has counted.

A rule is asked only when a call has failed or was slow: no success, and no mere passing of time, opens a
breaker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilience._core.window import CallWindow, Streak, TimeWindow

if TYPE_CHECKING:
    from resilience._core.window import Figures, Window


class Rule(Protocol):
    """What a breaker asks of a trip rule."""

    @property
    def threshold(self) -> float:
        """What the failures are held against: how many in a row, or which share of the calls."""
        ...

    @property
    def counts_as(self) -> object:
        """What its window depends on: rules of which this is equal can take over each other's."""
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

    @property
    def counts_as(self) -> object:
        """Nothing: a row is a row."""
        return ()

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

    @property
    def counts_as(self) -> object:
        """How far its window reaches."""
        return (self.seconds, None) if self.calls is None else (None, self.calls)

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
