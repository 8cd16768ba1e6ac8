from __future__ import annotations

import asyncio
import copy
import gc
import sys
import types
import weakref

import psycopg
import psycopg_pool
import pytest
import redis
import redis.asyncio
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from resilience.events import ConnectionHeld, ConnectionLost, ConnectionReturned
from resilience.janitor import leaks
from resilience.janitor.leaks import LeakDetector
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.threads import together


class Connection:
    pass


class Pool:
    """Gives out connections, and takes back what it has given."""

    def __init__(self, *connections):
        self.idle = list(connections or [Connection()])
        self.out = set()

    def getconn(self, key=None):
        connection = self.idle.pop()
        self.out.add(connection)
        return connection

    def putconn(self, conn, close=False):
        self.out.remove(conn)
        self.idle.append(conn)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def detector(clock):
    return LeakDetector(30.0, clock=clock)


def takes(pool):
    """Take a connection: the function whose name is looked for in a stack."""
    return pool.getconn()


def innermost(stack, function):
    """Return the lines of a stack that are in a function of this file."""
    return [line for line in stack if f"{__file__}:" in line and line.endswith(f" in {function}")]


# --- what is told ---------------------------------------------------------------------------------------


def test_a_connection_that_is_out_for_long_is_told_once_and_once_more_when_it_comes_back(clock, caplog):
    told = []
    hooks = {"on_held": told.append, "on_returned": told.append, "on_lost": told.append}
    detector, pool = LeakDetector(30.0, clock=clock, **hooks), Pool()
    detector.watch(pool, "orders")
    connection = takes(pool)
    clock.sleep(30.0)
    assert detector.check() == []
    clock.sleep(0.5)

    (held,) = detector.check()

    assert isinstance(held, ConnectionHeld)
    assert (held.pool, held.seconds) == ("orders", 30.5)
    assert held.connection == f"Connection at {id(connection):#x}"
    assert held.stack[-1] == f"{__file__}:{takes.__code__.co_firstlineno + 2} in takes"
    assert innermost(
        held.stack[:-1],
        test_a_connection_that_is_out_for_long_is_told_once_and_once_more_when_it_comes_back.__name__,
    )
    assert detector.check() == []
    clock.sleep(10.0)
    pool.putconn(connection)
    assert told == [held, ConnectionReturned("orders", held.connection, 40.5, held.stack)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        f"a connection of the pool orders ({held.connection}) has been out for 30.5 s",
        f"a connection of the pool orders ({held.connection}) has come back after 40.5 s",
    ]
    assert caplog.messages[0].endswith(f"it was taken by {' > '.join(held.stack)}")
    assert detector.stats().as_dict() == {
        "outstanding": 0,
        "held": 1,
        "returned_late": 1,
        "lost": 0,
        "unnoted": 0,
    }


def test_one_that_comes_back_in_time_is_not_told(detector, clock, caplog):
    pool = Pool()
    detector.watch(pool)
    pool.putconn(takes(pool))
    clock.sleep(100.0)

    assert detector.check() == []
    assert not caplog.records
    assert detector.stats() == (0, 0, 0, 0, 0)


def test_one_that_came_back_late_is_told_even_if_nobody_checked(clock):
    told = []
    detector, pool = LeakDetector(30.0, clock=clock, on_returned=told.append), Pool()
    detector.watch(pool)
    connection = takes(pool)
    clock.sleep(31.0)
    pool.putconn(connection)

    assert [(type(event), event.seconds) for event in told] == [(ConnectionReturned, 31.0)]


def test_one_that_is_thrown_away_is_told_as_lost(clock, caplog):
    told = []
    detector = LeakDetector(30.0, clock=clock, on_lost=told.append)

    class Forgetful(Pool):
        def getconn(self):
            return Connection()

    pool = Forgetful()
    detector.watch(pool, "orders")
    address = id(takes(pool))
    gc.collect()
    clock.sleep(2.0)

    (lost,) = detector.check()

    assert isinstance(lost, ConnectionLost)
    assert lost[:3] == ("orders", f"Connection at {address:#x}", 2.0)
    assert innermost(lost.stack, "takes")
    assert told == [lost]
    assert "was thrown away instead of given back, after 2.0 s" in caplog.text
    assert detector.check() == []
    assert detector.stats() == (0, 0, 0, 1, 0)


def test_a_new_connection_at_the_address_of_a_lost_one_is_another(detector):
    detector.taken(Connection(), "orders")
    ((address, note),) = detector._out.items()
    second = Connection()
    detector._out[id(second)] = detector._out.pop(address)  # as if it lay where the first did
    note.key = id(second)

    detector.returned(second)
    assert detector.stats().outstanding == 1, "its own return was taken for that of the lost one"
    detector.taken(second, "orders")
    (lost,) = detector.check()

    assert isinstance(lost, ConnectionLost)
    assert [held.connection for held in detector.outstanding()] == [f"Connection at {id(second):#x}"]


def test_what_is_out_can_be_seen_at_any_time(detector, clock):
    connections = [Connection(), Connection()]
    detector.taken(connections[0], "orders")
    clock.sleep(1.0)
    detector.taken(connections[1], "mail")

    assert [(held.pool, held.seconds) for held in detector.outstanding()] == [("orders", 1.0), ("mail", 0.0)]
    detector.returned(connections[0])
    assert [held.pool for held in detector.outstanding()] == ["mail"]


# --- bounds ---------------------------------------------------------------------------------------------


def test_it_holds_on_to_a_stated_number_of_notes(clock):
    detector = LeakDetector(30.0, clock=clock, most=2)
    connections = [Connection() for _ in range(3)]
    for connection in connections:
        detector.taken(connection)

    assert detector.stats().outstanding == 2
    assert detector.stats().unnoted == 1
    for connection in connections:
        detector.returned(connection)
    assert detector.stats().outstanding == 0


@pytest.fixture
def lose_at(monkeypatch):
    """Throw away a connection that a detector has noted at an address."""

    def lose_at(address, detector):
        monkeypatch.setattr(leaks, "id", lambda _: address, raising=False)
        detector.taken(Connection())

    return lose_at


def test_what_is_thrown_away_while_nobody_checks_is_bounded_too(lose_at):
    detector = LeakDetector(30.0, most=3)
    for _ in range(10):
        lose_at(1, detector)

    assert len(detector.check()) == 4  # the last one is still noted at that address
    assert detector.check() == []


def test_one_that_is_thrown_away_is_lost_however_many_were_after_it(clock, lose_at):
    detector = LeakDetector(30.0, clock=clock, most=3)
    for address in (1, *[2] * 10):
        lose_at(address, detector)
    clock.sleep(31.0)

    assert {type(event) for event in detector.check()} == {ConnectionLost}
    assert detector.stats().outstanding == 0
    assert detector.check() == []


def test_one_at_the_address_of_a_lost_one_needs_no_place_of_its_own(lose_at):
    detector = LeakDetector(30.0, most=1)
    lose_at(1, detector)
    lose_at(1, detector)

    assert detector.stats()[-1] == 0
    assert len(detector.check()) == 2


def test_a_stack_is_cut_at_its_outer_end(clock):
    detector, pool = LeakDetector(30.0, clock=clock, depth=2), Pool()
    detector.watch(pool)
    connection = takes(pool)

    (held,) = detector.outstanding()

    assert [line.split(" in ")[1] for line in held.stack] == [
        test_a_stack_is_cut_at_its_outer_end.__name__,
        "takes",
    ]
    assert connection


def test_it_keeps_no_connection_and_no_data_alive(detector):
    class Data:
        pass

    def work():
        data, connection = Data(), Connection()
        connection.data = data
        detector.taken(connection)
        return weakref.ref(connection), weakref.ref(data)

    gc.disable()  # nothing that it makes needs the collector
    try:
        assert [reference() for reference in work()] == [None, None]
    finally:
        gc.enable()
    assert detector.outstanding() == []


def test_what_cannot_be_referred_to_weakly_is_counted_and_breaks_nothing(detector):
    pool = Pool(7)
    detector.watch(pool)

    assert pool.getconn() == 7
    pool.putconn(7)
    assert detector.stats() == (0, 0, 0, 0, 1)


def test_a_greenlet_that_another_thread_is_importing_breaks_nothing(detector, monkeypatch):
    monkeypatch.setitem(sys.modules, "greenlet", types.ModuleType("greenlet"))
    pool = Pool()
    detector.watch(pool)
    connection = takes(pool)

    (held,) = detector.outstanding()

    assert innermost(held.stack, "takes")
    assert connection


def test_code_that_leaks_at_each_call_does_not_flood_the_log(clock, caplog):
    told = []
    detector = LeakDetector(30.0, clock=clock, on_held=told.append)
    connections = [Connection() for _ in range(13)]
    for connection in connections:
        detector.taken(connection)
    clock.sleep(31.0)

    assert len(detector.check()) == len(told) == 13
    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "3 more connections are out for long or thrown away"


# --- pools ----------------------------------------------------------------------------------------------


def test_arguments_reach_the_pool_whatever_they_are_called(detector):
    pool = Pool()
    detector.watch(pool)

    connection = pool.getconn(key=1)
    pool.putconn(conn=connection, close=True)

    assert detector.stats().outstanding == 0


def test_what_a_pool_refuses_to_take_back_is_still_out(detector):
    pool, other = Pool(), Pool()
    detector.watch(pool)
    detector.watch(other)
    connection = takes(pool)

    with pytest.raises(KeyError):
        other.putconn(connection)
    with pytest.raises(TypeError):
        pool.putconn()

    assert detector.stats().outstanding == 1


def test_a_watch_can_be_ended(detector):
    pool = Pool()
    unwatch = detector.watch(pool)
    first = takes(pool)
    unwatch()
    pool.putconn(first)
    takes(pool)

    assert [held.connection for held in detector.outstanding()] == [f"Connection at {id(first):#x}"]


def test_a_pool_is_called_what_it_calls_itself(detector):
    named, unnamed = Pool(), Pool()
    named.name = "pool-1"
    for pool in (named, unnamed):
        detector.watch(pool)
        takes(pool)

    assert {held.pool for held in detector.outstanding()} == {"pool-1", "Pool"}


@pytest.mark.parametrize(
    "thing", [object(), QueuePool, redis.Redis(), psycopg_pool.ConnectionPool, "postgresql://"]
)
def test_what_is_no_pool_is_refused(detector, thing):
    with pytest.raises(TypeError, match="is no pool that is known"):
        detector.watch(thing)


def test_psycopg(detector, clock, postgres_server):
    with psycopg_pool.ConnectionPool(postgres_server.url, min_size=1, max_size=2, open=True) as pool:
        detector.watch(pool)
        with pool.connection() as connection:
            connection.execute("SELECT 1")
            clock.sleep(31.0)
            (held,) = detector.check()
            with psycopg.connect(postgres_server.url) as other:
                (state,) = other.execute(
                    "SELECT state FROM pg_stat_activity WHERE pid = %s", [connection.info.backend_pid]
                ).fetchone()
        assert state == "idle in transaction"
        assert detector.stats() == (0, 1, 1, 0, 0)
        closed = pool.getconn()
        closed.close()  # does not give it back
        assert detector.stats().outstanding == 1
        pool.putconn(closed)

    assert held.pool == pool.name
    assert held.connection == f"Connection at {id(connection):#x}"
    assert innermost(held.stack, "test_psycopg")
    assert detector.stats() == (0, 1, 1, 0, 0)


async def test_psycopg_async(detector, clock, postgres_server):
    async def handler(pool):
        async with pool.connection():
            clock.sleep(31.0)
            return detector.check()

    pool = psycopg_pool.AsyncConnectionPool(postgres_server.url, min_size=1, max_size=1, open=False)
    async with pool:
        detector.watch(pool, "orders")
        (held,) = await handler(pool)

    assert (held.pool, held.seconds) == ("orders", 31.0)
    assert innermost(held.stack, "test_psycopg_async.<locals>.handler")
    assert innermost(held.stack, "test_psycopg_async")
    assert detector.stats() == (0, 1, 1, 0, 0)


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
def test_a_connection_of_psycopg_that_is_thrown_away_is_lost(detector, postgres_server):
    with psycopg_pool.ConnectionPool(postgres_server.url, min_size=1, max_size=2, open=True) as pool:
        detector.watch(pool, "orders")
        takes(pool)
        gc.collect()

        (lost,) = detector.check()

    assert isinstance(lost, ConnectionLost)
    assert innermost(lost.stack, "takes")


def test_redis(detector, clock, redis_server):
    pool = redis.ConnectionPool.from_url(redis_server.url)
    detector.watch(pool, "cache")
    client = redis.Redis(connection_pool=pool)
    client.ping()
    assert detector.outstanding() == []
    subscription = client.pubsub()
    subscription.subscribe("news")
    clock.sleep(31.0)

    (held,) = detector.check()
    subscription.close()
    client.ping()

    assert held.pool == "cache"
    assert innermost(held.stack, "test_redis")
    assert detector.stats() == (0, 1, 1, 0, 0)
    client.close()
    pool.disconnect()


async def test_redis_async(detector, clock, redis_server):
    pool = redis.asyncio.ConnectionPool.from_url(redis_server.url)
    detector.watch(pool, "cache")
    client = redis.asyncio.Redis(connection_pool=pool)
    await asyncio.gather(client.ping(), client.ping())
    assert detector.outstanding() == []
    connection = await pool.get_connection()
    clock.sleep(31.0)

    (held,) = detector.check()
    await pool.release(connection)

    assert innermost(held.stack, "test_redis_async")
    assert detector.stats() == (0, 1, 1, 0, 0)
    await client.aclose()
    await pool.disconnect()


async def test_an_async_give_back_that_fails_leaves_it_out(detector):
    class Stuck:
        async def get_connection(self):
            return connection

        async def release(self, connection):
            await asyncio.sleep(60)

    connection, pool = Connection(), Stuck()
    detector.watch(pool)
    giving = asyncio.ensure_future(pool.release(await pool.get_connection()))
    await asyncio.sleep(0)
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving

    assert detector.stats().outstanding == 1


def test_one_that_is_taken_again_without_having_come_back_is_the_last_takers(detector, clock):
    connection = Connection()
    for pool in ("orders", "mail"):
        detector.taken(connection, pool)
        clock.sleep(1.0)

    assert [(held.pool, held.seconds) for held in detector.outstanding()] == [("mail", 1.0)]


async def test_one_that_a_pool_takes_back_and_gives_out_again_before_it_fails_is_the_new_owners(
    detector, clock
):
    class Failing:
        async def get_connection(self):
            return connection

        async def release(self, connection):
            clock.sleep(31.0)
            await self.get_connection()
            raise ConnectionError("after it was taken back")

    connection, pool = Connection(), Failing()
    detector.watch(pool)
    with pytest.raises(ConnectionError):
        await pool.release(await pool.get_connection())

    assert [held.seconds for held in detector.outstanding()] == [0.0]


def test_sqlalchemy(detector, clock, postgres_server):
    engine = sqlalchemy.create_engine(postgres_server.url.replace("postgresql", "postgresql+psycopg"))
    unwatch = detector.watch(engine, "orders")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
        clock.sleep(31.0)
        (held,) = detector.check()
    with engine.connect() as connection:
        connection.detach()
        assert detector.outstanding() == []
    with engine.connect() as connection:
        connection.invalidate()
    thrown_away = engine.connect()
    assert detector.stats().outstanding == 1
    del thrown_away
    gc.collect()  # SQLAlchemy takes it back by itself

    assert held.pool == "orders"
    assert held.connection.startswith("Connection at 0x")
    assert innermost(held.stack, "test_sqlalchemy")
    assert detector.stats() == (0, 1, 1, 0, 0)
    unwatch()
    with engine.connect():
        assert detector.outstanding() == []
    engine.dispose()


def test_a_pool_of_sqlalchemy(detector, postgres_server):
    pool = QueuePool(lambda: psycopg.connect(postgres_server.url))
    detector.watch(pool)
    connection = pool.connect()

    (held,) = detector.outstanding()
    connection.close()

    assert held.pool == "QueuePool"
    assert detector.outstanding() == []
    pool.dispose()


async def test_sqlalchemy_async_tells_who_awaited_it(detector, clock, postgres_server):
    engine = create_async_engine(postgres_server.url.replace("postgresql", "postgresql+psycopg_async"))
    detector.watch(engine)
    async with engine.connect():
        (held,) = detector.outstanding()
    await engine.dispose()

    assert innermost(held.stack, "test_sqlalchemy_async_tells_who_awaited_it")
    assert detector.outstanding() == []


# --- threads, forks, copies -----------------------------------------------------------------------------


def test_threads_may_share_it(clock):
    detector = LeakDetector(30.0, clock=clock)

    def work(_):
        pool = Pool()
        detector.watch(pool)
        for _ in range(200):
            connection = pool.getconn()
            detector.check()
            detector.outstanding()
            pool.putconn(connection)

    together(4, work)

    assert detector.stats() == (0, 0, 0, 0, 0)


@forking
def test_a_forked_child_begins_anew(detector):
    connection = Connection()
    detector.taken(connection)

    def work():
        assert detector.outstanding() == []
        detector.returned(connection)

    assert in_child(work) == 0
    assert detector.stats().outstanding == 1


def test_it_cannot_be_copied(detector):
    with pytest.raises(TypeError, match="make a new one"):
        copy.copy(detector)


@pytest.mark.parametrize("arguments", [{"threshold": 0}, {"depth": 0}, {"most": 0}])
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be"):
        LeakDetector(**arguments)
