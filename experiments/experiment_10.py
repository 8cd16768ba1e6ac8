"""Hedging where one answer in a hundred is slow, and where every answer is.

A request asks 100 leaves and waits for all of them. A leaf's latency is that of Dean and Barroso, "The Tail
at Scale" (CACM 2013): 2 % take more than 10 ms, and one in 100,000 more than 1.8 s, so that one request in a
thousand takes as long. Between those two points the survival function is a straight line on paper with two
logarithmic axes; below 10 ms it is exponential; above 1.8 s the line goes on.

The production `Hedge` makes the calls to leaves, on simulated time. It asks again after 10 ms. A budget funds
what the healthy system needs and a little more: a call that succeeds without a hedge earns 0.03 of one. With
everything slow, those that could not be hedged still succeed and earn, so extra work stays below 3 % and the
budget's capacity.
"""

from __future__ import annotations

import asyncio
from functools import cache
from math import log
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from experiments import at_most, compared
from resilience.hedging import Hedge
from resilience.retry.budget import RetryBudget
from resilience.simulation import simulate
from resilience.simulation.charts import Line, Panel, svg

if TYPE_CHECKING:
    from experiments import Mark, Progress
    from resilience.simulation import SimulatedClock

TITLE: Final = "Hedging against the tail"

LEAVES: Final = 100
"""Asked by each request."""

AFTER: Final = 0.010
"""Seconds after which a leaf is asked again."""

SLOW, SLOW_SHARE = 0.010, 0.02
SLOWEST, SLOWEST_SHARE = 1.8, 1e-5
"""The two published points: this share of the answers takes longer than so many seconds."""

_POWER: Final = log(SLOW_SHARE / SLOWEST_SHARE) / log(SLOWEST / SLOW)

CAPACITY: Final = 100.0
"""Hedges that are saved up: one for each call to a leaf that one request makes."""

CREDIT: Final = 0.03
"""Hedges that a call earns which succeeds at once: a little more than the 2 % that are needed."""


def latency(random: Random) -> float:
    """Draw how many seconds a leaf takes, by the inverse of its survival function."""
    survival = 1.0 - random.random()
    if survival > SLOW_SHARE:
        return SLOW * log(survival) / log(SLOW_SHARE)
    return float(SLOW * (SLOW_SHARE / survival) ** (1 / _POWER))


class Measured(NamedTuple):
    """What came of many requests."""

    seconds: list[float]
    """How long each took, in order of length."""
    calls: int
    """To leaves, by requests."""
    hedges: int
    """Calls on top of them."""

    def within(self, share: float) -> float:
        """Return the seconds within which that share of the requests was answered."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    @property
    def extra(self) -> float:
        """The share of calls on top."""
        return self.hedges / self.calls


@cache
def measure(requests: int, *, hedged: bool, slower: float = 1.0, budget: str = "ours") -> Measured:
    """Let that many requests ask their leaves, one request after another.

    Args:
        requests: How many.
        hedged: Whether by the production `Hedge`.
        slower: What every latency is multiplied by.
        budget: Which pays for the hedges: "ours", the library's "default", or "none".
    """
    random = Random(f"{requests} {slower}")
    seconds: list[float] = []
    budgets = {
        "ours": RetryBudget(capacity=CAPACITY, success_credit=CREDIT),
        "default": RetryBudget(),
        "none": None,
    }

    async def ask() -> None:
        await asyncio.sleep(latency(random) * slower)

    async def main(clock: SimulatedClock) -> int:
        hedge = Hedge(AFTER, budget=budgets[budget], name="leaves", clock=clock)
        leaf = hedge(ask) if hedged else ask
        for _ in range(requests):
            began = clock.now()
            await asyncio.gather(*(leaf() for _ in range(LEAVES)))
            seconds.append(clock.now() - began)
        await hedge.drain()
        return hedge.stats().hedges

    hedges = simulate(main)
    return Measured(sorted(seconds), requests * LEAVES, hedges)


def _requests(long: bool) -> int:
    return 5_000 if long else 1_200  # of fewer than a thousand, p99.9 would be the slowest one


def run(long: bool, progress: Progress) -> list[Mark]:
    """Return what hedging gains where the tail is heavy, and what it costs where all is slow."""
    requests = _requests(long)
    plain = measure(requests, hedged=False)
    progress(0.3)
    hedged = measure(requests, hedged=True)
    progress(0.8)
    slow = measure(requests // 10, hedged=True, slower=100.0)
    unlimited = measure(requests // 10, hedged=True, slower=100.0, budget="none")
    progress(0.9)
    default = measure(requests // 10, hedged=True, budget="default")
    funded = CAPACITY + CREDIT * (slow.calls - slow.hedges)
    return [
        compared("without: p50", 1000 * plain.within(0.5), " ms", 0),
        compared("without: p99.9", 1000 * plain.within(0.999), " ms", 0),
        compared("hedged: p50", 1000 * hedged.within(0.5), " ms", 0),
        compared("hedged: p99", 1000 * hedged.within(0.99), " ms", 0),
        at_most("hedged: p99.9", 1000 * hedged.within(0.999), 80.0, " ms", 1),
        at_most("hedged: extra calls", 100 * hedged.extra, 2.1, " %"),
        at_most("everything 100 times slower: hedges, of what is funded", slow.hedges, funded, digits=0),
        compared("everything 100 times slower: extra calls", 100 * slow.extra, " %"),
        compared("the same without a budget: extra calls", 100 * unlimited.extra, " %"),
        compared("the default budget: p99", 1000 * default.within(0.99), " ms", 0),
        compared("the default budget: extra calls", 100 * default.extra, " %"),
    ]


def figure(long: bool, progress: Progress) -> str:
    """Draw the share of requests that take longer, over seconds."""
    requests = _requests(long)
    lines = []
    for name, hedged in (("one call each", False), (f"hedged after {1000 * AFTER:g} ms", True)):
        seconds = measure(requests, hedged=hedged).seconds
        each = max(1, requests // 400)
        lines.append(
            Line(
                name,
                [
                    (1000 * one, 1 - place / requests)
                    for place, one in enumerate(seconds)
                    if place % each == 0 or place > requests - 2 * each
                ],
            )
        )
        progress(0.5)
    return svg(
        TITLE,
        [
            Panel(
                title="share of the requests that take longer",
                lines=lines,
                scale="log",
                x_scale="log",
                x_label="milliseconds",
                form="{:g}".format,
            )
        ],
    )
