"""The canonical trigger: a tenth of the capacity for 10 s, against a queue that keeps a collapse going."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from experiments import at_least, at_most, compared, controls
from experiments.runs import run_all, share_of, worst_recovery
from resilience.simulation import OpenLoop, Scenario, slow
from resilience.simulation.charts import Line, Panel, Shade, svg
from resilience.simulation.controls import defaults, retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress

TITLE = "Ten seconds at a tenth of the capacity"

COLLAPSED: Final[dict[str, Any]] = {
    "three naive retries": controls.naive_retries,
    "backoff, full jitter": controls.backoff_retries,
}
"""What has to stay collapsed."""

PEERS: Final[dict[str, Any]] = {
    "no retries": None,
    "budget alone": retries_only,
    "tenacity": controls.tenacity,
    "stamina": controls.stamina,
    "backoff": controls.backoff,
    "pybreaker": controls.pybreaker,
    "AWS until 2026": controls.aws_old,
    "AWS now": controls.aws_new,
    "gRPC": controls.grpc,
    "Finagle": controls.finagle,
    "Envoy": controls.envoy,
    "SRE 10 %": controls.sre,
}


def scenario(policy: Any, seed: int, *, start: float = 60.0, after: float = 175.0) -> Scenario:
    """Return the outage: 500 calls a second, a load of 80 %, 50 processes, a timeout of 1 s."""
    return Scenario(
        clients=OpenLoop(rate=400.0, processes=50, timeout=1.0),
        triggers=(slow(0.1, start=start, length=10.0),),
        duration=start + 10.0 + after,
        policy=policy,
        seed=seed,
    )


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    seeds = range(1, 9) if long else range(1, 2)
    ours = [
        scenario(defaults, seed) if long else scenario(defaults, seed, start=10.0, after=20.0)
        for seed in seeds
    ]
    theirs = _controls(long)
    summaries = run_all([*ours, *theirs.values()], progress, workers=None if long else 1)
    mine, others = summaries[: len(ours)], dict(zip(theirs, summaries[len(ours) :], strict=True))
    marks = [
        at_most("defaults: recovery, worst seed", worst_recovery(mine), 10.0, " s", 1),
        at_most("defaults: attempts per call, worst 10 s", max(one.peak_amplification for one in mine), 1.15),
        compared("defaults: attempts per call, worst second", max(one.peak_of_a_second for one in mine)),
    ]
    for name, one in others.items():
        if name in COLLAPSED:
            marks.append(at_least(f"{name}: below 1 % for", one.silence, 170.0 if long else 20.0, " s", 0))
        else:
            marks += [
                compared(f"{name}: recovery", one.recovery_time, " s", 1),
                compared(f"{name}: attempts per call, worst 10 s", one.peak_amplification),
            ]
    return marks


def _controls(long: bool) -> dict[str, Scenario]:
    if long:
        return {name: scenario(policy, 1) for name, policy in (COLLAPSED | PEERS).items()}
    return {name: scenario(policy, 1, start=10.0, after=20.0) for name, policy in COLLAPSED.items()}


def figure(long: bool, progress: Progress) -> str:
    """Draw the share of the calls that succeed, under some of the policies."""
    scenarios = {"defaults": scenario(defaults, 1, **({} if long else {"start": 10.0, "after": 20.0}))}
    scenarios |= _controls(long)
    shown = ["defaults", "three naive retries", "backoff, full jitter", "no retries", "AWS now", "pybreaker"]
    chosen = {name: scenarios[name] for name in shown if name in scenarios}
    summaries = run_all(chosen.values(), progress, workers=None if long else 1)
    start = scenarios["defaults"].begins
    lines = [Line(name, share_of(one)) for name, one in zip(chosen, summaries, strict=True)]
    return svg(
        TITLE,
        [
            Panel(
                title="share of the calls begun in each second that succeed",
                lines=lines,
                x_label="seconds",
                most=1.0,
                shades=[Shade(start, start + 10.0, "a tenth of the capacity")],
                form="{:.0%}".format,
            )
        ],
    )
