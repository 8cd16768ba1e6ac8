"""The fault catalogue's lines on sessions in PostgreSQL and in Redis, with real servers and transactions."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from resilience.deadline import deadline
from resilience.janitor import AsyncSessionJanitor, SessionJanitor
from resilience.janitor.postgres import SCHEMA, AsyncPostgresSessions, PostgresSessions
from resilience.janitor.redis import AsyncRedisSessions, RedisSessions
from resilience.janitor.sessions import session_id_of
from resilience.stores import StoreUnavailable
from resilience.testing import wait_until, wait_until_async
from tests.children import forking, in_child
from tests.janitor.conformance import IDLE
from tests.janitor.places import InPostgres, InRedis
from tests.proxy import Proxy


@pytest.fixture
def place(postgres_server):
    place = InPostgres(postgres_server)
    yield place
    place.close()


@pytest.fixture
def in_redis(redis_server):
    place = InRedis(redis_server)
    yield place
    place.close()


@pytest.fixture
def open_place(request, place, in_redis):
    return {"postgres": place, "redis": in_redis}[request.param]


on_both = pytest.mark.parametrize("open_place", ["postgres", "redis"], indirect=True)

BOTH = [PostgresSessions, AsyncPostgresSessions]

RENEWAL = "UPDATE resilience_sessions SET expires_at = expires_at + interval '100 s' WHERE session_id = %s"
HOLD = "SELECT FROM resilience_sessions WHERE session_id = %s FOR UPDATE"
LOGOUT = "DELETE FROM resilience_sessions WHERE session_id = %s"


@contextmanager
def in_thread(function, *arguments):
    """Run the function in a thread while the block runs; yield what will have its outcome."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *arguments)


def wait_until_blocked(place):
    """Wait until a statement of the place waits for the lock of another one."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND query LIKE '%resilience_sessions%'"
    )
    wait_until(lambda: place.admin.execute(waiting).fetchone() != (0,))


# --- a renewal and a sweep (62) ------------------------------------------------------------------------


def test_fault_62_a_session_whose_renewal_is_in_flight_survives_the_sweep_and_nobody_waits(place):
    # Whoever waits for a lock here gives up after a millisecond, so that none of the two has waited.
    store = place.open(idle_timeout=IDLE, lock_timeout=0.001)
    token, other = store.create("ada"), store.create("bob")
    place.advance(IDLE)  # both have expired, unless the renewal below is in time
    renewal = place.connect()
    renewal.execute(RENEWAL, [session_id_of(token)])

    assert store.delete_expired(10) == 1
    renewal.commit()
    assert store.validate(token)
    assert store.validate(other) is None
    assert store.delete_expired(10) == 0


def test_fault_62_a_renewal_that_is_rolled_back_leaves_its_session_to_the_next_sweep(place):
    store = place.open(idle_timeout=IDLE)
    token = store.create("ada")
    place.advance(IDLE)
    renewal = place.connect()
    renewal.execute(RENEWAL, [session_id_of(token)])

    assert store.delete_expired(10) == 0
    renewal.rollback()
    assert store.delete_expired(10) == 1


def test_fault_62_a_row_that_is_held_does_not_stall_the_sweep(place):
    store = place.open(idle_timeout=IDLE, lock_timeout=0.001)
    held, *_ = [store.create("ada") for _ in range(30)]
    place.advance(IDLE)
    holder = place.connect()
    holder.execute(HOLD, [session_id_of(held)])
    report = SessionJanitor(store, batch=7, pause=0).sweep()

    assert (report.sessions_cleaned, report.complete) == (29, True)
    holder.rollback()
    assert store.delete_expired(10) == 1


def test_fault_62_what_was_renewed_between_two_looks_of_the_sweep_survives(place):
    # The sweep's statement has begun, and sees the old row; a trigger gives the renewal time to commit.
    store = place.open(idle_timeout=IDLE)
    token = store.create("ada")
    place.advance(IDLE)
    gate, renewal = place.connect(), place.connect()
    gate.execute("LOCK TABLE resilience_sessions IN ACCESS EXCLUSIVE MODE")
    with in_thread(store.delete_expired, 10) as sweeping:
        wait_until_blocked(place)
        gate.execute(RENEWAL, [session_id_of(token)])
        gate.commit()
        assert sweeping.result(10) == 0
    renewal.rollback()

    assert store.validate(token)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fault_62_a_logout_during_a_renewal_stays_a_logout(place, kind):
    store = (place.open if kind == "sync" else place.open_async)(idle_timeout=IDLE, lock_timeout=5.0)
    token = store.create("ada")
    place.advance(IDLE / 2)
    logout = place.connect()
    logout.execute(LOGOUT, [session_id_of(token)])
    with in_thread(store.renew, token) as renewing:
        wait_until_blocked(place)  # it has seen the session alive, and waits to write
        logout.commit()
        assert renewing.result(10) is None

    assert place.rows() == []
    assert store.validate(token) is None


def test_fault_62_a_logout_that_waits_for_a_renewal_ends_the_session(place):
    store = place.open(idle_timeout=IDLE, lock_timeout=5.0)
    token = store.create("ada")
    renewal = place.connect()
    renewal.execute(RENEWAL, [session_id_of(token)])
    with in_thread(store.delete, session_id_of(token)) as ending:
        wait_until_blocked(place)
        renewal.commit()
        assert ending.result(10) is True

    assert place.rows() == []


def test_fault_62_a_renewal_that_a_later_one_has_passed_does_not_undo_it(place):
    store = place.open(idle_timeout=IDLE, lock_timeout=5.0)
    token = store.create("ada")
    place.advance(IDLE / 2)
    later = place.connect()
    later.execute(RENEWAL, [session_id_of(token)])
    with in_thread(store.renew, token) as renewing:
        wait_until_blocked(place)
        later.commit()
        session = renewing.result(10)

    assert session.expires_at == store.validate(token).expires_at == place.wall() + IDLE * 1.5


@on_both
def test_fault_62_what_a_renewal_has_promised_is_kept_under_a_storm_of_sweeps(open_place):
    store = open_place.open(idle_timeout=10.0, absolute_lifetime=1e6)
    over = threading.Event()

    def sweep():
        while not over.is_set():
            store.delete_expired(100)

    broken, renewed = [], 0
    with ThreadPoolExecutor(2) as pool:
        sweeping = [pool.submit(sweep) for _ in range(2)]
        token = store.create("ada")
        for _ in range(60):
            open_place.advance(4.0)
            session = store.renew(token)
            renewed += 1
            if store.validate(token) is None:
                broken.append(session)
        over.set()
        for outcome in sweeping:
            outcome.result(10)

    assert broken == []
    assert renewed == 60


# --- several janitors (61) -----------------------------------------------------------------------------


def sweep_in_process(url, start, reports):
    with PostgresSessions(url) as store:
        janitor = SessionJanitor(store, batch=7, pause=0)
        start.wait(20)
        reports.put(janitor.sweep().sessions_cleaned)


def test_fault_61_of_two_janitors_at_once_each_expired_session_is_deleted_by_one(place):
    store = place.open(idle_timeout=IDLE)
    for _ in range(100):
        store.create("old")
    place.advance(IDLE)
    alive = [store.create("new") for _ in range(10)]
    context = multiprocessing.get_context("spawn")
    start, reports = context.Barrier(2), context.Queue()
    processes = [context.Process(target=sweep_in_process, args=(place.url, start, reports)) for _ in range(2)]
    for process in processes:
        process.start()
    cleaned = [reports.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0
    cleaned.append(SessionJanitor(store, pause=0).sweep().sessions_cleaned)

    assert sum(cleaned) == 100
    assert store.count_expired(1000) == 0
    assert all(store.validate(token) for token in alive)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fault_61_while_another_node_cleans_the_sweep_ends_without_an_error(place, kind):
    store = (place.open if kind == "sync" else place.open_async)(idle_timeout=IDLE)
    store.create("old")
    place.advance(IDLE)
    with in_the_middle_of_a_batch(place):
        assert store.delete_expired(10) is None
        assert store.count_expired(10) == 1

    assert store.delete_expired(10) == 1


def test_fault_61_tables_of_other_schemas_are_cleaned_side_by_side(place, postgres_server):
    elsewhere = InPostgres(postgres_server)
    try:
        with in_the_middle_of_a_batch(elsewhere):
            assert place.open().delete_expired(10) == 0
    finally:
        elsewhere.close()


@contextmanager
def in_the_middle_of_a_batch(place):
    """Be a node whose batch has begun and is not committed."""
    connection = place.connect()
    connection.execute("SELECT pg_advisory_xact_lock(1936028531, 'resilience_sessions'::regclass::oid::int)")
    yield
    connection.commit()


def test_fault_61_no_lock_is_left_on_the_connection_after_a_batch(place):
    # Behind a transaction-pooling proxy it would be given to somebody else, and nobody would clean any more.
    connection = place.connect()
    store = PostgresSessions(lambda: connection_for_ever(connection))
    assert store.delete_expired(10) == 0

    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = %s"
    assert place.admin.execute(held, [connection.info.backend_pid]).fetchone() == (0,)


@contextmanager
def connection_for_ever(connection):
    yield connection


def test_fault_61_batches_are_bounded(place):
    store = place.open(idle_timeout=IDLE)
    for _ in range(20):
        store.create("old")
    place.advance(IDLE)

    assert [store.delete_expired(8) for _ in range(4)] == [8, 8, 4, 0]


# --- locks, conflicts, full and read-only disks (57 to 60) -----------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fault_57_a_lock_that_is_held_too_long_is_a_503_and_the_connection_goes_on(place, kind):
    store = (place.open if kind == "sync" else place.open_async)(lock_timeout=0.05, connections=1)
    token = store.create("ada")
    holder = place.connect()
    holder.execute(HOLD, [session_id_of(token)])
    with pytest.raises(StoreUnavailable, match="longer than lock_timeout") as raised:
        store.delete(session_id_of(token))

    assert isinstance(raised.value.__cause__, psycopg.errors.LockNotAvailable)
    assert (raised.value.status, raised.value.retry_after) == (503, 1.0)
    assert store.validate(token)  # whoever reads waits for nobody; and the one connection works
    holder.rollback()
    assert store.delete(session_id_of(token))


def test_fault_57_a_call_that_takes_too_long_is_ended_by_the_server(place):
    store = place.open(timeout=0.1, lock_timeout=60.0)
    token = store.create("ada")
    holder = place.connect()
    holder.execute(HOLD, [session_id_of(token)])
    with pytest.raises(StoreUnavailable):
        store.delete(session_id_of(token))

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    wait_until(lambda: place.admin.execute(waiting).fetchone() == (0,))  # nothing of it is left there
    holder.rollback()
    assert store.validate(token)


def test_fault_58_a_transaction_that_another_has_made_fail_is_repeated_as_a_whole(place):
    url = make_conninfo(
        place.url,
        options=f"-csearch_path={place.schema},pg_catalog -cdefault_transaction_isolation=serializable",
    )
    with PostgresSessions(url, idle_timeout=IDLE) as store:
        token = store.create("ada")
        place.advance(IDLE / 2)
        other = place.connect()
        other.execute("UPDATE resilience_sessions SET data = '{\"seen\": true}'")
        with in_thread(store.renew, token) as renewing:
            wait_until_blocked(place)
            other.commit()  # 40001 for the renewal
            session = renewing.result(10)

        assert session.data == {"seen": True}
        assert session.expires_at == place.wall() + IDLE


def test_fault_58_the_victim_of_a_deadlock_is_repeated_as_a_whole(place):
    url = make_conninfo(place.url, options=f"-csearch_path={place.schema},pg_catalog -cdeadlock_timeout=50ms")
    with PostgresSessions(url, lock_timeout=10.0, timeout=20.0) as store:
        first, second = session_id_of(store.create("ada")), session_id_of(store.create("ada"))
        other = place.connect()
        other.execute("SET LOCAL deadlock_timeout = '60s'")  # so that it is never the victim
        other.execute(RENEWAL, [second])
        with in_thread(store.delete_user, "ada") as ending:
            wait_until_blocked(place)  # it has the first, and waits for the second
            other.execute(RENEWAL, [first])  # which it gets once the other has given up
            other.commit()
            assert set(ending.result(20)) == {first, second}

    assert place.rows() == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fault_59_a_database_that_only_reads_is_a_503_and_is_asked_once(place, kind):
    url = make_conninfo(
        place.url, options=f"-csearch_path={place.schema},pg_catalog -cdefault_transaction_read_only=on"
    )
    reader = place.open_at(url, kind)
    before = place.open().create("ada")
    with pytest.raises(StoreUnavailable, match="give the URL of the primary") as raised:
        reader.create("bob")

    assert isinstance(raised.value.__cause__, psycopg.errors.ReadOnlySqlTransaction)
    assert (raised.value.status, raised.value.retry_after) == (503, None)
    assert reader.validate(before)  # to read is still possible
    assert len(place.rows()) == 1


def test_fault_59_a_full_disk_is_a_503_and_leaves_no_half_of_a_session(small_disk, new_postgres_server):
    disk, server = small_disk(4), new_postgres_server()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
        connection.execute("SET default_tablespace = small")
        connection.execute(SCHEMA)
    with PostgresSessions(server.url) as store:
        store.create("ada")
        disk.fill()
        with pytest.raises(StoreUnavailable, match="disk of the server is full") as raised:
            list(map(store.create, ["ada"] * 1000))

        assert isinstance(raised.value.__cause__, psycopg.errors.DiskFull)
        assert raised.value.retry_after is None
        kept = store.count()
        assert 1 <= kept < 1000
        assert len(store.delete_user("ada")) == kept  # people can still be logged out
        disk.free()
        assert store.renew(store.create("ada"))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_fault_60_where_all_connections_are_in_use_the_wait_is_bounded(place, kind):
    store = place.open_at(place.url, kind, connections=1, timeout=60.0, lock_timeout=60.0)
    token = store.create("ada")
    holder = place.connect()
    holder.execute(HOLD, [session_id_of(token)])
    with in_thread(store.delete, session_id_of(token)) as ending:
        wait_until_blocked(place)
        with deadline(0.05), pytest.raises(StoreUnavailable, match="all 1 connections are in use") as raised:
            store.count()
        holder.rollback()
        assert ending.result(10) is True

    assert (raised.value.status, raised.value.retry_after) == (503, 1.0)
    assert store.count() == 0  # and nothing is stuck


# --- servers that go away (42, 45, 56) -------------------------------------------------------------------


def test_fault_42_sessions_in_postgres_survive_its_crash(new_postgres_server):
    server = new_postgres_server(synchronous_commit="on")
    with PostgresSessions(server.url) as store:
        store.create_schema()
        kept, ended = store.create("ada"), store.create("bob")
        store.delete(session_id_of(ended))
        server.kill()
        with pytest.raises(StoreUnavailable, match="no server"):
            store.validate(kept)
        server.restart()

        assert store.validate(kept).user_id == "ada"
        assert store.validate(ended) is None  # what was logged out stays so


@pytest.mark.parametrize("make", [RedisSessions, AsyncRedisSessions])
async def test_fault_42_a_redis_that_has_forgotten_everything_has_logged_everybody_out(
    make, new_redis_server
):
    server = new_redis_server()
    store = make(server.url)
    token = await done(store.create("ada"))
    server.kill()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await done(store.renew(token))
    server.restart()  # its scripts are gone, too

    assert await done(store.renew(token)) is None
    assert await done(store.delete_user("ada")) == []
    assert await done(store.renew(await done(store.create("ada"))))
    await done(store.close())


async def done(outcome):
    """Return what either kind of store returns."""
    return await outcome if asyncio.iscoroutine(outcome) else outcome


@pytest.mark.parametrize("make", BOTH)
async def test_fault_45_a_silent_postgres_is_left_within_the_time_and_the_next_call_works(
    make, place, postgres_server
):
    with Proxy(postgres_server.port) as proxy:
        store = make(make_conninfo(place.url, port=proxy.port), timeout=0.2)
        token = await done(store.create("ada"))
        proxy.blackhole()
        with pytest.raises(StoreUnavailable, match="did not answer in time") as raised:
            await done(store.renew(token))
        proxy.heal()

        assert raised.value.retry_after == 1.0
        assert await done(store.renew(token))
        await done(store.close())


@pytest.mark.parametrize("make", [RedisSessions, AsyncRedisSessions])
async def test_fault_45_a_silent_redis_is_left_within_the_time_and_the_next_call_works(
    make, in_redis, redis_server
):
    with Proxy(redis_server.port) as proxy:
        store = make(f"redis://127.0.0.1:{proxy.port}/0", prefix=in_redis.prefix, timeout=0.2)
        token = await done(store.create("ada"))
        proxy.blackhole()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await done(store.renew(token))
        proxy.heal()

        assert await done(store.renew(token))
        await done(store.close())


@pytest.mark.parametrize("make", BOTH)
async def test_fault_56_connections_that_were_ended_while_idle_are_made_anew(make, place):
    store = make(make_conninfo(place.url, application_name=place.schema))
    token = await done(store.create("ada"))
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    for _ in range(2):
        assert place.admin.execute(ended, [place.schema]).fetchall() == [(True,)]
        assert await done(store.renew(token))
    await done(store.close())


def test_fault_56_a_call_that_is_ended_half_way_is_repeated_or_a_503(place):
    store = place.open_at(make_conninfo(place.url, application_name=place.schema), "sync", lock_timeout=5.0)
    token = store.create("ada")
    holder = place.connect()
    holder.execute(HOLD, [session_id_of(token)])
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
    with in_thread(store.delete, session_id_of(token)) as ending:
        wait_until_blocked(place)
        place.admin.execute(ended, [place.schema])
        holder.rollback()
        assert ending.result(10) is True

    assert place.rows() == []


async def test_fault_07_a_cancelled_call_leaves_its_connection_and_the_next_reads_its_own_answer(place):
    async with AsyncPostgresSessions(place.url, connections=1, lock_timeout=60.0, timeout=60.0) as store:
        token = await store.create("ada")
        holder = place.connect()
        holder.execute(HOLD, [session_id_of(token)])
        for _ in range(3):
            ending = asyncio.ensure_future(store.delete(session_id_of(token)))
            await asyncio.to_thread(wait_until_blocked, place)
            ending.cancel()
            await asyncio.wait([ending], timeout=5)  # at once, and not when the server answers
            assert ending.cancelled()
            assert (await store.validate(token)).user_id == "ada"
        holder.rollback()


async def test_fault_10_a_cancelled_batch_in_postgres_happens_as_a_whole(place):
    async with AsyncPostgresSessions(place.url, idle_timeout=IDLE, lock_timeout=60.0, timeout=60.0) as store:
        for _ in range(30):
            await store.create("old")
        place.advance(IDLE)
        gate = place.connect()
        gate.execute("LOCK TABLE resilience_sessions IN ACCESS EXCLUSIVE MODE")
        janitor = AsyncSessionJanitor(store, batch=10, pause=0)
        sweeping = asyncio.ensure_future(janitor.sweep())
        await asyncio.to_thread(wait_until_blocked, place)
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping
        gate.commit()
        await wait_until_async(lambda: janitor.stats().sessions_cleaned == 10)
        await janitor.sweep()

        assert janitor.stats().sessions_cleaned == 30
        assert place.rows() == []


@forking
def test_fault_28_a_child_has_connections_of_its_own(place):
    store = place.open(connections=2)
    token = store.create("ada")
    own = store._link.run("SELECT pg_backend_pid()")

    def work():
        assert store.renew(token)
        assert store._link.run("SELECT pg_backend_pid()") != own
        assert store.create("child")

    for _ in range(3):
        assert in_child(work) == 0
        assert store._link.run("SELECT pg_backend_pid()") == own  # neither used nor closed by the child

    assert store.count() == 4


def test_fault_11_one_store_serves_loops_in_succession_and_side_by_side(place):
    store = AsyncPostgresSessions(place.url)

    async def serve():
        token = await store.create("ada")
        sessions = await asyncio.gather(*[store.renew(token) for _ in range(5)])
        return len(list(filter(None, sessions)))

    assert [asyncio.run(serve()) for _ in range(3)] == [5, 5, 5]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(asyncio.run, [serve(), serve()])) == [5, 5]
    asyncio.run(store.close())


# --- the index of a user's sessions, in Redis ------------------------------------------------------------


def test_fault_61_two_janitors_at_once_forget_each_expired_session_of_redis_once(in_redis):
    store = in_redis.open(idle_timeout=IDLE)
    for _ in range(100):
        store.create("old")
    in_redis.advance(IDLE)
    alive = [store.create("new") for _ in range(10)]
    janitors = [SessionJanitor(in_redis.open(), batch=7, pause=0) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda janitor: janitor.sweep(), janitors))

    assert sum(report.sessions_cleaned for report in reports) == 100
    assert all(report.complete for report in reports)
    assert all(store.validate(token) for token in alive)
