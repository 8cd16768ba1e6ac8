"""Whether a series grows: its slope, with an interval.

The slope is Theil and Sen's: the median of the slopes between all pairs of points, which a few peaks do not
move. The interval is Sen's (1968), by the normal approximation to Kendall's tau. It
takes the points as independent, which neighbouring samples of memory are not, so they are put together to
blocks first.
"""

from __future__ import annotations

import itertools
from math import sqrt
from statistics import NormalDist, fmean, median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = 20
HOUR = 3600.0


class Growth(NamedTuple):
    """How a series in MiB grew. Slopes are MiB an hour."""

    first: float
    """The mean of the first block."""
    last: float
    slope: float
    low: float
    """Where the slope's 95 % interval begins."""
    high: float


def growth(samples: Sequence[tuple[float, float]]) -> Growth:
    """Return how a series grew.

    Args:
        samples: Pairs of seconds and MiB, at least one for each block.

    Example:
        >>> growth([(float(second), 100.0 + second / 3600) for second in range(600)]).slope
        1.0
    """
    size = len(samples) // BLOCKS
    blocks = [samples[begin : begin + size] for begin in range(0, BLOCKS * size, size)]
    points = [(fmean(at for at, _ in block), fmean(held for _, held in block)) for block in blocks]
    slopes = sorted(
        (b - a) / (then - now) * HOUR for (now, a), (then, b) in itertools.combinations(points, 2)
    )
    number = len(points)
    spread = NormalDist().inv_cdf(0.975) * sqrt(number * (number - 1) * (2 * number + 5) / 18)
    low = max(0, int((len(slopes) - spread) / 2))
    return Growth(points[0][1], points[-1][1], round(median(slopes), 9), slopes[low], slopes[-1 - low])
