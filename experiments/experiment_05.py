"""A spike: three times the load for ten seconds, on servers that are well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from experiments import at_most, compared, controls
from experiments.experiment_02 import share_of, worst_recovery
from experiments.runs import run_all
from resilience.simulation import OpenLoop, Scenario, spike
from resilience.simulation.charts import Line, Panel, Shade, svg
from resilience.simulation.controls import defaults, retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress

TITLE = "A spike of three times the load"

PEERS: Final[dict[str, Any]] = {
    "no retries": None,
    "budget alone": retries_only,
    "three naive retries": controls.naive_retries,
    "backoff, full jitter": controls.backoff_retries,
    "AWS now": controls.aws_new,
    "pybreaker": controls.pybreaker,
}


def scenario(policy: Any, seed: int, after: float) -> Scenario:
    """Return the spike: from a load of 80 % to one of 240 %."""
    return Scenario(
        clients=OpenLoop(rate=400.0, processes=50),
        triggers=(spike(3.0, start=20.0, length=10.0),),
        duration=30.0 + after,
        policy=policy,
        seed=seed,
    )


def _ours(long: bool) -> list[Scenario]:
    return [scenario(defaults, seed, 40.0 if long else 21.0) for seed in range(1, 9 if long else 2)]


def _theirs(long: bool) -> dict[str, Scenario]:
    return {name: scenario(policy, 1, 175.0) for name, policy in PEERS.items()} if long else {}


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    ours, theirs = _ours(long), _theirs(long)
    summaries = run_all([*ours, *theirs.values()], progress, workers=None if long else 1)
    mine, others = summaries[: len(ours)], summaries[len(ours) :]
    return [
        at_most("defaults: recovery, worst seed", worst_recovery(mine), 10.0, " s", 1),
        compared(
            "defaults: goodput during the spike, worst seed", min(one.during.goodput for one in mine), "/s", 0
        ),
        *(
            compared(f"{name}: recovery", one.recovery_time, " s", 1)
            for name, one in zip(theirs, others, strict=True)
        ),
    ]


def figure(long: bool, progress: Progress) -> str:
    """Draw the share of the calls that succeed."""
    chosen = {"defaults": _ours(long)[0], **_theirs(long)}
    chosen.pop("no retries", None)  # close to "budget alone", and a figure tells six lines apart
    summaries = run_all(chosen.values(), progress, workers=None if long else 1)
    lines = [Line(name, share_of(one)) for name, one in zip(chosen, summaries, strict=True)]
    panel = Panel(
        title="share of the calls that succeed",
        lines=lines,
        x_label="seconds",
        most=1.0,
        x_range=(0.0, 120.0 if long else 50.0),
        shades=[Shade(20.0, 30.0, "three times the load")],
        form="{:.0%}".format,
    )
    return svg(TITLE, [panel])
