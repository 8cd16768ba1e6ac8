from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest

from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.postgres.link import AsyncLink, Link
from resilience.stores import StoreUnavailable
from tests.proxy import Proxy

SETTINGS = {"timeout": 10.0, "lock_timeout": 1.0, "connections": 2, "clock": SYSTEM_CLOCK}


class Pool:
    """Lends one and the same connection, as long as it lives; psycopg_pool does so, and more."""

    def __init__(self, url, **settings):
        self.url, self.settings = url, settings
        self.connections = []

    @contextmanager
    def connection(self):
        if not self.connections or self.connections[-1].closed:
            self.connections.append(psycopg.connect(self.url, **self.settings))
        with self.connections[-1].transaction() if self.settings.get("inside") else nothing():
            yield self.connections[-1]

    def close(self):
        for connection in self.connections:
            connection.close()


class AsyncPool(Pool):
    @asynccontextmanager
    async def connection(self):
        if not self.connections or self.connections[-1].closed:
            self.connections.append(await psycopg.AsyncConnection.connect(self.url, **self.settings))
        yield self.connections[-1]

    async def close(self):
        for connection in self.connections:
            await connection.close()


@contextmanager
def nothing():
    yield


@pytest.fixture
def pool(postgres_server):
    pool = Pool(postgres_server.url)
    yield pool
    pool.close()


@pytest.fixture
async def async_pool(postgres_server):
    pool = AsyncPool(postgres_server.url)
    yield pool
    await pool.close()


@pytest.fixture
def link(postgres_server):
    link = Link(postgres_server.url, **SETTINGS)
    yield link
    link.close()


@pytest.fixture
async def async_link(postgres_server):
    link = AsyncLink(postgres_server.url, **SETTINGS)
    yield link
    await link.close()


@pytest.mark.parametrize("make", [Link, AsyncLink])
@pytest.mark.parametrize(
    ("option", "value", "error"),
    [("timeout", 0, ValueError), ("lock_timeout", "1", TypeError), ("connections", 0, ValueError)],
)
def test_what_makes_no_sense_is_refused(make, option, value, error):
    with pytest.raises(error, match=option):
        make("postgresql://db/shop", **{**SETTINGS, option: value})


@pytest.mark.parametrize("make", [Link, AsyncLink])
def test_what_lends_no_connections_is_refused(make):
    with pytest.raises(TypeError, match="needs a URL, or a pool that lends connections, not 7"):
        make(7, **SETTINGS)


# --- one query, one transaction ------------------------------------------------------------------------


def test_values_are_values_whatever_they_hold(link):
    assert link.run("SELECT %s, %s::int", "'; DROP TABLE x; -- \\ %s", 5) == [
        ("'; DROP TABLE x; -- \\ %s", 5)
    ]


async def test_values_are_values_whatever_they_hold_on_a_loop(async_link):
    assert await async_link.run("SELECT %s, %s::int", "' %s", 5) == [("' %s", 5)]


def test_a_statement_without_rows_has_none(link):
    assert link.run("SET LOCAL work_mem = '1MB'") == []


async def test_a_statement_without_rows_has_none_on_a_loop(async_link):
    assert await async_link.run("SET LOCAL work_mem = '1MB'") == []


def test_the_limits_hold_for_the_one_transaction(link):
    shown = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
    ((statement, lock),) = link.run(shown)
    assert (statement[:2], lock) == ("10", "1s") or statement.endswith("ms")
    with link._own.lent(link_call()) as connection:
        assert connection.execute(shown).fetchone() == ("0", "0")


def link_call():
    from resilience.janitor.postgres.call import Call

    return Call("db", SYSTEM_CLOCK, 5.0, 1.0)


def test_parts_of_a_statement_happen_together_or_not_at_all(link):
    with pytest.raises(StoreUnavailable, match="division by zero"):
        link.run("CREATE TABLE link_half (a int); SELECT 1 / 0")

    assert link.run("SELECT to_regclass('link_half')") == [(None,)]


# --- lent connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_pool_lends_its_connections(pool, autocommit):
    pool.settings["autocommit"] = autocommit
    link = Link(pool, **SETTINGS)
    link.run("CREATE TABLE IF NOT EXISTS link_pool (a int)")
    link.run("INSERT INTO link_pool VALUES (1)")
    (connection,) = pool.connections
    connection.rollback()  # whatever is not committed by now is lost

    assert link.run("SELECT count(*) > 0 FROM link_pool") == [(True,)]
    assert "wait" not in vars(connection)  # its own ways again
    link.run("DROP TABLE link_pool")
    link.close()
    assert not connection.closed


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_pool_lends_its_connections_on_a_loop(async_pool, autocommit):
    async_pool.settings["autocommit"] = autocommit
    link = AsyncLink(async_pool.connection, **SETTINGS)
    await link.run("CREATE TABLE IF NOT EXISTS link_async_pool (a int)")
    (connection,) = async_pool.connections
    await connection.rollback()

    assert await link.run("SELECT count(*) FROM link_async_pool") == [(0,)]
    await link.run("DROP TABLE link_async_pool")
    await link.close()
    assert not connection.closed


def test_any_function_that_lends_will_do(postgres_server):
    link = Link(lambda: psycopg.connect(postgres_server.url), **SETTINGS)

    assert link.run("SELECT 1") == [(1,)]


def test_rows_are_tuples_whatever_the_pool_prefers(pool):
    pool.settings["row_factory"] = psycopg.rows.dict_row

    assert Link(pool, **SETTINGS).run("SELECT 1 AS a") == [(1,)]


def test_a_connection_in_a_transaction_is_refused(pool):
    link = Link(pool, **SETTINGS)
    link.run("SELECT 1")
    pool.connections[0].execute("SELECT 1")
    with pytest.raises(ValueError, match="a connection of its own, not one in a transaction"):
        link.run("SELECT 1")

    pool.connections[0].rollback()
    assert link.run("SELECT 1") == [(1,)]


def test_a_lent_connection_that_was_lost_is_asked_for_again(pool, link):
    lent = Link(pool, **SETTINGS)
    lent.run("SELECT 1")
    link.run("SELECT pg_terminate_backend(%s)", pool.connections[0].info.backend_pid)

    assert lent.run("SELECT 1") == [(1,)]
    assert len(pool.connections) == 2


# --- servers that do not answer ------------------------------------------------------------------------


def test_a_lent_connection_is_bounded_too_and_closed(postgres_server):
    with Proxy(postgres_server.port) as proxy:
        pool = Pool(f"host=127.0.0.1 port={proxy.port} user=postgres dbname=postgres")
        link = Link(pool, **{**SETTINGS, "timeout": 0.2})
        link.run("SELECT 1")
        proxy.blackhole()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            link.run("SELECT 1")

    assert [connection.closed for connection in pool.connections] == [True]


async def test_a_lent_connection_is_bounded_too_and_closed_on_a_loop(postgres_server):
    with Proxy(postgres_server.port) as proxy:
        pool = AsyncPool(f"host=127.0.0.1 port={proxy.port} user=postgres dbname=postgres")
        link = AsyncLink(pool, **{**SETTINGS, "timeout": 0.2})
        await link.run("SELECT 1")
        proxy.blackhole()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await link.run("SELECT 1")

    assert [connection.closed for connection in pool.connections] == [True]


async def test_a_cancelled_call_leaves_at_once(async_link):
    asking = asyncio.ensure_future(async_link.run("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.05)
    asking.cancel()
    done, _ = await asyncio.wait([asking], timeout=5)

    assert done == {asking}
    assert asking.cancelled()
    assert await async_link.run("SELECT 1") == [(1,)]


def test_a_conflict_is_repeated_as_a_whole(link):
    link.run("CREATE SEQUENCE IF NOT EXISTS link_conflicts")
    link.run("SELECT setval('link_conflicts', 1)")
    failing = (
        "DO $$ BEGIN IF nextval('link_conflicts') < 4 THEN"
        " RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'again'; END IF; END $$"
    )
    assert link.run(failing) == []
    assert link.run("SELECT last_value::int FROM link_conflicts; DROP SEQUENCE link_conflicts") == []


async def test_a_conflict_is_repeated_as_a_whole_on_a_loop(async_link):
    await async_link.run("CREATE SEQUENCE IF NOT EXISTS link_async_conflicts")
    await async_link.run("SELECT setval('link_async_conflicts', 1)")
    failing = (
        "DO $$ BEGIN IF nextval('link_async_conflicts') < 4 THEN"
        " RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = 'again'; END IF; END $$"
    )
    assert await async_link.run(failing) == []
    await async_link.run("DROP SEQUENCE link_async_conflicts")
