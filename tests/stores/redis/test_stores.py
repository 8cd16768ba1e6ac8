from __future__ import annotations

from uuid import uuid4

import pytest
import redis
import redis.asyncio

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
