"""The fault catalogue's lines on limits that are counted in PostgreSQL, by number."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from os import urandom
from time import monotonic
from uuid import uuid4

import psycopg
import psycopg_pool
import pytest

from resilience._core.counting import Charge
from resilience._core.quota import Quota, counter_of
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost
from resilience.stores.postgres import AsyncPostgresStore, PostgresStore, create_schema
from resilience.testing import FakeClock, wait_until
from tests.children import forking, in_child
from tests.proxy import Proxy
from tests.stores.postgres.fake_time import FakeTime, FromThreads, sync_store

PATIENT = 30.0
"""Seconds that a call may take, where no bound is under test."""

LOGIN = counter_of("login", Quota.parse("6/15 minutes"))
ADDRESS = counter_of("address", Quota.parse("50/hour gcra"))
ADA = Charge(LOGIN, "ada")

ALL = [
    LOGIN,
    counter_of("login", Quota.parse("6/15 minutes gcra")),
    counter_of("login", Quota.parse("6/15 minutes fixed-window")),
    counter_of("login", Quota.parse("66/15 minutes")),
]


def prepared(url, *, logged=False):
    """Return the URL of a schema of its own, with the table."""
    name = f"faults_{uuid4().hex}"
    url = f"{url}?options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    create_schema(url, logged=logged)
    return url


def through(proxy, url):
    return url.replace(f":{proxy.target_port}/", f":{proxy.port}/")


def in_threads(url, **options):
    return closing(PostgresStore(url, remember_refusals=0, **{"timeout": PATIENT} | options))


class _Ended(closing):
    def __exit__(self, *exception):
        self.thing.end()


def on_a_loop(url, **options):
    return _Ended(FromThreads(AsyncPostgresStore(url, remember_refusals=0, **{"timeout": PATIENT} | options)))


@pytest.fixture
def url(postgres_server):
    return prepared(postgres_server.url)


@pytest.fixture
def admin(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


both = pytest.mark.parametrize("opened", [in_threads, on_a_loop], ids=["in threads", "on a loop"])


def others(admin):
    """Return the ids of the server's processes that serve stores."""
    rows = admin.execute(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = 'resilience' AND query LIKE 'SELECT resilience_%'"
    )
    return {pid for (pid,) in rows}


def is_waiting(admin):
    """Return whether a statement of a store waits for a lock."""
    return admin.execute(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE query LIKE 'SELECT resilience_take%' AND wait_event_type = 'Lock'"
    ).fetchone()[0]


# --- 29, 37, 38, 42 ------------------------------------------------------------------------------


@forking
def test_fault_29_forked_workers_use_no_connection_of_their_parent(url, admin):
    with in_threads(url) as store:
        assert store.take([ADA])[0]
        parents = others(admin)

        def work():
            assert store.take([ADA])[0]
            with psycopg.connect(url, autocommit=True) as of_the_child:
                assert others(of_the_child) - parents

        for _ in range(4):
            assert in_child(work) == 0
        assert store.take([ADA])[0].remaining == 0
        assert not store.take([ADA])[0]
        assert parents <= others(admin)


def test_fault_37_nodes_whose_clocks_are_apart_count_together(url):
    with (
        in_threads(url, clock=FakeClock(wall=1_700_000_000.0)) as slow,
        in_threads(url, clock=FakeClock(wall=1_700_000_005.0)) as fast,
    ):
        decisions = [store.take([ADA])[0] for _ in range(6) for store in (slow, fast)]
    assert sum(map(bool, decisions)) == 6
    assert [decision.remaining for decision in decisions[:6]] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.scope)
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
def test_fault_38_a_clock_that_was_set_back_makes_nobody_wait_longer_than_the_window(
    postgres_server, each, several
):
    clock = FakeClock()
    time = FakeTime(postgres_server, f"jump_{uuid4().hex}")
    charges = [Charge(each, "ada", each.quota.limit // 6)]
    if several:
        charges.append(Charge(ADDRESS, "ada"))
    with closing(sync_store(time, clock)) as store:
        for _ in range(6):
            assert all(store.take(charges))
        clock.step(-86400)
        refused = store.take(charges)
        assert not refused[0]
        assert 0 < refused[0].retry_after <= each.rules.horizon / 1e9
        assert store.peek(charges)[0].reset_after <= each.rules.horizon / 1e9
        clock.advance(each.rules.horizon / 1e9 + 0.000_01)
        assert all(store.take(charges))
        assert time.connection.execute(
            "SELECT bool_and(state[1] <= resilience_now() + 3600e9) FROM resilience_quota"
        ).fetchone() == (True,)
    time.close()


@pytest.mark.parametrize("logged", [True, False], ids=["logged", "unlogged"])
def test_fault_42_lockouts_in_a_logged_table_survive_a_crash(new_postgres_server, logged):
    server = new_postgres_server(synchronous_commit="on")
    url = prepared(server.url, logged=logged)
    with in_threads(url) as store:
        for _ in range(6):
            assert store.take([ADA])[0]
    server.kill()
    server.start()
    with in_threads(url) as store:
        assert bool(store.take([ADA])[0]) is not logged


# --- 45, 56 --------------------------------------------------------------------------------------


@both
def test_fault_45_a_server_that_falls_silent_keeps_no_call_beyond_its_timeout(url, postgres_server, opened):
    with Proxy(postgres_server.port) as proxy, opened(through(proxy, url), timeout=0.05) as store:
        wait_until(lambda: is_answered(store))
        proxy.blackhole()
        with pytest.raises(StoreUnavailable, match=r"there was no answer in time; .* within 0.05 s"):
            store.take([ADA])
        proxy.heal()
        wait_until(lambda: is_answered(store))


def is_answered(store):
    try:
        store.peek([ADA])
    except StoreUnavailable:
        return False
    return True


@both
def test_fault_56_connections_that_were_ended_while_idle_are_made_anew(url, admin, opened):
    with opened(url) as store:
        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(lambda _: bool(store.take([ADA])[0]), range(8))) == 6
        for pid in others(admin):
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert not store.take([ADA])[0]


@both
def test_fault_56_a_connection_that_is_ended_in_mid_query_is_asked_anew(url, admin, opened):
    with opened(url) as store, psycopg.connect(url) as holder, ThreadPoolExecutor(1) as thread:
        store.take([ADA])
        holder.execute("SELECT FROM resilience_quota FOR UPDATE")
        decision = thread.submit(store.take, [ADA])
        wait_until(lambda: is_waiting(admin))
        for pid in others(admin):
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        holder.rollback()
        assert decision.result(PATIENT)[0].remaining == 4


@both
@pytest.mark.parametrize("charges", [[ADA], [ADA, Charge(ADDRESS, "::1")]], ids=["one", "several"])
def test_fault_56_a_commit_whose_reply_was_cut_off_is_charged_once(url, postgres_server, opened, charges):
    with Proxy(postgres_server.port) as proxy, opened(url) as here, opened(through(proxy, url)) as there:
        for taken, received in enumerate((0, 1, 5, 20, 60), 1):
            there.peek(charges)
            token = urandom(16)
            proxy.cut_after(received)
            with pytest.raises(Lost):
                ask_once(there, "take", charges, token)
            proxy.heal()
            decisions = ask_once(there, "take", charges, token)
            assert all(decisions)
            assert decisions[0].remaining == 6 - taken
            assert here.peek(charges)[0].remaining == 6 - taken


@both
def test_fault_56_a_refund_whose_reply_was_cut_off_gives_back_once(url, postgres_server, opened):
    with Proxy(postgres_server.port) as proxy, opened(through(proxy, url)) as store:
        decisions = [store.take([ADA])[0] for _ in range(3)]
        for left, decision in enumerate(decisions, 4):
            token = urandom(16)
            proxy.cut_after(3)
            with pytest.raises(Lost):
                ask_once(store, "refund", [ADA], [decision.receipt], token)
            proxy.heal()
            ask_once(store, "refund", [ADA], [decision.receipt], token)
            assert store.peek([ADA])[0].remaining == left


def ask_once(store, name, *arguments):
    """Ask the engine of a store, without the one more attempt that the store makes."""
    until = monotonic() + PATIENT
    if isinstance(store, FromThreads):
        return store.wait_for(getattr(store.store._engine, name)(*arguments, until))
    return getattr(store._engine, name)(*arguments, until)


@both
def test_fault_56_a_server_that_was_restarted_is_asked_on_new_connections(new_postgres_server, opened):
    server = new_postgres_server()
    url = prepared(server.url)
    with opened(url) as store:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: store.take([ADA]), range(4)))
        server.restart()
        assert store.take([ADA])[0].remaining == 1


# --- 57, 58 --------------------------------------------------------------------------------------


@both
def test_fault_57_a_lock_that_is_held_too_long_is_a_503_and_others_go_on(url, admin, opened):
    with opened(url, timeout=0.5, max_connections=2) as store, psycopg.connect(url) as holder:
        store.take([ADA])
        holder.execute("SELECT FROM resilience_quota FOR UPDATE")
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"55P03.*holds the row") as told:
                store.take([ADA])
            assert told.value.retry_after == 1.0
        assert store.take([Charge(LOGIN, "bob")])[0].remaining == 5
        assert not is_waiting(admin)
        holder.rollback()
        assert store.take([ADA])[0].remaining == 4


@both
@pytest.mark.parametrize("charges", [[ADA], [ADA, Charge(ADDRESS, "::1")]], ids=["one", "several"])
def test_fault_58_a_transaction_that_could_not_be_serialised_is_made_anew(url, admin, opened, charges):
    strict = f"{url}%20-cdefault_transaction_isolation%3Drepeatable%5C%20read"
    with opened(strict) as store, psycopg.connect(url) as holder, ThreadPoolExecutor(1) as thread:
        store.take(charges)
        holder.execute("UPDATE resilience_quota SET tokens = 'changed'")
        decision = thread.submit(store.take, charges)
        wait_until(lambda: is_waiting(admin))
        holder.commit()
        assert decision.result(PATIENT)[0].remaining == 4


@both
def test_fault_58_the_victim_of_a_deadlock_takes_all_or_nothing_the_next_time(new_postgres_server, opened):
    server = new_postgres_server(deadlock_timeout="300ms")
    url = prepared(server.url)
    charges = [ADA, Charge(ADDRESS, "::1")]  # locked as "address", "login"
    with (
        opened(url) as store,
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as admin,
        ThreadPoolExecutor(1) as thread,
    ):
        store.take(charges)
        holder.execute("SET deadlock_timeout = '1min'")
        holder.execute("SELECT FROM resilience_quota WHERE scope LIKE 'login%' FOR UPDATE")
        decisions = thread.submit(store.take, charges)
        wait_until(lambda: is_waiting(admin))
        holder.execute("SELECT FROM resilience_quota WHERE scope LIKE 'address%' FOR UPDATE")
        holder.commit()
        assert [decision.remaining for decision in decisions.result(PATIENT)] == [4, 48]
        assert [decision.remaining for decision in store.peek(charges)] == [4, 48]


def test_fault_58_many_who_take_the_same_keys_in_any_order_make_no_deadlock(new_postgres_server):
    server = new_postgres_server(deadlock_timeout="1ms")
    keys = [Charge(ADDRESS, key) for key in "abcdef"]
    with in_threads(prepared(server.url)) as store, ThreadPoolExecutor(4) as threads:
        taken = threads.map(lambda turn: all(store.take(keys[turn % 6 :] + keys[: turn % 6])), range(240))
        assert sum(taken) == 50
    assert "deadlock detected" not in server.log.read_text()


# --- 59, 60 --------------------------------------------------------------------------------------


@both
def test_fault_59_a_server_that_only_reads_is_a_503_and_is_asked_once(url, opened):
    with opened(f"{url}%20-cdefault_transaction_read_only%3Don") as store:
        with pytest.raises(StoreUnavailable, match=r"25006.*name the primary") as told:
            store.take([ADA])
        assert not isinstance(told.value.__cause__, Lost)
        assert getattr(store, "store", store).breaker.snapshot().failures == 0
        assert store.peek([ADA])[0].remaining == 6


def test_fault_59_a_full_disk_is_a_503_and_no_key_is_charged_for_it(small_disk, new_postgres_server):
    server, disk = new_postgres_server(), small_disk(8)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{disk.folder}'")
    url = prepared(f"{server.url}").replace("options=", "options=-cdefault_tablespace%3Dsmall%20")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE resilience_quota SET TABLESPACE small")
        with in_threads(url) as store:
            assert store.take([Charge(LOGIN, "ada")])[0].remaining == 5
            disk.fill()
            newcomers = (store.take([Charge(LOGIN, f"key {number}")]) for number in count())
            with pytest.raises(StoreUnavailable, match=r"53100.*make room"):
                all(map(all, newcomers))
            (held,) = connection.execute("SELECT count(*) FROM resilience_quota").fetchone()
            refused = Charge(LOGIN, f"key {held - 1}")
            disk.free()
            wait_until(lambda: is_answered(store))
            assert store.take([refused])[0].remaining == 5
            assert store.take([Charge(LOGIN, "ada")])[0].remaining == 4


def test_fault_60_a_limiter_asked_while_the_request_holds_the_last_connection_is_a_503(url):
    with psycopg_pool.ConnectionPool(url, min_size=1, max_size=1, open=True) as pool:
        store = PostgresStore(pool, timeout=0.1)
        with pool.connection() as repository:
            repository.execute("SELECT 1")
            with pytest.raises(StoreUnavailable, match="the pool gave no connection in time") as told:
                store.take([ADA])
            assert told.value.retry_after == 1.0
        assert store.take([ADA])[0].remaining == 5


@both
def test_fault_60_where_all_connections_of_the_store_are_in_use_the_wait_is_bounded(url, opened):
    with opened(url, timeout=0.1, max_connections=1) as store:
        store.take([ADA])
        lines = getattr(store, "store", store)._engine._pool._lines
        line = lines.get()
        with pytest.raises(StoreUnavailable, match="all 1 connections of the store were in use") as told:
            store.take([ADA])
        assert told.value.retry_after == 1.0
        lines.put(line)
        assert store.take([ADA])[0].remaining == 4
