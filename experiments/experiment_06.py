"""Shards: one or two of three are down, and calls to the others should not notice."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from experiments import at_least, compared, controls
from experiments.runs import run_all
from resilience.breaker import BreakerRegistry
from resilience.retry import AsyncRetryManager
from resilience.simulation import Exponential, OpenLoop, Scenario, Server, down
from resilience.simulation.charts import Line, Panel, svg
from resilience.simulation.controls import defaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from experiments import Mark, Progress
    from experiments.runs import Summary
    from resilience.clock import Clock
    from resilience.simulation import Request

    Call = Callable[[Request], Awaitable[object]]

TITLE = "One and two of three shards down"

MISSED: Final = ("unkeyed: 1 of 3 down",)
"""Marks that the long form is known to miss; docs/experiments.md says why."""

DOWN: Final = {1: (0,), 2: (0, 1)}


def keyed(clock: Clock, random: Callable[[], float], name: str) -> Callable[[Call], Call]:
    """Return a retry and a breaker for each shard, with their defaults."""
    breakers = BreakerRegistry(name=name, clock=clock, random=random)

    def decorate(call: Call) -> Call:
        @wraps(call)
        async def guarded(request: Request) -> object:
            breaker = breakers.get(request.shard)
            retries = AsyncRetryManager(
                circuit_breaker=breaker, name=f"{name}:{request.shard}", clock=clock, random=random
            )
            return await retries.execute(call, request)

        return guarded

    return decorate


def unkeyed_by_attempts(clock: Clock, random: Callable[[], float]) -> Callable[[Call], Call]:
    """Return tenacity around pybreaker, one for all shards: its breaker hears of every attempt."""
    retries, breaker = controls.tenacity(clock, random), controls.pybreaker(clock)
    return lambda call: retries(breaker(call))


POLICIES: Final[dict[str, Any]] = {
    "keyed": keyed,
    "unkeyed": defaults,
    "pybreaker, unkeyed": controls.pybreaker,
    "tenacity around pybreaker, unkeyed": unkeyed_by_attempts,
}


def scenario(policy: Any, shards: tuple[int, ...], seed: int, long: bool, processes: int = 50) -> Scenario:
    """Return three shards with a load of 80 %, of which some refuse connections."""
    length = 60.0 if long else 20.0
    return Scenario(
        clients=OpenLoop(rate=400.0, processes=processes),
        servers=(Server(workers=10, service_time=Exponential(0.060)),) * 3,
        triggers=(down(start=10.0, length=length, shards=shards),),
        duration=20.0 + length,
        policy=policy,
        seed=seed,
    )


def healthy(one: Summary, shards: tuple[int, ...]) -> float:
    """Return the share of the calls to the other shards that succeeded meanwhile."""
    return min(level.share for shard, level in one.levels.items() if shard[0] not in shards)


def _measured(name: str, number: int, long: bool, progress: Progress, processes: int = 50) -> float:
    seeds = range(1, 6 if long else 2)
    scenarios = [scenario(POLICIES[name], DOWN[number], seed, long, processes) for seed in seeds]
    summaries = run_all(scenarios, progress, workers=None if long else 1)
    return min(healthy(one, DOWN[number]) for one in summaries)


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    marks = [
        at_least(f"keyed: {number} of 3 down", _measured("keyed", number, long, progress), 0.999, digits=4)
        for number in DOWN
    ]
    marks.append(at_least("unkeyed: 1 of 3 down", _measured("unkeyed", 1, long, progress), 0.99, digits=4))
    if long:
        busy = _measured("unkeyed", 1, long, progress, processes=10)
        marks.append(compared("unkeyed: 1 of 3 down, 10 clients of five times the traffic", busy, digits=4))
        marks += [
            compared(f"{name}: {number} of 3 down", _measured(name, number, long, progress), digits=4)
            for name in POLICIES
            for number in DOWN
            if name != "keyed" and (name, number) != ("unkeyed", 1)
        ]
    return marks


def figure(long: bool, progress: Progress) -> str:
    """Draw the share of calls to healthy shards that succeed, by how many shards are down."""
    names = list(POLICIES) if long else ["keyed"]
    lines = [
        Line(
            name, [(0.0, 1.0), *((float(number), _measured(name, number, long, progress)) for number in DOWN)]
        )
        for name in names
    ]
    panel = Panel(
        title="share of the calls to healthy shards that succeed, worst shard and seed",
        lines=lines,
        x_label="shards down, of three",
        most=1.0,
        form="{:.0%}".format,
    )
    return svg(TITLE, [panel])
