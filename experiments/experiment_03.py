"""Load: recovery from 50 % to 95 %, and the theory of what happens without a breaker.

The law: an unbounded FIFO queue whose server finishes dead work stays collapsed exactly if the load times the
attempts per call at total failure exceeds 1. Otherwise it recovers in `theory` seconds, which are what it
takes to work off a backlog: that of D seconds of trigger, and b retries of each of M processes. Who comes
while less than a timeout's worth of work waits is served in time, so that much of it may remain.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from experiments import Mark, at_most, compared, controls, within
from experiments.runs import run_all, worst_recovery
from resilience.simulation import OpenLoop, Scenario, slow
from resilience.simulation.charts import Line, Panel, svg
from resilience.simulation.controls import defaults, retries_only

if TYPE_CHECKING:
    from experiments import Progress

TITLE = "The same outage at loads from 50 % to 95 %"

CAPACITY: Final = 500.0
PROCESSES: Final = 50
TRIGGER: Final = 10.0
LOADS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def theory(load: float, retries: float) -> float:
    """Return the seconds until a backlog is worked off, with so many retries in each process's budget."""
    rate = load * CAPACITY
    backlog = TRIGGER * (rate - 0.1 * CAPACITY) + PROCESSES * retries - 1.0 * CAPACITY
    return backlog / (CAPACITY - rate)


def scenario(policy: Any, load: float, seed: int, after: float) -> Scenario:
    """Return the outage of experiment 2 at another load."""
    return Scenario(
        clients=OpenLoop(rate=load * CAPACITY, processes=PROCESSES),
        triggers=(slow(0.1, start=20.0, length=TRIGGER),),
        duration=20.0 + TRIGGER + after,
        policy=policy,
        seed=seed,
    )


def _ours(load: float, long: bool) -> list[Scenario]:
    return [scenario(defaults, load, seed, 30.0 if long else 20.0) for seed in range(1, 6 if long else 2)]


def _alone(policy: Any, retries: float, load: float, long: bool) -> list[Scenario]:
    after = 1.5 * theory(load, retries) + 20.0
    return [scenario(policy, load, seed, after) for seed in range(1, 4 if long else 2)]


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    workers = None if long else 1
    loads = LOADS if long else (0.5, 0.95)
    marks = [
        at_most(
            f"defaults: recovery at {load:.0%}",
            worst_recovery(run_all(_ours(load, long), progress, workers=workers)),
            10.0,
            " s",
            1,
        )
        for load in loads
    ]
    for load in LOADS if long else (0.6,):
        for name, policy, retries in (("no breaker", retries_only, 5.0), ("no retries", None, 0.0)):
            came_to = run_all(_alone(policy, retries, load, long), progress, workers=workers)
            times = [one.recovery_time for one in came_to]
            whole = [time for time in times if time is not None]
            said = theory(load, retries)
            label = f"{name}: recovery at {load:.0%}"
            if len(whole) == len(times):
                marks.append(within(label, fmean(whole), said, 0.2, " s", 1))
            else:
                marks.append(Mark(label, "never", f"{said:.1f} s ± 20%", passed=False))
    for load in (0.2, 0.3) if long else ():
        (came,) = run_all([scenario(controls.naive_retries, load, 1, 120.0)], progress, workers=1)
        verdict = "recovers" if load * 4 < 1 else "stays collapsed"
        recovers = came.recovery_time is not None
        measured = "recovers" if recovers else "stays collapsed"
        marks.append(
            Mark(
                f"three naive retries, 4 times a load of {load:.0%} = {load * 4:g}",
                measured,
                verdict,
                measured == verdict,
            )
        )
    if long:
        marks += [
            compared(
                f"AWS now: recovery at {load:.0%}",
                run_all([scenario(controls.aws_new, load, 1, 260.0)], progress)[0].recovery_time,
                " s",
                1,
            )
            for load in (0.5, 0.8)
        ]
    return marks


def figure(long: bool, progress: Progress) -> str:
    """Draw the recovery over the load, measured and by theory."""
    workers = None if long else 1
    loads = LOADS if long else (0.5, 0.95)
    measured = [(load, run_all(_ours(load, long), progress, workers=workers)) for load in loads]
    lines = [
        Line(
            "defaults",
            [(load, one.recovery_time or 0.0) for load, all_of_it in measured for one in all_of_it[:1]],
        ),
        Line("no breaker, theory", [(load, theory(load, 5.0)) for load in LOADS]),
    ]
    if long:
        alone = [(load, run_all(_alone(retries_only, 5.0, load, long), progress)) for load in LOADS]
        dots = [
            (load, one.recovery_time)
            for load, all_of_it in alone
            for one in all_of_it
            if one.recovery_time is not None
        ]
        lines.append(Line("no breaker, measured", dots, dots=True))
    return svg(TITLE, [Panel(title="seconds to recovery", lines=lines, x_label="load", scale="log")])
