"""Many small clients: each sees so little traffic that it can hardly tell an outage by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from experiments import at_most, compared, controls
from experiments.experiment_02 import share_of, worst_recovery
from experiments.runs import run_all
from resilience.simulation import OpenLoop, Scenario, slow
from resilience.simulation.charts import Line, Panel, Shade, svg
from resilience.simulation.controls import defaults, retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress

TITLE = "The same outage with 500 clients of little traffic each"

PEERS: Final[dict[str, Any]] = {
    "no retries": None,
    "budget alone": retries_only,
    "three naive retries": controls.naive_retries,
    "AWS now": controls.aws_new,
    "gRPC": controls.grpc,
    "pybreaker": controls.pybreaker,
}


def scenario(policy: Any, seed: int, after: float) -> Scenario:
    """Return the outage."""
    return Scenario(
        clients=OpenLoop(rate=400.0, processes=500),
        triggers=(slow(0.1, start=20.0, length=10.0),),
        duration=30.0 + after,
        policy=policy,
        seed=seed,
    )


def _ours(long: bool) -> list[Scenario]:
    return [scenario(defaults, seed, 40.0 if long else 31.0) for seed in range(1, 9 if long else 2)]


def _theirs(long: bool) -> dict[str, Scenario]:
    return {name: scenario(policy, 1, 200.0) for name, policy in PEERS.items()} if long else {}


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    ours, theirs = _ours(long), _theirs(long)
    summaries = run_all([*ours, *theirs.values()], progress, workers=None if long else 1)
    mine, others = summaries[: len(ours)], summaries[len(ours) :]
    return [
        at_most("defaults: recovery, worst seed", worst_recovery(mine), 20.0, " s", 1),
        compared("defaults: attempts per call, worst 10 s", max(one.peak_amplification for one in mine)),
        *(
            compared(f"{name}: recovery", one.recovery_time, " s", 1)
            for name, one in zip(theirs, others, strict=True)
        ),
    ]


def figure(long: bool, progress: Progress) -> str:
    """Draw the share of the calls that succeed."""
    chosen = {"defaults": _ours(long)[0], **_theirs(long)}
    chosen.pop("gRPC", None)  # close to "budget alone", and a figure tells six lines apart
    summaries = run_all(chosen.values(), progress, workers=None if long else 1)
    lines = [Line(name, share_of(one)) for name, one in zip(chosen, summaries, strict=True)]
    shades = [Shade(20.0, 30.0, "a tenth of the capacity")]
    panel = Panel(
        title="share of the calls that succeed",
        lines=lines,
        x_label="seconds",
        most=1.0,
        x_range=(0.0, 120.0 if long else 60.0),
        shades=shades,
        form="{:.0%}".format,
    )
    return svg(TITLE, [panel])
