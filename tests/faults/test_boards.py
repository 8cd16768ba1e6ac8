"""The fault catalogue's lines on breakers that several processes share, by number."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from itertools import count

import psycopg
import pytest
import redis

from resilience import CircuitBreaker
from resilience._core.ledger import NO_NEWS, Report
from resilience.boards.exchange import Exchange
from resilience.boards.postgres import PostgresBoard, create_schema
from resilience.boards.redis import RedisBoard, _Redis
from resilience.testing import FakeClock, wait_until
from tests import processes
from tests.boards import workers
from tests.boards.doubles import MemoryEngine
from tests.boards.real import is_let_through, pair, trip
from tests.children import forking, in_child

names = count(1)


@pytest.fixture(params=["redis", "postgres"])
def server(request, redis_server, postgres_server):
    """Each server that tests share, with the table where it needs one."""
    return prepared({"redis": redis_server, "postgres": postgres_server}[request.param])


@pytest.fixture(params=["redis", "postgres"])
def own_server(request, new_redis_server, new_postgres_server):
    """Each server, to be broken."""
    return prepared({"redis": new_redis_server, "postgres": new_postgres_server}[request.param]())


def prepared(server):
    if server.url.startswith("postgresql"):
        create_schema(server.url)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # these servers do not wait for their disk
    return server


def new_board(server):
    if server.url.startswith("postgresql"):
        return PostgresBoard(server.url, refresh=0.05)
    return RedisBoard(server.url, refresh=0.05)


def forget_all(server):
    if server.url.startswith("postgresql"):
        with psycopg.connect(server.url) as connection:
            connection.execute("TRUNCATE resilience_breakers")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.flushall()


def out_of_touch(*breakers):
    return all(not breaker._gate.core.in_touch for breaker in breakers)


def in_touch(*breakers):
    return all(breaker._gate.core.in_touch for breaker in breakers)


# --- C. threads and processes that probe -------------------------------------------------------------


def test_fault_20_of_64_callers_in_four_processes_exactly_the_probes_get_in(server, tmp_path):
    forget_all(server)
    with processes.workers(4) as team:
        admitted = team.at_once(workers.probe_at_once, server.url, str(tmp_path))

    assert sum(admitted) == workers.PROBES


def test_fault_20_the_place_of_a_process_that_is_killed_comes_back(server):
    forget_all(server)
    with processes.workers(2) as team:
        team.prepare(workers.hold_a_probe, server.url)
        killed, other = team.processes
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        processes.send(other.stdin, "go")
        was_let_in_early = team.received(other)

    assert not was_let_in_early


def test_fault_21_a_probe_that_fails_when_the_others_have_moved_on_changes_nothing():
    clock, ledgers = FakeClock(), {}
    exchanges = [Exchange(MemoryEngine(clock, ledgers), 1.0, clock) for _ in range(2)]
    here, there = [
        CircuitBreaker(1, 60.0, name="storage", shared=exchange, probes=1, clock=clock, recovery_jitter=0.0)
        for exchange in exchanges
    ]

    def step(*some, seconds=1.0):
        clock.advance(seconds)
        for _ in range(4):
            for exchange in some or exchanges:
                exchange.step(wait=False)

    step()
    trip(here)
    step()
    step(seconds=60.0)
    step(seconds=1.0)
    assert not is_let_through(here)
    step(exchanges[0])
    permit = here.acquire()
    there.reset()
    step(exchanges[1], seconds=0.0)  # here nothing is heard of it
    permit.failure(OSError())
    assert (here.state, there.state) == ("open", "closed")
    step(seconds=0.0)
    step()

    assert (here.state, there.state) == ("closed", "closed")


def test_fault_22_a_listener_that_blocks_holds_up_no_call():
    clock, ledgers = FakeClock(), {}
    exchange = Exchange(MemoryEngine(clock, ledgers), 1.0, clock)
    entered, leave = threading.Event(), threading.Event()

    def block(change):
        if change.reason == "opened by another process":
            entered.set()
            leave.wait(10.0)

    deaf = CircuitBreaker(1, 60.0, name="storage", shared=exchange, clock=clock, on_change=block, probes=1)
    exchange.step(wait=False)
    MemoryEngine(clock, ledgers).take("storage", Report("another", NO_NEWS, opens=True, rest=60.0))
    clock.advance(1.0)
    thread = threading.Thread(target=exchange.step)
    thread.start()
    assert entered.wait(10.0)

    clock.advance(60.0)
    assert not is_let_through(deaf)  # it needs a place, and its board hangs
    clock.advance(3.0)
    assert is_let_through(deaf)
    assert deaf.is_closed
    leave.set()
    exchange.hear(None)
    thread.join(10.0)


# --- D. processes --------------------------------------------------------------------------------


@forking
def test_fault_29_a_forked_worker_has_connections_and_a_name_of_its_own(server):
    with pair(lambda: new_board(server)) as (here, there):
        member = here._gate.wake.__self__
        before = member.voter

        def work():
            assert member.voter != before
            wait_until(lambda: in_touch(here))
            trip(here)
            wait_until(lambda: here._gate.core._known.is_open)

        assert in_child(work) == 0
        wait_until(lambda: (here.state, there.state) == ("open", "open"))
        here.reset()
        wait_until(lambda: there.is_closed)


def test_fault_33_a_process_ends_at_once_with_a_board_at_work(server):
    source = f"from tests.boards.workers import leave_at_once; leave_at_once({server.url!r})"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=processes.ROOT,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")


# --- E. clocks -----------------------------------------------------------------------------------


def test_fault_37_nodes_whose_clocks_differ_open_for_as_long(redis_server):
    """Whatever their clocks read: an opening carries the seconds that are left."""
    name = f"clocks {next(names)}"
    with redis.Redis.from_url(redis_server.url) as client:
        clocks = [FakeClock(start=start) for start in (0.0, 5.0, 1e9)]
        exchanges = [Exchange(_Redis(client, "faults:", closes=False), 1.0, clock) for clock in clocks]
        breakers = [
            CircuitBreaker(1, 60.0, name=name, shared=exchange, clock=clock, recovery_jitter=0.0)
            for exchange, clock in zip(exchanges, clocks, strict=True)
        ]
        for exchange in exchanges:
            exchange.step(wait=False)
        trip(breakers[0])
        exchanges[0].step(wait=False)
        for clock, exchange in zip(clocks, exchanges, strict=True):
            clock.advance(1.0)
            exchange.step(wait=False)

    assert [breaker.state for breaker in breakers] == ["open"] * 3
    left = [breaker.snapshot().time_until_retry for breaker in breakers]
    assert left[0] == 59.0
    assert all(50.0 < seconds <= 60.0 for seconds in left[1:])


@pytest.mark.parametrize("jump", [-86_400.0, -5.0, 5.0, 86_400.0])
def test_fault_38_a_clock_that_jumps_at_failover_keeps_no_door_closed(jump):
    clock = FakeClock()
    engine = MemoryEngine(clock)
    exchange = Exchange(engine, 1.0, clock)
    breaker = CircuitBreaker(
        1, 60.0, name="storage", shared=exchange, clock=clock, probes=1, recovery_jitter=0.0
    )
    exchange.step(wait=False)
    trip(breaker)
    exchange.step(wait=False)
    engine.now = lambda: 1_700_000_005.0 + clock.now() + jump
    newcomer = CircuitBreaker(
        1, 60.0, name="storage", shared=exchange, clock=clock, probes=1, recovery_jitter=0.0
    )

    for _ in range(130):
        clock.advance(1.0)
        for _ in range(3):
            exchange.step(wait=False)
        is_let_through(newcomer)
        is_let_through(breaker)

    assert (breaker.state, newcomer.state) == ("closed", "closed")


# --- F, G. engines --------------------------------------------------------------------------------


def test_fault_41_a_server_that_is_killed_is_no_error_and_one_line_in_the_log(own_server, caplog):
    with pair(lambda: new_board(own_server), recovery_time=0.1) as (here, there):
        own_server.kill()
        wait_until(lambda: out_of_touch(here, there))
        trip(here)
        assert there.is_closed
        wait_until(lambda: is_let_through(here))
        assert here.is_closed
        trip(here)
        here.force_open()
        here.reset()
        assert len(caplog.records) == 2  # one for each board

        own_server.start()
        wait_until(lambda: in_touch(here, there), timeout=20.0)
        trip(here)
        wait_until(lambda: there.state == "open")
    assert caplog.text.count("answers again") == 2


def test_fault_42_after_a_restart_without_persistence_the_open_are_still_open(redis_server, new_redis_server):
    server = new_redis_server()
    with pair(lambda: new_board(server)) as (here, there):
        trip(here)
        wait_until(lambda: there.state == "open")
        server.kill()
        server.start()
        wait_until(lambda: in_touch(here, there), timeout=20.0)
        with new_board(server) as board:
            newcomer = CircuitBreaker(1, 60.0, name=here.name, shared=board)
            wait_until(lambda: newcomer.state == "open")


def test_fault_45_a_server_that_hangs_hangs_nobody(own_server):
    with pair(lambda: new_board(own_server), recovery_time=0.1) as (here, there):
        own_server.stop()
        trip(here)  # the call itself is over at once: there is nothing in it that waits
        assert here.state == "open"
        wait_until(lambda: is_let_through(here), timeout=10.0)
        assert here.is_closed
        trip(here)
        own_server.cont()
        wait_until(lambda: there.state == "open" or (is_let_through(here) and trip(here)), timeout=20.0)
        wait_until(lambda: is_let_through(here) or is_let_through(there), timeout=10.0)


def test_fault_51_what_went_apart_in_a_partition_comes_together(own_server):
    with pair(lambda: new_board(own_server)) as (here, there):
        trip(here)
        wait_until(lambda: there.state == "open")
        own_server.kill()
        wait_until(lambda: out_of_touch(here, there))
        there.reset()
        assert (here.state, there.state) == ("open", "closed")
        own_server.start()
        wait_until(lambda: here.is_closed, timeout=20.0)

        assert there.is_closed


@pytest.mark.parametrize("value", ["garbage", '{"generation": 1e400}', "x" * 10_000_000, "list"])
def test_fault_54_what_is_not_ours_under_our_key_is_left_and_said(redis_server, caplog, value):
    name = f"foreign {next(names)}"
    key = f"resilience:breaker:{name}"
    with redis.Redis.from_url(redis_server.url) as client:
        client.rpush(key, "a") if value == "list" else client.set(key, value)
        before = client.dump(key)
        with pair(lambda: new_board(redis_server), recovery_time=0.1, name=name) as (here, there):
            trip(here)
            wait_until(lambda: is_let_through(here))

            assert there.is_closed
            assert client.dump(key) == before
        client.delete(key)
    assert "goes on alone: GarbledError" in caplog.text
    assert max(map(len, caplog.text.splitlines())) < 1000


@pytest.mark.parametrize(
    "name", ["a\nb", "a\0b", "{a}", "'; DROP TABLE x; --", '"\\', "\ud800", "ä" * 100_000]
)
def test_fault_55_any_name_is_one_key(server, name):
    with pair(lambda: new_board(server), name=name) as (here, there):
        trip(here)
        wait_until(lambda: there.state == "open")


def test_fault_56_connections_that_are_ended_are_made_anew(postgres_server):
    create_schema(postgres_server.url)
    with pair(lambda: new_board(postgres_server)) as (here, there):
        with psycopg.connect(postgres_server.url) as connection:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'resilience board'"
            ).fetchone()
        assert ended[0] >= 2
        trip(here)
        wait_until(lambda: there.state == "open")
