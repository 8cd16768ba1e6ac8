"""What a process says of itself: a record that JSON can hold, for operators and for the other processes."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any, Final

from examples.backend.kit import AsyncKit, settled
from resilience.janitor.usage import SystemUsage
from resilience.retry.budget import budget_of

if TYPE_CHECKING:
    from examples.backend.assembly import Backend
    from examples.backend.ports.reports import Report
    from examples.backend.telemetry import Recorder
    from resilience.limiter import LimiterStats

MOST_KEYS: Final = 100
"""Of one limiter."""

usage: Final = SystemUsage()


async def of_process(backend: Backend, recorder: Recorder, now: float) -> Report:
    """Return what there is to say of this process; instants are Unix seconds."""
    janitor = backend.janitor.stats()
    memory = usage()
    retries = {name: manager.stats()._asdict() for name, manager in backend.retries.items()}
    return {
        "process": {
            "id": recorder.process,
            "pid": os.getpid(),
            "host": platform.node(),
            "app": "asgi" if isinstance(backend.kit, AsyncKit) else "wsgi",
            "started_at": recorder.started_at,
            "seen_at": now,
            "draining": backend.draining,
            "memory": {"resident": memory.resident, "limit": memory.limit, "high": janitor.memory_high},
        },
        "breakers": {
            breaker.name: {
                **breaker.snapshot()._asdict(),
                "timeline": recorder.timeline(breaker),
                "load": {str(step): figures for step, figures in recorder.load(breaker).items()},
            }
            for breaker in backend.breakers
        },
        "retries": {name: {**counted, "budget": _budget(name)} for name, counted in retries.items()},
        "janitor": janitor.as_dict(),
        "limiters": await _limiters_of_its_own(backend, recorder),
        "counts": {**recorder.counts(), **_retry_counts(retries), **_janitor_counts(janitor.as_dict())},
        "events": recorder.events(),
    }


async def limiters(backend: Backend, recorder: Recorder) -> list[dict[str, Any]]:
    """Return what each limiter counts, as this process sees it.

    Raises:
        StoreUnavailable: The store where they are counted does not answer.
    """
    return [_limiter(await settled(each.stats(MOST_KEYS)), recorder) for each in backend.limits.all]


async def _limiters_of_its_own(backend: Backend, recorder: Recorder) -> list[dict[str, Any]]:
    """Return what the limiters count that no other process can see."""
    if all(each.store.shared for each in backend.limits.all):
        return []
    return await limiters(backend, recorder)


def _limiter(stats: LimiterStats, recorder: Recorder) -> dict[str, Any]:
    entries = [
        {
            "key": recorder.hashed(entry.key),
            "quota": str(entry.quota),
            "count": entry.count,
            "limit": entry.quota.limit,
            "reset_at": entry.reset_at,
            "reset_after": entry.reset_after,
        }
        for entry in stats.entries
    ]
    return {**stats._asdict(), "entries": entries}


def _budget(name: str) -> dict[str, float]:
    budget = budget_of(name)
    return {"tokens": budget.tokens, "capacity": budget.capacity}


def _retry_counts(retries: dict[str, dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the retry policies' counts; each key is the labels' values, joined by `|`."""
    counts: dict[str, dict[str, int]] = {"retries": {}, "retried_calls": {}, "retries_left_out": {}}
    for name, counted in retries.items():
        counts["retries"][name] = counted["total_retries"]
        counts["retried_calls"][f"{name}|success"] = counted["successful_retries"]
        counts["retried_calls"][f"{name}|failure"] = counted["failed_retries"]
        counts["retries_left_out"][f"{name}|circuit-breaker"] = counted["circuit_breaker_rejections"]
        counts["retries_left_out"][f"{name}|budget"] = counted["budget_rejections"]
    return counts


def _janitor_counts(stats: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {
        "sweeps": {"success": stats["sweeps"], "failure": stats["failed_sweeps"]},
        "sessions_cleaned": {"": stats["sessions_cleaned"]},
        "connections_closed": {"": stats["connections_closed"]},
        "memory_alerts": {"": stats["memory_alerts"]},
    }
