"""How long things take: distributions to draw seconds from.

Anything that takes a `random.Random` and returns seconds will do; these are the usual ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, log1p
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final

from resilience.callables import Kind, kind_of
from resilience.checks import number

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    Distribution = Callable[[Random], float]
    """Draws seconds, at least 0."""

_P99: Final = NormalDist().inv_cdf(0.99)
"""How many standard deviations lie below the 99th of a hundred."""


@dataclass(frozen=True)
class Constant:
    """Always the same.

    Args:
        seconds: At least 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        """Check the figure."""
        number("seconds", self.seconds, least=0)

    def __call__(self, random: Random) -> float:  # noqa: ARG002 - the others draw from it
        """Return the seconds."""
        return self.seconds


@dataclass(frozen=True)
class Exponential:
    """What has no memory: most are short, few are long.

    Args:
        mean: Seconds, above 0.
    """

    mean: float

    def __post_init__(self) -> None:
        """Check the figure."""
        number("mean", self.mean, above=0)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return -self.mean * log1p(-random.random())


@dataclass(frozen=True)
class LogNormal:
    """What services really take, as a rule: a hump, and a long tail to the right.

    Args:
        median: Seconds that half of them do not exceed, above 0.
        p99: Seconds that 99 of a hundred do not exceed, above the median.

    Example:
        >>> round(LogNormal(median=0.010, p99=0.100).mean, 3)
        0.016
    """

    median: float
    p99: float

    def __post_init__(self) -> None:
        """Check the figures."""
        number("median", self.median, above=0)
        number("p99", self.p99, above=self.median)

    @property
    def sigma(self) -> float:
        """The standard deviation of the logarithm."""
        return log(self.p99 / self.median) / _P99

    @property
    def mean(self) -> float:
        """The mean, in seconds."""
        return self.median * exp(self.sigma**2 / 2)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return self.median * exp(self.sigma * random.gauss(0.0, 1.0))


@dataclass(frozen=True)
class Mixture:
    """Now one distribution, now another: a cache that hits or misses, a server in a hundred that is slow.

    Args:
        share: How often it is `rare`, 0 to 1.
        rare: What is drawn from then.
        usual: What is drawn from otherwise.
    """

    share: float
    rare: Distribution
    usual: Distribution

    def __post_init__(self) -> None:
        """Check the arguments."""
        number("share", self.share, least=0, most=1)
        distribution("rare", self.rare)
        distribution("usual", self.usual)

    def __call__(self, random: Random) -> float:
        """Draw seconds."""
        return (self.rare if random.random() < self.share else self.usual)(random)


def distribution(name: str, value: Any) -> None:
    """Do nothing if seconds can be drawn from `value`.

    Raises:
        TypeError: They cannot; the message calls it `name`.
    """
    if not callable(value) or isinstance(value, type) or kind_of(value) is not Kind.SYNC:
        raise TypeError(
            f"{name}={value!r} must be a distribution, such as Constant(0.02) or Exponential(0.02), or a "
            "plain function of a random.Random that returns seconds"
        )
