"""Runs of the simulator, on all cores, and what is kept of each: a run's log is large, its summary is not."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, NamedTuple

from resilience.simulation import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from experiments import Progress
    from resilience.simulation import Level, Result, Scenario, Series


class Summary(NamedTuple):
    """What a run came to; `resilience.simulation.Result` says what each word means."""

    before: Level
    during: Level
    after: Level
    recovery_time: float | None
    silence: float
    """Seconds after the trigger until the first second in which 1 % of the calls succeed."""
    peak_amplification: float
    """Attempts per call, in the worst 10 s."""
    peak_of_a_second: float
    """The same in the worst second."""
    levels: Mapping[tuple[int, ...], Level]
    """Service during the trigger, by shard."""
    series: Series


def summary(result: Result) -> Summary:
    """Return what is kept of a run."""
    scenario = result.scenario
    shards = [(shard,) for shard in range(len(scenario.shards))]
    return Summary(
        result.before,
        result.during,
        result.after,
        result.recovery_time,
        result.stays_below(0.01),
        result.peak_amplification(),
        result.peak_amplification(1.0),
        {shard: result.level(scenario.begins, scenario.ends, shard) for shard in shards},
        result.series,
    )


def worst_recovery(summaries: Sequence[Summary]) -> float | None:
    """Return the longest recovery; None if one never recovered."""
    times = [one.recovery_time for one in summaries]
    return None if None in times else max(time for time in times if time is not None)


def share_of(one: Summary) -> list[tuple[float, float]]:
    """Return the share that succeeds, second by second, but for the last, whose calls have not ended."""
    pairs = zip(one.series.good, one.series.offered, strict=True)
    return [(float(second), good / max(1, offered)) for second, (good, offered) in enumerate(pairs)][:-2]


def run_one(scenario: Scenario) -> Summary:
    """Run one scenario."""
    return summary(run(scenario))


_known: dict[Scenario, Summary] = {}


def run_all(
    scenarios: Iterable[Scenario], progress: Progress, *, workers: int | None = None
) -> list[Summary]:
    """Run the scenarios that have not been run yet; return what all of them came to, in order.

    Args:
        scenarios: What to run.
        progress: Is told how far it is.
        workers: How many processes to use, all cores where left out. One is this process itself.
    """
    wanted = list(scenarios)
    missing = [scenario for scenario in dict.fromkeys(wanted) if scenario not in _known]
    for done, (scenario, came_to) in enumerate(zip(missing, _run(missing, workers), strict=True), start=1):
        _known[scenario] = came_to
        progress(done / len(missing))
    return [_known[scenario] for scenario in wanted]


def _run(scenarios: Sequence[Scenario], workers: int | None) -> Iterable[Summary]:
    workers = min(len(scenarios), workers or os.cpu_count() or 1)
    if workers <= 1:
        yield from map(run_one, scenarios)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_one, scenarios)
