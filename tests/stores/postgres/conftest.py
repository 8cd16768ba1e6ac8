from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from resilience.stores.postgres import create_schema
from tests.stores.postgres.fake_time import FakeTime


@pytest.fixture(scope="session")
def fake_time_of_all(postgres_server):
    time = FakeTime(postgres_server, f"fake_time_{uuid4().hex}")
    yield time
    time.close()


@pytest.fixture
def fake_time(fake_time_of_all):
    """A server whose time is what a test says, with nothing counted."""
    fake_time_of_all.forget()
    return fake_time_of_all


@pytest.fixture(scope="session")
def url_of_all(postgres_server):
    name = f"store_{uuid4().hex}"
    url = f"{postgres_server.url}?options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
        create_schema(connection)
    return url


@pytest.fixture
def url(url_of_all):
    """A database with the schema, in which nothing is counted."""
    with psycopg.connect(url_of_all, autocommit=True) as connection:
        connection.execute("TRUNCATE resilience_quota")
    return url_of_all
