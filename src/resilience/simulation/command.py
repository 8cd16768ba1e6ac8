"""`python -m resilience simulate`: runs an outage against policies, and says and draws what came of it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from resilience.checks import number
from resilience.simulation import controls
from resilience.simulation.drawing import page, picture, text
from resilience.simulation.outages import OUTAGES
from resilience.simulation.policies import factory_named
from resilience.simulation.progress import Progress
from resilience.simulation.scenario import run

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.simulation.policies import Factory
    from resilience.simulation.result import Result
    from resilience.simulation.scenario import Scenario

KNOWN: Final[dict[str, Factory | None]] = {
    "defaults": controls.defaults,
    "retries-only": controls.retries_only,
    "naive-retries": controls.naive_retries,
    "backoff-retries": controls.backoff_retries,
    "none": None,
}
"""Policies that need no module."""


def parser() -> ArgumentParser:
    """Return what reads the command's arguments."""
    width = max(map(len, OUTAGES)) + 2
    outages = "\n".join(f"  {name:{width}}{outage.about}" for name, outage in OUTAGES.items())
    reads = ArgumentParser(
        prog="python -m resilience simulate",
        description="Run production policies against an outage, on simulated time.",
        epilog=f"outages:\n{outages}\n\npolicies that need no module:\n  {', '.join(KNOWN)}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    reads.add_argument("outage", choices=OUTAGES, metavar="OUTAGE", help="what goes wrong; see below")
    reads.add_argument(
        "--policy",
        action="append",
        metavar="MODULE:ATTRIBUTE",
        help="a factory of (clock, random, name), or a name from below; give several to compare them",
    )
    reads.add_argument(
        "--load", type=float, metavar="SHARE", help="calls per second, as a share of the capacity"
    )
    reads.add_argument(
        "--processes", type=int, metavar="N", help="client processes, each with its own policy"
    )
    reads.add_argument("--duration", type=float, metavar="SECONDS", help="how long to simulate")
    reads.add_argument("--seed", type=int, default=1, metavar="N", help="one seed replays one run exactly")
    reads.add_argument("--svg", type=Path, metavar="FILE", help="draw it there as SVG")
    reads.add_argument("--html", type=Path, metavar="FILE", help="draw it there as a page of HTML")
    reads.add_argument(
        "--within",
        type=float,
        metavar="SECONDS",
        help="exit with status 1 unless every policy recovers within this time after the trigger",
    )
    return reads


def main(arguments: list[str]) -> int:
    """Run the command; return its exit status.

    Raises:
        SystemExit: With status 2, for arguments that cannot be used.
    """
    reads = parser()
    options = reads.parse_args(arguments)
    try:
        scenario = _scenario(options)
        policies = {name: _policy(name) for name in options.policy or ["defaults"]}
        runs = {name: scenario.replace(policy=policy) for name, policy in policies.items()}
    except (TypeError, ValueError) as error:
        reads.error(str(error))
    results: dict[str, Result] = {}
    for name, one in runs.items():
        with Progress(f"{one.name}, {name}") as progress:
            results[name] = run(one, progress=progress)
        sys.stdout.write(text({name: results[name]}) + "\n")
        sys.stdout.flush()
    for draw, path in ((picture, options.svg), (page, options.html)):
        if path is not None:
            path.write_text(draw(results), encoding="utf-8")
    return _status(results, options.within)


def _scenario(options: Namespace) -> Scenario:
    """Return the outage with what was changed of it."""
    scenario = OUTAGES[options.outage].scenario.replace(seed=options.seed)
    if options.duration is not None:
        scenario = scenario.replace(duration=options.duration)
    changes: dict[str, Any] = {}
    if options.load is not None:
        capacity = sum(server.capacity or 0.0 for server in scenario.shards)
        changes["rate"] = number("load", options.load, above=0) * capacity
    if options.processes is not None:
        changes["processes"] = options.processes
    clients: Any = scenario.clients  # an open loop, as in all outages
    return scenario.replace(clients=replace(clients, **changes))


def _policy(name: str) -> Factory | None:
    if name in KNOWN:
        return KNOWN[name]
    if ":" not in name:
        raise ValueError(f"--policy {name} is neither module:attribute nor one of {', '.join(KNOWN)}")
    return factory_named(name)


def _status(results: dict[str, Result], within: float | None) -> int:
    if within is None:
        return 0
    times = [result.recovery_time for result in results.values()]
    return int(any(time is None or time > within for time in times))
