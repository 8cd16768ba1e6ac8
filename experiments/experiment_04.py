"""Many small clients: each sees so little traffic that it can hardly tell an outage by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from experiments import at_most, compared, controls
from experiments.comparison import Comparison
from experiments.runs import worst_recovery
from resilience.simulation import OpenLoop, Scenario, slow
from resilience.simulation.controls import retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress

TITLE = "The same outage with 500 clients of little traffic each"

COMPARED: Final = Comparison(
    title=TITLE,
    outage=Scenario(
        clients=OpenLoop(rate=400.0, processes=500), triggers=(slow(0.1, start=20.0, length=10.0),)
    ),
    trigger="a tenth of the capacity",
    peers={
        "no retries": None,
        "budget alone": retries_only,
        "three naive retries": controls.naive_retries,
        "AWS now": controls.aws_new,
        "gRPC": controls.grpc,
        "pybreaker": controls.pybreaker,
    },
    after=31.0,
    theirs_after=200.0,
    undrawn="gRPC",  # close to "budget alone"
    drawn=60.0,
)

figure = COMPARED.figure


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    mine, recoveries = COMPARED.run(long, progress)
    return [
        at_most("defaults: recovery, worst seed", worst_recovery(mine), 20.0, " s", 1),
        compared("defaults: attempts per call, worst 10 s", max(one.peak_amplification for one in mine)),
        *recoveries,
    ]
