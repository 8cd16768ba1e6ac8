"""What readings of memory mean: their slope, and whether they are an alert. Arithmetic only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def slope(points: Sequence[tuple[float, int]]) -> float:
    """Return the bytes a second by which memory grows, the least-squares line through the points.

    With fewer than two different instants there is no line, and the slope is 0.

    Args:
        points: Pairs of an instant in seconds and the bytes at that instant.

    Example:
        >>> slope([(0.0, 100), (10.0, 300), (20.0, 500)])
        20.0
    """
    count = len(points)
    if not count:
        return 0.0
    mean_time = sum(at for at, _ in points) / count
    mean_bytes = sum(size for _, size in points) / count
    spread = sum((at - mean_time) ** 2 for at, _ in points)
    if not spread:
        return 0.0
    return sum((at - mean_time) * (size - mean_bytes) for at, size in points) / spread


def alarming(share: float, alarmed: bool, *, above: float, below: float) -> bool:
    """Return whether memory is in the state of alarm, given whether it was before.

    Between the two thresholds it stays as it was, so that a reading which wavers around one of them raises
    one alert and not a hundred.

    Args:
        share: Resident memory as a share of its limit.
        alarmed: Whether the previous reading was alarming.
        above: The share that begins the alarm when it is exceeded.
        below: The share that ends it when it is fallen short of.

    Example:
        >>> [alarming(0.78, alarmed, above=0.8, below=0.75) for alarmed in (False, True)]
        [False, True]
    """
    return share >= below if alarmed else share > above
