"""The limiter against exact rational arithmetic, and against an adversary.

`benchmarks.exact` has the comparison: the production `RateLimiter` decides on a clock of whole nanoseconds,
and each decision is compared with what fractions say. Here it is held to no difference at all.

The adversary knows the limit and the clock. It asks just when a limiter is apt to err: in a burst at the end
of a window, at the instant at which a unit comes back, and a nanosecond before and after it. What was
admitted is looked at from outside, without any rule: the most in any window of that length.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Final, Literal

from benchmarks.exact import BOUNDED, DAYS, ROWS, SECOND, Nanoseconds, compare, title
from experiments import at_most, compared
from resilience import Quota, RateLimiter
from resilience.simulation.charts import Line, Panel, Shade, svg
from resilience.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments import Mark, Progress

Algorithm = Literal["sliding-window", "gcra", "fixed-window"]

TITLE: Final = "The limiter against exact arithmetic and an adversary"

ALGORITHMS: Final[tuple[Algorithm, ...]] = ("sliding-window", "gcra", "fixed-window")

LIMIT, WINDOW = 64, 60.0
"""What the figure is about: units, and seconds."""

STRICT: Final = (
    Quota(1, per=1.0),
    Quota(6, per=900.0),
    Quota(LIMIT, per=WINDOW),
    Quota(100, per=60.0),
    Quota(1000, per=3600.0),
)
"""Sliding windows, exact and by parts, which promise never more than the limit."""

LOOSE: Final = (
    Quota(LIMIT, per=WINDOW, algorithm="fixed-window"),
    Quota(LIMIT, per=WINDOW, algorithm="gcra"),
)
"""What passes more by design: 2N at a window's edge, and 2N - 1 in one window."""


def attack(quota: Quota, asked: int, *, seed: int) -> list[int]:
    """Ask a limiter so often, at the worst instants; return when it admitted a unit, in nanoseconds."""
    chance = Random(seed)
    clock = Nanoseconds()
    limiter = RateLimiter(quota, name="adversary", store=MemoryStore(clock=clock))
    window = round(quota.per * SECOND)
    begun = clock.nanoseconds
    admitted: list[int] = []
    for _ in range(asked):
        decision = limiter.try_acquire("one")
        now = clock.nanoseconds
        if decision.allowed:
            admitted.append(now)
        tires = 0.3 if not decision.allowed else min(0.3, 1 / quota.limit)
        if chance.random() > tires:
            continue  # a burst, mostly until it is refused
        kind = chance.random()
        if decision.retry_after is not None and kind < 0.6:
            step = round(decision.retry_after * SECOND) + chance.choice((-1, 0, 0, 1))
        elif kind < 0.9:
            step = window - (now - begun) % window + chance.choice((-1, 0, 1))  # the edge of a fixed window
        else:
            step = chance.randrange(window)
        clock.nanoseconds = now + max(0, step)
        if clock.nanoseconds > DAYS * 86_400 * SECOND:
            break  # a float tells nanoseconds apart only so long
    return admitted


def most_in_a_window(admitted: Sequence[int], window: int) -> int:
    """Return the most units in any window of so many nanoseconds; it holds its beginning, not its end."""
    recent: deque[int] = deque()
    most = 0
    for now in admitted:
        recent.append(now)
        while recent[0] <= now - window:
            recent.popleft()
        most = max(most, len(recent))
    return most


@cache
def burst_at_the_edge(algorithm: Algorithm) -> list[tuple[float, float]]:
    """Return how many units were admitted in the window before each second, of a burst at a window's edge."""
    clock = Nanoseconds()
    limiter = RateLimiter(
        Quota(LIMIT, per=WINDOW, algorithm=algorithm), name="edge", store=MemoryStore(clock=clock)
    )
    window = round(WINDOW * SECOND)
    recent: deque[int] = deque()
    points: list[tuple[float, float]] = []
    for second in range(1, 4 * int(WINDOW)):
        clock.nanoseconds = second * SECOND
        asked = 1 if second == 1 else 2 * LIMIT if second >= WINDOW else 0  # the first opens a fixed window
        for _ in range(asked):
            if limiter.try_acquire("one").allowed:
                recent.append(clock.nanoseconds)
        while recent and recent[0] <= clock.nanoseconds - window:
            recent.popleft()
        points.append((float(second), float(len(recent))))
    return points


def run(long: bool, progress: Progress) -> list[Mark]:
    """Return by how much decisions differ from exact ones, and what an adversary gets."""
    decisions, asked = (1_000_000, 300_000) if long else (16_000, 5_000)
    steps = len(ROWS) + len(BOUNDED) + len(STRICT) + len(LOOSE)
    done = 0
    decided = mismatches = 0
    for number, row in enumerate(ROWS):
        tally = compare(row, decisions // len(ROWS), seed=number)
        decided += tally.decisions
        mismatches += tally.false_refusals + tally.false_admissions
        progress((done := done + 1) / steps)
    marks = [at_most(f"mismatches in {decided:,} decisions", mismatches, 0, digits=0)]
    for number, row in enumerate(BOUNDED):
        tally = compare(row, decisions // 10, seed=number)
        wrong = tally.too_late + tally.false_admissions
        name = f"{title(row)}: wrong in {tally.decisions:,}"
        marks.append(at_most(name, wrong, 0, digits=0))
        progress((done := done + 1) / steps)
    for number, quota in enumerate((*STRICT, *LOOSE)):
        admitted = attack(quota, asked, seed=number)
        most = most_in_a_window(admitted, round(quota.per * SECOND))
        what = f"{quota.algorithm}, {quota.limit} in {quota.per:g} s: most in a window"
        marks.append(
            at_most(what, most, quota.limit, digits=0) if quota in STRICT else compared(what, most, digits=0)
        )
        progress((done := done + 1) / steps)
    return marks


def figure(long: bool, progress: Progress) -> str:  # noqa: ARG001 - one form is enough for a drawing
    """Draw what a burst at a window's edge gets from each algorithm."""
    progress(0.0)
    return svg(
        "An adversary at the edge of a window",
        [
            Panel(
                title=f"units admitted in the last {WINDOW:g} s, of {LIMIT} allowed",
                lines=[Line(algorithm, burst_at_the_edge(algorithm)) for algorithm in ALGORITHMS],
                shades=[Shade(WINDOW, 4 * WINDOW, "asks for all it can get")],
                x_label="seconds",
            )
        ],
    )
