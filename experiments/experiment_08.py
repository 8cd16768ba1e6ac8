"""The boundary of collapse, in three knobs: load, depth of the trigger, length of the trigger.

Clients try four times at once, the server's queue has no bound, and dead work is finished. Once load times
four exceeds 1 a collapse would sustain itself, but the trigger must first push the system into it.
`stays_collapsed` predicts whether it does: a fluid that flows at the mean rates, without chance and without
any policy. Beside it, the simulator says where the boundary is.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from experiments import compared, controls, within
from experiments.runs import run_all
from resilience.simulation import OpenLoop, Scenario, slow
from resilience.simulation.charts import Line, Panel, svg

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments import Mark, Progress

TITLE = "The boundary of collapse"

CAPACITY: Final = 500.0
TIMEOUT: Final = 1.0
ATTEMPTS: Final = 4
START: Final = 10.0
AFTER: Final = 30.0
"""Seconds that are watched after the trigger: enough for a backlog, well away from the bound of the law."""

_STEP: Final = 0.005


class Knobs(NamedTuple):
    """One outage."""

    load: float
    """Calls per second, as a share of the capacity."""
    speed: float
    """What the trigger leaves of the capacity."""
    length: float
    """Seconds that the trigger lasts."""


def stays_collapsed(knobs: Knobs) -> bool:
    """Return what the fluid says.

    An attempt that arrives at t is served when as much has been served as had arrived by t. If that is not so
    at t + T, it has timed out, and becomes the next attempt of its call there and then.
    """
    steps = round(TIMEOUT / _STEP)
    rate = knobs.load * CAPACITY
    arrived = served = 0.0
    flows = deque(
        [(0.0, [0.0] * ATTEMPTS)] * steps
    )  # what had arrived a timeout ago, and came then, by attempt
    too_late = False
    for step in range(round((knobs.length + AFTER) / _STEP)):
        had_arrived, came = flows.popleft()
        too_late = served < had_arrived - 1e-6
        now = [rate, *(came[:-1] if too_late else [0.0] * (ATTEMPTS - 1))]
        arrived += sum(now) * _STEP
        capacity = CAPACITY * (knobs.speed if step * _STEP < knobs.length else 1.0)
        served = min(arrived, served + capacity * _STEP)
        flows.append((arrived, now))
    return too_late


def scenario(knobs: Knobs, seed: int) -> Scenario:
    """Return the outage."""
    return Scenario(
        clients=OpenLoop(rate=knobs.load * CAPACITY, processes=50, timeout=TIMEOUT),
        triggers=(slow(knobs.speed, start=START, length=knobs.length),),
        duration=START + knobs.length + AFTER,
        policy=controls.naive_retries,
        seed=seed,
    )


def _collapses(knobs: Knobs, seeds: int, workers: int | None) -> bool:
    """Return whether most runs end without service."""
    summaries = run_all([scenario(knobs, seed) for seed in range(1, seeds + 1)], _ignore, workers=workers)
    ends = [sum(one.series.good[-8:-4]) < 0.5 * sum(one.series.offered[-8:-4]) for one in summaries]
    return 2 * sum(ends) > len(ends)


def _ignore(_done: float) -> None:
    """Tell nobody: how many runs a boundary takes is not known before."""


def boundary(collapses: Callable[[float], bool], safe: float, lost: float, precision: float) -> float:
    """Return the value between `safe` and `lost` from which on it collapses, by halving."""
    while abs(lost - safe) > precision:
        middle = (safe + lost) / 2
        if collapses(middle):
            lost = middle
        else:
            safe = middle
    return (safe + lost) / 2


class _Point(NamedTuple):
    name: str
    knobs: Callable[[float], Knobs]
    """The outage, by the value of the knob that is turned."""
    safe: float
    lost: float
    unit: str


def _points(long: bool) -> list[_Point]:
    """Return where the boundary is looked for: one knob turned, two held."""
    lengths = [(0.5, 0.1), (0.8, 0.1), (0.8, 0.4), (0.95, 0.4)] if long else [(0.8, 0.1)]
    points = [
        _Point(
            f"length at a load of {load:.0%}, {speed:.0%} of the capacity",
            lambda value, load=load, speed=speed: Knobs(load, speed, value),  # type: ignore[misc]  # bound
            0.2,
            8.0,
            " s",
        )
        for load, speed in lengths
    ]
    if long:
        points += [
            _Point(
                f"load at 10% of the capacity for {length:g} s",
                lambda value, length=length: Knobs(value, 0.1, length),  # type: ignore[misc]  # bound
                0.15,
                1.0,
                "",
            )
            for length in (1.5, 2.0, 2.5)
        ]
        points += [
            _Point(
                f"what is left of the capacity, at a load of {load:.0%} for {length:g} s",
                lambda value, load=load, length=length: Knobs(load, value, length),  # type: ignore[misc]  # bound
                1.0,
                0.02,
                "",
            )
            for load, length in ((0.8, 3.0), (0.8, 10.0), (0.5, 10.0))
        ]
    return points


def _predicted(point: _Point) -> float:
    return boundary(lambda value: stays_collapsed(point.knobs(value)), point.safe, point.lost, 0.005)


def _measured(point: _Point, long: bool) -> float:
    # Looked for within 50 % of what is predicted: one that lies beyond comes out at the end, and is missed.
    seeds, workers = (3, None) if long else (1, 1)
    said = _predicted(point)
    low, high = 0.5 * said, 1.5 * said
    safe, lost = (low, high) if point.safe < point.lost else (high, low)
    return boundary(
        lambda value: _collapses(point.knobs(value), seeds, workers),
        safe,
        lost,
        (0.04 if long else 0.15) * said,
    )


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    marks: list[Mark] = []
    points = _points(long)
    for done, point in enumerate(points, start=1):
        marks.append(within(point.name, _measured(point, long), _predicted(point), 0.25, point.unit))
        progress(done / len(points))
    marks.append(compared("load from which a collapse sustains itself, by the law", 1 / ATTEMPTS))
    return marks


def figure(long: bool, progress: Progress) -> str:
    """Draw what is measured over what is predicted."""
    del progress  # all of it has been run
    knobs = {"length, in seconds": " s", "load, or what is left of the capacity": ""}
    panels = []
    for title, unit in knobs.items():
        pairs = sorted(
            (_predicted(point), _measured(point, long)) for point in _points(long) if point.unit == unit
        )
        if pairs:
            most = 1.25 * max(predicted for predicted, _ in pairs)
            lines = [
                Line("as predicted", [(0.0, 0.0), (most, most)]),
                Line("25 % more or less", [(0.0, 0.0), (most, 1.25 * most)]),
                Line("25 % more or less", [(0.0, 0.0), (most, 0.75 * most)]),
                Line("measured", pairs, dots=True),
            ]
            panels.append(Panel(title=f"boundary: {title}", lines=lines, x_label="predicted"))
    return svg(TITLE, panels)
