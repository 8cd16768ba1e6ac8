"""One report out of those of several processes: pure functions, and the shapes that operators get.

Counts are added. A breaker is shown once, in the worst of the states that its processes are in: where they
share a board they agree but for an instant. What a process has counted for itself alone, such as limits in
memory, is listed beside what the others have.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from examples.backend.ports.reports import added
from examples.backend.schemas import timestamp
from examples.backend.telemetry import KEPT, MOST_EVENTS, STEP
from resilience.janitor.memory import for_people
from resilience.retry.stats import RetryStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from examples.backend.ports.reports import Report

BETTER: Final = ("closed", "forced-closed", "half-open", "open", "forced-open")
"""States, from the best to the worst."""


def instant(unix_seconds: float) -> str:
    """Return an instant as ISO 8601 has it, in UTC, to the millisecond.

    Example:
        >>> instant(1736937000.25)
        '2025-01-15T10:30:00.250Z'
    """
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# --- breakers ------------------------------------------------------------------------------------


def breakers(reports: Sequence[Report], now: float) -> list[dict[str, Any]]:
    """Return each breaker once, with its calls in all processes and its last ten minutes."""
    by_name: dict[str, dict[str, dict[str, Any]]] = {}
    for report in reports:
        for name, breaker in report["breakers"].items():
            by_name.setdefault(name, {})[report["process"]["id"]] = breaker
    return [_breaker(by_process, now) for by_process in by_name.values()]


def _breaker(by_process: Mapping[str, dict[str, Any]], now: float) -> dict[str, Any]:
    every = list(by_process.values())
    state = max((breaker["state"] for breaker in every), key=BETTER.index)
    in_it = [breaker for breaker in every if breaker["state"] == state]
    waits = [breaker["time_until_retry"] for breaker in in_it if breaker["time_until_retry"] is not None]
    return {
        **in_it[0],
        **{name: sum(breaker[name] for breaker in every) for name in ("calls", "failures", "slow", "probes")},
        "time_until_retry": min(waits, default=None),
        "processes": {process: breaker["state"] for process, breaker in by_process.items()},
        "timeline": [
            {"at": instant(at), "state": each} for at, each in worst_of([one["timeline"] for one in every])
        ],
        "load": load([breaker["load"] for breaker in every], now),
    }


def worst_of(timelines: Sequence[Sequence[tuple[float, str]]]) -> list[tuple[float, str]]:
    """Return the worst state at each instant: since when, in Unix seconds, it was which.

    A process's timeline counts from its own beginning.

    Example:
        >>> one = [(0.0, "closed"), (5.0, "open"), (9.0, "closed")]
        >>> other = [(3.0, "closed"), (5.1, "open"), (9.2, "closed")]
        >>> worst_of([one, other])
        [(0.0, 'closed'), (5.0, 'open'), (9.2, 'closed')]
    """
    changes = sorted((at, place, state) for place, timeline in enumerate(timelines) for at, state in timeline)
    present: dict[int, str] = {}
    worst: list[tuple[float, str]] = []
    for at, place, state in changes:
        present[place] = state
        now_worst = max(present.values(), key=BETTER.index)
        if not worst or worst[-1][1] != now_worst:
            worst.append((at, now_worst))
    return worst


def load(loads: Sequence[Mapping[str, Sequence[int]]], now: float) -> dict[str, Any]:
    """Return how many calls there were and failed, in equal steps from `from` on; the last one is running."""
    calls: Counter[int] = Counter()
    failures: Counter[int] = Counter()
    for each in loads:
        for step, (called, failed) in each.items():
            calls[int(step)] += called
            failures[int(step)] += failed
    last = int(now // STEP)
    steps = range(last - int(KEPT // STEP) + 1, last + 1)
    return {
        "from": instant(steps[0] * STEP),
        "step": STEP,
        "calls": [calls[step] for step in steps],
        "failures": [failures[step] for step in steps],
    }


# --- the others ----------------------------------------------------------------------------------


def retries(reports: Sequence[Report]) -> dict[str, Any]:
    """Return what was retried: in all, and by dependency, with what is left of all processes' budgets."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for report in reports:
        for name, policy in report["retries"].items():
            by_name.setdefault(name, []).append(policy)
    stats = {name: _added_stats(policies) for name, policies in by_name.items()}
    total = RetryStats(*map(sum, zip(*stats.values(), strict=True)))
    policies = {
        name: {**stats[name].as_dict(), "budget": _summed([policy["budget"] for policy in policies])}
        for name, policies in by_name.items()
    }
    return {**total.as_dict(), "policies": policies}


def _added_stats(policies: Iterable[Mapping[str, Any]]) -> RetryStats:
    return RetryStats(**_summed([{name: policy[name] for name in RetryStats._fields} for policy in policies]))


def _summed(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(record[name] for record in records) for name in records[0]}


def janitor(reports: Sequence[Report]) -> dict[str, Any]:
    """Return what the janitors have done; `memory` is that of all processes."""
    janitors = [report["janitor"] for report in reports]
    last = max(janitors, key=lambda one: one["last_sweep_at"] or 0.0)
    resident = [report["process"]["memory"]["resident"] for report in reports]
    added = ("sessions_cleaned", "connections_closed", "memory_alerts", "sweeps", "failed_sweeps")
    return {
        **janitors[0],
        **{name: sum(one[name] for one in janitors) for name in added},
        "is_running": all(one["is_running"] for one in janitors),
        "last_sweep_at": timestamp(last["last_sweep_at"]),
        "last_sweep_elapsed": last["last_sweep_elapsed"],
        "memory": for_people(None if None in resident else sum(resident)),
        "memory_high": any(one["memory_high"] for one in janitors),
    }


def limiters(
    seen: Sequence[Sequence[Mapping[str, Any]]], refusals: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return what each limiter counts, the fullest keys first.

    Args:
        seen: What this process sees, then what each other one has for itself alone.
        refusals: How many calls each limiter has refused.
    """
    by_name: dict[str, dict[str, Any]] = {}
    for limiter in (limiter for one in seen for limiter in one):
        known = by_name.setdefault(
            limiter["name"], {"name": limiter["name"], "active_keys": 0, "entries": [], "complete": True}
        )
        known["active_keys"] += limiter["active_keys"]
        known["entries"] += [
            {**entry, "reset_at": timestamp(entry["reset_at"])} for entry in limiter["entries"]
        ]
        known["complete"] = known["complete"] and limiter["complete"]
        known["refused"] = refusals.get(limiter["name"], 0)
    for limiter in by_name.values():
        limiter["entries"].sort(key=lambda entry: entry["count"] / entry["limit"], reverse=True)
    return list(by_name.values())


def processes(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """Return the processes, the oldest first."""
    ordered = sorted((report["process"] for report in reports), key=lambda process: process["started_at"])
    return [
        {**process, "started_at": instant(process["started_at"]), "seen_at": instant(process["seen_at"])}
        for process in ordered
    ]


def events(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """Return the last events of all processes, the newest first."""
    every = [event for report in reports for event in report["events"]]
    every.sort(key=lambda event: event["at"], reverse=True)
    return [{**event, "at": instant(event["at"])} for event in every[:MOST_EVENTS]]


def counts(reports: Iterable[Report]) -> dict[str, dict[str, int]]:
    """Return what all of them have counted."""
    return added([report["counts"] for report in reports])
