"""Amplification: how many attempts a call comes to, at what share of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from experiments import at_least, at_most, compared, controls
from experiments.runs import run_all
from resilience.simulation import Constant, OpenLoop, Scenario, Server, failing
from resilience.simulation.charts import Line, Panel, svg
from resilience.simulation.controls import defaults, retries_only

if TYPE_CHECKING:
    from experiments import Mark, Progress
    from experiments.runs import Summary

TITLE = "Attempts per call, by the share of attempts that fail"

LIMITS: Final = {0.01: 1.02, 0.1: 1.12, 0.5: 1.12, 1.0: 1.01}
BURST: Final = 20
"""Seconds at the beginning that are the first burst: full budgets being spent."""

OURS: Final[dict[str, Any]] = {"budget alone": retries_only, "defaults": defaults}
PEERS: Final[dict[str, Any]] = {
    "three naive retries": controls.naive_retries,
    "AWS until 2026": controls.aws_old,
    "AWS now": controls.aws_new,
    "gRPC": controls.grpc,
    "Finagle": controls.finagle,
    "Envoy": controls.envoy,
    "SRE 10 %": controls.sre,
}

DRAWN: Final = ("budget alone", "defaults", "three naive retries", "AWS until 2026", "Finagle", "Envoy")
"""As many as a figure can tell apart; the others stay between 1.0 and 1.1."""


def scenario(policy: Any, share: float, *, long: bool) -> Scenario:
    """Return a server with any number of workers, which fails a share of what it does."""
    duration = 140.0 if long else 60.0
    return Scenario(
        clients=OpenLoop(rate=400.0, processes=50) if long else OpenLoop(rate=80.0, processes=10),
        servers=Server(workers=None, service_time=Constant(0.01)),
        triggers=(failing(share, start=0.0, length=duration),),
        duration=duration,
        policy=policy,
    )


def amplification(one: Summary) -> float:
    """Return the attempts per call after the first burst."""
    return sum(one.series.attempts[BURST:]) / sum(one.series.offered[BURST:])


def success(one: Summary) -> float:
    """Return the share of calls that succeeded after it; those of the last second have not all ended."""
    return sum(one.series.good[BURST:-1]) / sum(one.series.offered[BURST:-1])


def run(long: bool, progress: Progress) -> list[Mark]:
    """Run it, and return the marks."""
    policies = OURS | (PEERS if long else {})
    wanted = [(name, share) for name in policies for share in _shares(name, long)]
    summaries = run_all(
        [scenario(policies[name], share, long=long) for name, share in wanted],
        progress,
        workers=None if long else 1,
    )
    measured = dict(zip(wanted, summaries, strict=True))
    marks: list[Mark] = []
    for name in OURS:
        marks += [
            at_most(f"{name}: {share:.0%} fail", amplification(measured[name, share]), limit, digits=3)
            for share, limit in LIMITS.items()
        ]
        worst = max(amplification(measured[name, share]) for share in _shares(name, long))
        marks += [
            at_most(f"{name}: the worst share", worst, 1.30, digits=3),
            at_least(f"{name}: calls that succeed, 10% fail", success(measured[name, 0.1]), 0.998, digits=4),
        ]
    if long:
        marks += [
            compared(f"{name}: {share:.0%} fail", amplification(measured[name, share]))
            for name in PEERS
            for share in LIMITS
        ]
    return marks


def _shares(name: str, long: bool) -> list[float]:
    if not long:
        return list(LIMITS)
    between = [0.02, 0.05, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    return sorted([*LIMITS, *between]) if name in OURS else list(LIMITS)


def figure(long: bool, progress: Progress) -> str:
    """Draw the attempts per call over the share that fails."""
    policies = OURS | (PEERS if long else {})
    policies = {name: policies[name] for name in DRAWN if name in policies}
    lines: list[Line] = []
    for name, policy in policies.items():
        shares = _shares(name, long)
        summaries = run_all(
            [scenario(policy, share, long=long) for share in shares], progress, workers=None if long else 1
        )
        lines.append(
            Line(name, [(share, amplification(one)) for share, one in zip(shares, summaries, strict=True)])
        )
    return svg(TITLE, [Panel(title="attempts per call", lines=lines, x_label="share that fails", most=4.0)])
