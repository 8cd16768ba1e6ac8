from __future__ import annotations

from uuid import uuid4

import pytest
import redis
import redis.asyncio

from resilience._core.counting import Charge
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.stores import StoreUnavailable
from resilience.stores.redis import AsyncRedisStore, RedisStore
from tests.stores.conformance import (  # noqa: F401 - fixtures
    StoreConformance,
    awaited,
    counter,
    six,
    store,
)
from tests.stores.redis.fake_time import ServersClock, fake_time, tell

PATIENT = 30.0


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as one:
        yield one


@pytest.fixture
def prefix():
    return f"test-{uuid4().hex}"


@pytest.fixture
def clock(client):
    one = ServersClock()
    one.client = client
    return one


@pytest.fixture
def make_store(redis_server, client, prefix):
    made = []

    def make(clock):
        tell(client, clock)
        made.append(
            RedisStore(redis_server.url, prefix=prefix, timeout=PATIENT, remember_refusals=0, clock=clock)
        )
        return made[-1]

    with fake_time():
        yield make
    for one in made:
        one.close()


class TestConformance(StoreConformance):
    pass


class TestConformanceOnALoop(StoreConformance):
    @pytest.fixture
    def make_store(self, redis_server, client, prefix, awaited):  # noqa: F811 - the fixture's name
        def make(clock):
            tell(client, clock)
            return awaited(
                lambda: AsyncRedisStore(
                    redis_server.url, prefix=prefix, timeout=PATIENT, remember_refusals=0, clock=clock
                )
            )

        with fake_time():
            yield make


# --- what is not for every store -----------------------------------------------------------------


def test_moves_a_limiter_by_one_argument(redis_server, prefix):
    for _ in range(2):
        with RedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as shared:
            login = RateLimiter(
                "6/15 minutes", "100/hour gcra", name="login", store=shared, require_shared=True
            )
            decision = login.try_acquire("ada", "192.0.2.1")
    assert decision.remaining == 4


async def test_moves_a_limiter_of_a_loop_by_one_argument(redis_server, prefix):
    for _ in range(2):
        async with AsyncRedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as shared:
            login = AsyncRateLimiter("6/15 minutes", "100/hour gcra", name="login", store=shared)
            decision = await login.try_acquire("ada", "192.0.2.1")
    assert decision.remaining == 4


def test_takes_a_client_and_leaves_its_connections_alone(redis_server, client, prefix):
    with RedisStore(client, prefix=prefix, timeout=PATIENT) as shared:
        client.ping()
        assert shared.take([Charge(counter(), "ada")])[0].remaining == 5
        assert shared.what == f"Redis at 127.0.0.1:{redis_server.port}"
    assert client.ping()


async def test_takes_a_client_of_a_loop(redis_server, prefix):
    client = redis.asyncio.Redis.from_url(redis_server.url)
    async with AsyncRedisStore(client, prefix=prefix, timeout=PATIENT) as shared:
        assert (await shared.take([Charge(counter(), "ada")]))[0].remaining == 5
    await client.aclose()


def test_checks_all_that_it_will_need(redis_server, client, prefix):
    with RedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as shared:
        shared.check()
        assert not list(client.scan_iter(f"{prefix}:check*"))
    with (
        RedisStore("redis://127.0.0.1:1", timeout=PATIENT) as shared,
        pytest.raises(StoreUnavailable, match=r"the limits on Redis at 127\.0\.0\.1:1 are unavailable"),
    ):
        shared.check()


async def test_checks_all_that_it_will_need_on_a_loop(redis_server, client, prefix):
    async with AsyncRedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as shared:
        await shared.check()
        assert not list(client.scan_iter(f"{prefix}:check*"))
