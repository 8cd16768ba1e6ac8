"""The backend's reports, of parts in states that a black-box test cannot bring about."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from examples.backend.monitoring import Monitoring
from resilience import AsyncSessionJanitor
from resilience.janitor import MemoryWatch
from resilience.janitor.usage import Usage
from resilience.testing import FakeClock
from tests.janitor.doubles import AsyncStore


class Database:
    async def read(self, work):
        return (1,)


def monitoring_of(janitor):
    return Monitoring(SimpleNamespace(janitor=janitor, database=Database(), breakers=[]))


@pytest.mark.parametrize(("resident", "status"), [(790_000_000, "pass"), (810_000_000, "warn")])
async def test_memory_that_is_high_is_a_warning(resident, status):
    watch = MemoryWatch(reader=lambda: Usage(resident, limit=1_000_000_000))
    watch.check()
    async with AsyncSessionJanitor(AsyncStore(), memory=watch, clock=FakeClock(auto=False)) as janitor:
        health = await monitoring_of(janitor).health()

    assert health["checks"]["memory"] == {"status": status, "output": f"{resident // 1_000_000}MB in use"}
    assert health["status"] == status


async def test_the_last_sweep_is_told_as_other_instants_are():
    janitor = AsyncSessionJanitor(AsyncStore(expired=2), clock=FakeClock(wall=1736937000.0))
    assert monitoring_of(janitor).cleanup_stats()["last_sweep_at"] is None
    await janitor.sweep()

    assert monitoring_of(janitor).cleanup_stats()["last_sweep_at"] == "2025-01-15T10:30:00Z"
    assert monitoring_of(janitor).cleanup_stats()["sessions_cleaned"] == 2
