"""The figures as Prometheus reads them: all processes together, whichever of them is asked.

Counters only grow, also when a process ends: what ended ones had counted stays in the sum. Labels are names
of policies, states and outcomes, all of them ours; keys of limits are on no label. Units stand in the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from examples.backend.monitoring.merging import BETTER, breakers, janitor, retries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import Metric

    from examples.backend.ports.reports import Counts, Report

COUNTERS: Final = {
    "retries": ("resilience_retries", "Attempts after the first.", ("policy",)),
    "retried_calls": ("resilience_retried_calls", "Calls that ended after a retry.", ("policy", "outcome")),
    "retries_left_out": (
        "resilience_retries_left_out",
        "Attempts that the breaker or the budget kept from being made.",
        ("policy", "reason"),
    ),
    "breaker_changes": ("resilience_breaker_changes", "Changes of a breaker's state.", ("breaker", "after")),
    "limiter_refusals": ("resilience_limiter_refusals", "Calls that a limiter refused.", ("limiter",)),
    "store_outages": (
        "resilience_limiter_store_outages",
        "Calls that a limiter decided without its store.",
        ("limiter", "policy"),
    ),
    "sweeps": ("resilience_janitor_sweeps", "Sweeps of the janitors.", ("outcome",)),
    "sessions_cleaned": ("resilience_janitor_sessions_cleaned", "Expired sessions that were removed.", ()),
    "connections_closed": ("resilience_janitor_connections_closed", "Sockets that were closed.", ()),
    "memory_alerts": ("resilience_janitor_memory_alerts", "How often memory has become high.", ()),
}
"""What is counted: the metric's name (Prometheus adds `_total`), what it is, and its labels."""


def text(reports: Sequence[Report], counted: Counts) -> bytes:
    """Return the metrics.

    Args:
        reports: Those of the processes that are there.
        counted: What these and all before them have counted.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected([*_counters(counted), *_gauges(reports)]))
    return generate_latest(registry)


class _Collected:
    """Gives a registry what was collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _counters(counted: Counts) -> Iterator[Metric]:
    for family, (name, meaning, labels) in COUNTERS.items():
        metric = CounterMetricFamily(name, meaning, labels=labels)
        for values, number in counted.get(family, {}).items():
            metric.add_metric(values.split("|") if labels else [], number)
        yield metric


def _gauges(reports: Sequence[Report]) -> Iterator[Metric]:
    now = reports[0]["process"]["seen_at"]
    states = GaugeMetricFamily(
        "resilience_breaker_state", "1 for the state that a breaker is in.", labels=["breaker", "state"]
    )
    calls = _by("resilience_breaker_calls", "Calls in the window.", "breaker")
    failures = _by("resilience_breaker_failures", "Failures in the window.", "breaker")
    for breaker in breakers(reports, now):
        for state in BETTER:
            states.add_metric([breaker["name"], state], float(state == breaker["state"]))
        calls.add_metric([breaker["name"]], breaker["calls"])
        failures.add_metric([breaker["name"]], breaker["failures"])
    yield from (states, calls, failures)

    tokens = _by("resilience_retry_budget_tokens", "Retries that are funded.", "policy")
    capacity = _by("resilience_retry_budget_capacity_tokens", "Retries that a full budget funds.", "policy")
    for name, policy in retries(reports)["policies"].items():
        tokens.add_metric([name], policy["budget"]["tokens"])
        capacity.add_metric([name], policy["budget"]["capacity"])
    yield from (tokens, capacity)

    yield _one("resilience_janitor_running", "Whether every janitor runs.", janitor(reports)["is_running"])
    memory: list[dict[str, Any]] = [report["process"]["memory"] for report in reports]
    resident = [one["resident"] for one in memory]
    if None not in resident:
        yield _one("backend_memory_resident_bytes", "Memory in use, of all processes.", sum(resident))
    yield _one(
        "backend_memory_high_processes", "Processes that use much.", sum(one["high"] for one in memory)
    )
    yield _one("backend_processes", "Processes heard of within ten seconds.", len(reports))
    draining = sum(report["process"]["draining"] for report in reports)
    yield _one("backend_draining_processes", "Those of them that are about to end.", draining)


def _by(name: str, meaning: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=[label])


def _one(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)
