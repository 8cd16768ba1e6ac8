from __future__ import annotations

import pytest

from tests.janitor.conformance import SessionConformance, store  # noqa: F401 - a fixture
from tests.janitor.places import InPostgres


@pytest.fixture
def clock(postgres_server):
    place = InPostgres(postgres_server)
    yield place
    place.close()


class TestConformance(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open


class TestConformanceOnALoop(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open_async
