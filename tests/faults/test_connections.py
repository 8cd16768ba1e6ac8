"""The fault catalogue's lines on idle connections, leaks, and what does a job again and again."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import subprocess
import sys
import threading

import psycopg
import psycopg_pool
import pytest
from psycopg.conninfo import make_conninfo

from resilience import is_transient
from resilience.janitor.connections import AsyncConnectionReaper, ConnectionReaper
from resilience.janitor.leaks import LeakDetector
from resilience.janitor.periodic import AsyncPeriodic, Periodic
from resilience.testing import FakeClock, cancel_at_every_tick
from tests.children import forking, in_child
from tests.janitor.shop import Shop
from tests.proxy import Proxy
from tests.threads import together


@pytest.fixture(scope="module")
def shop_of_this_module(postgres_server):
    shop = Shop(postgres_server, "reaped_faults")
    yield shop
    shop.close()


@pytest.fixture
def shop(shop_of_this_module):
    shop_of_this_module.ahead(0)
    yield shop_of_this_module
    shop_of_this_module.end_all()


def pid_of(connection):
    return connection.info.backend_pid


class Connection:
    pass


# --- cancellation -------------------------------------------------------------------------------------


async def test_fault_07_a_cancelled_sweep_closes_its_connection(shop, postgres_server):
    with Proxy(postgres_server.port) as proxy:
        asked = asyncio.Event()

        class Cut(AsyncConnectionReaper):
            def _refuse_superuser(self, rows):
                proxy.blackhole()
                asked.set()

        reaper = Cut(make_conninfo(shop.url, port=proxy.port), "shop-", timeout=60.0)
        sweeping = asyncio.ensure_future(reaper.sweep())
        await asked.wait()
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping

        assert gc.collect() >= 0  # a connection that was left open would warn, which is an error here


def test_fault_10_a_job_that_is_cancelled_at_every_tick_leaves_nothing_running():
    made = []

    async def live():
        swept = asyncio.Event()

        async def job():
            await asyncio.sleep(0)
            swept.set()

        made.append(AsyncPeriodic(job, 60.0, random=lambda: 0.0))
        async with made[-1]:
            await asyncio.wait([asyncio.ensure_future(swept.wait())], timeout=0.01)

    async def check():
        periodic = made[-1]
        assert await periodic.stop(timeout=1.0)
        assert not periodic.is_running
        await periodic.start()
        assert periodic.is_running
        assert await periodic.stop(timeout=1.0)

    assert cancel_at_every_tick(live, check) > 5


# --- loops and threads --------------------------------------------------------------------------------


def test_fault_11_one_reaper_serves_loops_one_after_another(shop):
    shop.idle_in_transaction()
    shop.ahead(61)
    reaper = AsyncConnectionReaper(shop.url, "shop-")

    for _ in range(3):
        assert len(asyncio.run(reaper.sweep()).ended) == 1


async def test_fault_14_a_server_that_hangs_does_not_block_the_loop(shop, postgres_server):
    with Proxy(postgres_server.port) as proxy:

        class Cut(AsyncConnectionReaper):
            def _chosen(self, found):
                proxy.blackhole()
                return super()._chosen(found)

        shop.idle_in_transaction()
        shop.ahead(61)
        reaper = Cut(make_conninfo(shop.url, port=proxy.port), "shop-", dry_run=False, timeout=0.3)
        sweeping = asyncio.ensure_future(reaper.sweep())
        ticks = 0
        while not sweeping.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(TimeoutError):
            await sweeping

    assert ticks > 5, "the loop stood still"


def test_fault_17_no_check_out_is_lost_or_told_twice_among_threads():
    told = []
    clock = FakeClock(yielding=True)
    detector = LeakDetector(30.0, clock=clock, on_held=told.append)
    connections = [[Connection() for _ in range(10)] for _ in range(8)]

    def work(number):
        for connection in connections[number]:
            detector.taken(connection)
        clock.advance(31.0)
        detector.check()

    together(8, work)
    detector.check()

    assert len(told) == detector.stats().held == detector.stats().outstanding == 80


def test_fault_22_a_hook_that_fails_or_comes_back_breaks_nothing(caplog):
    def fail(event):
        detector.outstanding()
        detector.check()
        raise ValueError("no")

    clock = FakeClock()
    detector = LeakDetector(30.0, clock=clock, on_held=fail, on_returned=fail, on_lost=fail)
    connection = Connection()
    detector.taken(connection)
    detector.taken(Connection())
    clock.sleep(31.0)

    assert len(detector.check()) == 2
    detector.returned(connection)
    assert detector.stats() == (0, 1, 1, 1, 0)
    assert caplog.text.count("failed on Connection") == 3  # once for each hook


def test_fault_23_a_finaliser_that_gives_back_while_the_lock_is_held_does_not_deadlock():
    detector = LeakDetector(30.0)
    other = Connection()
    detector.taken(other)

    class Guarded(Connection):
        def __del__(self):
            detector.returned(other)
            detector.check()

    guarded = Guarded()
    detector.taken(guarded)

    def lose():
        nonlocal guarded
        with detector._lock:
            guarded = None
            gc.collect()

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    thread.join(5.0)

    assert not thread.is_alive(), "deadlock"
    detector.check()
    assert detector.stats()[:4] == (0, 0, 0, 1)


# --- processes ----------------------------------------------------------------------------------------


@forking
@pytest.mark.parametrize("kind", ["reaper", "detector", "periodic"])
def test_fault_28_a_fork_while_the_lock_is_held(shop, kind):
    used = {
        "reaper": (reaper := ConnectionReaper(shop.url, "shop-"), lambda: reaper._failed(ValueError())),
        "detector": (detector := LeakDetector(), lambda: detector.taken(Connection())),
        "periodic": (periodic := Periodic(lambda: None, 60.0), lambda: (periodic.start(), periodic.stop())),
    }
    owner, use = used[kind]
    held, release = threading.Event(), threading.Event()

    def hold():
        with owner._lock:
            held.set()
            release.wait(10.0)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5.0)
    try:
        assert in_child(use) == 0
    finally:
        release.set()
        thread.join()


def make_all():
    return [
        ConnectionReaper("dbname=shop", "shop-"),
        AsyncConnectionReaper("dbname=shop", "shop-"),
        LeakDetector(),
        Periodic(list, 60.0),
    ]


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_fault_31_none_can_be_copied_and_each_says_why(way):
    for each in make_all():
        with pytest.raises(TypeError, match="make a new one instead"):
            way(each)


def test_fault_33_the_interpreter_ends_while_jobs_run():
    code = """
from resilience.janitor.leaks import LeakDetector
from resilience.janitor.periodic import Periodic
Periodic(LeakDetector().check, 0.001).start()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=10.0, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")


# --- PostgreSQL ---------------------------------------------------------------------------------------


def test_fault_56_a_pool_replaces_what_was_reaped_and_the_owner_gets_a_transient_error(shop):
    with psycopg_pool.ConnectionPool(
        shop.url,
        kwargs={"application_name": "shop-pool"},
        min_size=1,
        max_size=1,
        open=True,
        check=psycopg_pool.ConnectionPool.check_connection,
    ) as pool:
        forgotten = pool.getconn()
        forgotten.execute("SELECT 1")
        shop.wait_for(forgotten, "idle in transaction")
        shop.ahead(61)
        pid = pid_of(forgotten)

        assert [each.pid for each in ConnectionReaper(shop.url, "shop-", dry_run=False).sweep().ended] == [
            pid
        ]
        with pytest.raises(psycopg.errors.AdminShutdown) as raised:
            forgotten.execute("SELECT 1")
        pool.putconn(forgotten)
        with pool.connection(timeout=5.0) as fresh:
            assert pid_of(fresh) != pid

    assert is_transient(raised.value)


@pytest.mark.parametrize("kind", [ConnectionReaper, AsyncConnectionReaper])
def test_fault_56_a_reaper_whose_own_connection_is_ended_fails_and_goes_on(kind, shop):
    class Ended(kind):
        times = 0

        def _chosen(self, found):
            self.times += 1
            if self.times == 1:
                shop.admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'resilience reaper'"
                )
            return super()._chosen(found)

    def sweep():
        result = reaper.sweep()
        return asyncio.run(result) if kind is AsyncConnectionReaper else result

    shop.idle_in_transaction()
    shop.ahead(61)
    reaper = Ended(shop.url, "shop-", dry_run=False)
    with pytest.raises(psycopg.OperationalError):
        sweep()

    assert len(sweep().ended) == 1
    assert reaper.stats()[:3] == (1, 1, 1)


def test_an_exhausted_pool_can_be_asked_who_has_its_connections(shop):
    detector = LeakDetector(30.0)
    with psycopg_pool.ConnectionPool(shop.url, min_size=1, max_size=1, open=True) as pool:
        detector.watch(pool, "orders")

        def forgets():
            return pool.getconn()

        connection = forgets()
        with pytest.raises(psycopg_pool.PoolTimeout):
            pool.getconn(timeout=0.05)
        (held,) = detector.outstanding()
        pool.putconn(connection)

    assert [line for line in held.stack if line.endswith("<locals>.forgets")]


def test_fault_61_two_reapers_at_once_end_what_one_would_have_ended(shop):
    forgotten = {pid_of(shop.idle_in_transaction()) for _ in range(6)}
    shop.ahead(61)

    events = together(2, lambda _: ConnectionReaper(shop.url, "shop-", dry_run=False).sweep())

    assert {each.pid for event in events for each in event.ended} == forgotten
    for pid in forgotten:
        shop.wait_until_gone(pid)


def test_fault_62_a_connection_that_wakes_while_it_is_reaped_survives(shop):
    waking, sleeping = shop.idle_in_transaction(), shop.idle_in_transaction()
    shop.ahead(61)

    class Slow(ConnectionReaper):
        def _chosen(self, found):
            waking.execute("SELECT 1")
            shop.wait_for(waking, "idle in transaction")
            return super()._chosen(found)

    event = Slow(shop.url, "shop-", dry_run=False).sweep()

    assert [each.pid for each in event.ended] == [pid_of(sleeping)]
    assert waking.execute("SELECT 2").fetchone() == (2,)


# --- resources ----------------------------------------------------------------------------------------


def test_fault_100_check_outs_leave_nothing_behind(caplog):
    caplog.set_level(logging.CRITICAL, "resilience")  # pytest keeps what is logged
    detector = LeakDetector(30.0, most=100)

    def rounds(count):
        for _ in range(count):
            connection = Connection()
            detector.taken(connection)
            detector.returned(connection)
            detector.taken(Connection())  # thrown away
        detector.check()
        gc.collect()
        return len(gc.get_objects())

    rounds(100)
    before = rounds(100)

    assert rounds(2000) <= before + 10
    assert detector.stats().outstanding == 0
