"""Ten experiments that settle the defaults: each in a module of its own, with the marks that it has to reach.

An experiment is a module `experiment_NN` with

- `TITLE`, what it is about;
- `run(long, progress)`, which returns its marks, measured; `long` is the form that the page of figures shows,
  the other one is for every run of the tests;
- `figure(long, progress)`, which returns its drawing, an SVG;
- `MISSED`, if need be: the names of marks that the long form is known to miss.

`progress` is called with the part that is done, 0 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[float], object]


class Mark(NamedTuple):
    """One figure, and what is asked of it."""

    name: str
    """What was measured, where."""
    value: str
    """What it came to, with its unit."""
    mark: str
    """What it has to be; empty for what is only compared with."""
    passed: bool | None
    """Whether it is; None where nothing is asked."""


def at_most(name: str, value: float | None, limit: float, unit: str = "", digits: int = 2) -> Mark:
    """Return the mark of a figure that may not exceed `limit`; None stands for what never came about."""
    return Mark(
        name, _written(value, unit, digits), f"≤ {limit:g}{unit}", value is not None and value <= limit
    )


def at_least(name: str, value: float, limit: float, unit: str = "", digits: int = 2) -> Mark:
    """Return the mark of a figure that may not stay below `limit`."""
    return Mark(name, _written(value, unit, digits), f"≥ {limit:g}{unit}", value >= limit)


def within(name: str, value: float, expected: float, share: float, unit: str = "", digits: int = 2) -> Mark:
    """Return the mark of a figure that may differ from what theory says by so much of it."""
    said = f"{_written(expected, unit, digits)} ± {share:.0%}"
    return Mark(name, _written(value, unit, digits), said, abs(value - expected) <= share * expected)


def compared(name: str, value: float | None, unit: str = "", digits: int = 2) -> Mark:
    """Return a figure of which nothing is asked."""
    return Mark(name, _written(value, unit, digits), "", None)


def _written(value: float | None, unit: str, digits: int) -> str:
    return "never" if value is None else f"{value:.{digits}f}{unit}"
