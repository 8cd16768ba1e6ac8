"""The stores on a real server."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.postgres import AsyncPostgresStore, PostgresStore
from tests.stores.conformance import StoreConformance, clock, counter, six, store  # noqa: F401 - fixtures
from tests.stores.postgres.fake_time import PATIENT, async_store, sync_store


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


def test_the_arguments_are_checked():
    with pytest.raises(TypeError, match="a connection string or a psycopg_pool pool, not 5"):
        PostgresStore(5)
    with pytest.raises(ValueError, match="max_connections"):
        PostgresStore("dbname=x", max_connections=0)
    with pytest.raises(ValueError, match="timeout"):
        AsyncPostgresStore("dbname=x", timeout=0)


def test_a_string_that_cannot_be_read_is_not_shown():
    with pytest.raises(ValueError, match="cannot be read") as told:
        PostgresStore("postgresql://ada:sec ret@[/x")
    assert "ret" not in str(told.value)
    assert told.value.__suppress_context__


@pytest.mark.parametrize(
    ("database", "what"),
    [
        ("postgresql://ada:secret@db.internal:6432/shop", "postgresql://db.internal:6432/shop"),
        ("host=db.internal dbname=shop password=secret", "postgresql://db.internal/shop"),
        ("", "postgresql://localhost/"),
    ],
)
def test_messages_name_the_server_without_a_password(database, what):
    opened = PostgresStore(database)
    assert opened.what == what
    assert repr(opened) == f"<PostgresStore on {what}>"


def test_the_application_is_named_unless_the_url_names_it(url):
    names = set()
    with psycopg.connect(url, autocommit=True) as connection:
        for given in (url, f"{url}&application_name=shop"):
            with PostgresStore(given, timeout=PATIENT) as opened:
                opened.peek([Charge(counter(), "ada")])
                rows = connection.execute(
                    "SELECT application_name FROM pg_stat_activity WHERE query LIKE 'SELECT resilience_peek%'"
                )
                names |= {name for (name,) in rows}
    assert names >= {"resilience", "shop"}


def test_a_pool_of_the_application(url):
    with (
        psycopg_pool.ConnectionPool(url, min_size=1, max_size=1, open=True) as pool,
        PostgresStore(pool, timeout=PATIENT) as opened,
    ):
        assert opened.what.startswith("postgresql://127.0.0.1:")
        assert opened.take([Charge(counter(), "ada")])[0].remaining == 5
        with pool.connection() as connection:
            # What the request does, and undoes, has no part in it.
            assert connection.execute("SELECT count(*) FROM resilience_quota").fetchone() == (1,)


async def test_an_async_pool_of_the_application(url):
    async with (
        psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool,
        AsyncPostgresStore(pool, timeout=PATIENT) as opened,
    ):
        assert (await opened.take([Charge(counter(), "ada")]))[0].remaining == 5


def test_without_prepared_statements(url):
    with PostgresStore(url, timeout=PATIENT, prepare=False) as opened:
        assert opened.take([Charge(counter(), "ada"), Charge(counter("9/hour"), "ada")])[1].remaining == 8


def test_a_check_leaves_nothing_behind(url):
    with PostgresStore(url, timeout=PATIENT) as opened:
        opened.check()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM resilience_quota").fetchone() == (0,)


async def test_an_awaited_check_leaves_nothing_behind(url):
    async with AsyncPostgresStore(url, timeout=PATIENT) as opened:
        await opened.check()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM resilience_quota").fetchone() == (0,)


def test_a_check_shows_that_the_schema_is_missing(postgres_server):
    with (
        PostgresStore(f"{postgres_server.url}?options=-csearch_path%3Dnowhere", timeout=PATIENT) as opened,
        pytest.raises(StoreUnavailable, match="create_schema"),
    ):
        opened.check()
