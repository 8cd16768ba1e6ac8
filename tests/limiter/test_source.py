from __future__ import annotations

from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.outage import AsyncFailsafe, Failsafe
from resilience.limiter.share import AsyncSharing, Sharing
from resilience.limiter.source import async_source_of, source_of
from resilience.testing import FakeClock
from tests.limiter.servers import AsyncServer, Server


def test_a_store_stands_by_itself_where_nothing_else_is_asked_for():
    server = Server(FakeClock())
    limiter = RateLimiter("100/minute", name="api", store=server)
    assert source_of(server, None, limiter.quotas, limiter.outage) is server
    assert source_of(server, 0.001, limiter.quotas, None) is server
    async_server = AsyncServer(FakeClock())
    assert async_source_of(async_server, None, limiter.quotas, None) is async_server
    assert async_source_of(async_server, 0.001, limiter.quotas, None) is async_server


def test_the_outage_policy_stands_before_the_share():
    limiter = RateLimiter("100/minute", name="api", store=Server(FakeClock()), on_outage="open")
    source = source_of(limiter.store, 0.1, limiter.quotas, limiter.outage)
    assert isinstance(source, Failsafe)
    assert isinstance(source._source, Sharing)
    limiter = AsyncRateLimiter("100/minute", name="api", store=AsyncServer(FakeClock()), on_outage="open")
    source = async_source_of(limiter.store, 0.1, limiter.quotas, limiter.outage)
    assert isinstance(source, AsyncFailsafe)
    assert isinstance(source._source, AsyncSharing)
