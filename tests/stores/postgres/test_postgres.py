"""The stores on a real server."""

from __future__ import annotations

import pytest

from tests.stores.conformance import StoreConformance, clock, counter, six, store  # noqa: F401 - fixtures
from tests.stores.postgres.fake_time import async_store, sync_store


@pytest.fixture
def make_store(fake_time):
    made = []

    def make(clock):  # noqa: F811 - the fixture's name is the argument's too
        made.append(sync_store(fake_time, clock))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_async_store(fake_time):
    made = []

    def make(clock):  # noqa: F811 - the fixture's name is the argument's too
        made.append(async_store(fake_time, clock))
        return made[-1]

    yield make
    for one in made:
        one.store.end()


class TestConformance(StoreConformance):
    pass


class TestConformanceOnALoop(StoreConformance):
    @pytest.fixture
    def make_store(self, make_async_store):
        return make_async_store
