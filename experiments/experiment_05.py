"""A spike: three times the load for ten seconds, on servers that are well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from experiments import at_most, compared, controls
from experiments.comparison import Comparison
from experiments.runs import worst_recovery
from resilience.simulation import OpenLoop, Scenario, spike
from resilience.simulation.controls import retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress

TITLE = "A spike of three times the load"

COMPARED: Final = Comparison(
    title=TITLE,
    outage=Scenario(  # from a load of 80 % to one of 240 %
        clients=OpenLoop(rate=400.0, processes=50), triggers=(spike(3.0, start=20.0, length=10.0),)
    ),
    trigger="three times the load",
    peers={
        "no retries": None,
        "budget alone": retries_only,
        "three naive retries": controls.naive_retries,
        "backoff, full jitter": controls.backoff_retries,
        "AWS now": controls.aws_new,
        "pybreaker": controls.pybreaker,
    },
    after=21.0,
    theirs_after=175.0,
    undrawn="no retries",  # close to "budget alone"
    drawn=50.0,
)

figure = COMPARED.figure


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    mine, recoveries = COMPARED.run(long, progress)
    goodput = min(one.during.goodput for one in mine)
    return [
        at_most("defaults: recovery, worst seed", worst_recovery(mine), 10.0, " s", 1),
        compared("defaults: goodput during the spike, worst seed", goodput, "/s", 0),
        *recoveries,
    ]
