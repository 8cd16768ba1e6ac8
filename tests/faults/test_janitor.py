"""The fault catalogue's lines on janitors, session stores, socket registries and memory watches."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import pickle
import sqlite3
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from resilience.events import SweepFinished, subscribe
from resilience.janitor import AsyncSessionJanitor, JanitorStats, MemoryWatch, SessionJanitor, SocketRegistry
from resilience.janitor.memory import Reading
from resilience.janitor.sessions import Session, session_id_of
from resilience.janitor.sqlite import AsyncSQLiteSessionStore, SQLiteSessionStore
from resilience.janitor.usage import Usage
from resilience.testing import FakeClock, cancel_at_every_tick, wait_until, wait_until_async
from tests.children import forking, in_child, write_in_child_around
from tests.janitor.doubles import AsyncStore, Socket, Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


def fill(path, expired, alive=0):
    """Put sessions into a file, some of them expired by now; return the tokens of those alive."""
    long_ago = FakeClock(wall=1_000_000.0)
    with SQLiteSessionStore(path, clock=long_ago) as store:
        for _ in range(expired):
            store.create("old")
    with SQLiteSessionStore(path) as store:
        return [store.create("new") for _ in range(alive)]


# --- cancellation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_fault_10_a_sweep_can_be_cancelled_at_every_tick(times):
    stores, janitors = [], []

    async def sweep():
        stores.append(AsyncStore(expired=5, alive=1))
        janitors.append(AsyncSessionJanitor(stores[-1], batch=2, pause=0))
        with suppress(RuntimeError):  # it was a batch that was cancelled, and not the sweep
            await janitors[-1].sweep()

    async def check():
        store = stores[-1]
        told, happened = janitors[-1].stats().sessions_cleaned, sum(store.batches)
        assert told in {happened, happened - 2, happened - 1}  # all but a batch that was itself cancelled
        assert all(batch == 2 for batch in store.batches[:2]), "a partial batch"
        assert (await AsyncSessionJanitor(store, batch=2, pause=0).sweep()).complete
        assert list(store.sessions) == ["new0"]

    assert cancel_at_every_tick(sweep, check, times=times) > 5


def test_fault_10_a_running_janitor_can_be_cancelled_at_every_tick():
    janitors = []

    async def live():
        swept = asyncio.Event()
        janitor = AsyncSessionJanitor(
            AsyncStore(expired=5), batch=2, pause=0, random=lambda: 0.0, on_sweep=lambda _: swept.set()
        )
        janitors.append(janitor)
        async with janitor:
            sweeping = asyncio.ensure_future(swept.wait())
            await asyncio.wait([sweeping], timeout=0.01)

    async def check():
        janitor = janitors[-1]
        assert await janitor.stop(timeout=1.0), "it does not stop"
        assert not janitor.is_running
        await janitor.start()
        assert janitor.is_running
        assert await janitor.stop(timeout=1.0)

    assert cancel_at_every_tick(live, check) > 5


async def test_fault_10_a_cancelled_batch_in_a_file_happens_as_a_whole(path):
    fill(path, expired=30)
    async with AsyncSQLiteSessionStore(path) as store:
        janitor = AsyncSessionJanitor(store, batch=10)
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        sweeping = asyncio.ensure_future(janitor.sweep())
        await wait_until_async(lambda: not store._store._file._idle)  # its thread awaits the write lock
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping
        assert await store.count_expired(100) == 30
        writer.execute("COMMIT")
        writer.close()
        await wait_until_async(lambda: janitor.stats().sessions_cleaned == 10)
        await janitor.sweep()
        assert janitor.stats().sessions_cleaned == 30

        assert await store.count_expired(100) == 0


@pytest.mark.parametrize("times", [1, 2, 3])
def test_fault_09_a_stop_that_is_cancelled_again_and_again_still_stops_it(times):
    janitors, told = [], []

    async def live():
        janitors.append(AsyncSessionJanitor(AsyncStore(expired=4), batch=2, pause=0, random=lambda: 0.0))
        try:
            async with janitors[-1]:
                await asyncio.sleep(0)
        finally:
            told.append(not janitors[-1].is_running or janitors[-1]._run.stopping.is_set())

    async def check():
        assert all(told)  # however often its caller was cancelled
        assert await janitors[-1].stop(timeout=1.0)
        assert not janitors[-1].is_running

    assert cancel_at_every_tick(live, check, times=times) > 3


@pytest.mark.parametrize("times", [1, 2])
def test_fault_09_a_shutdown_that_is_cancelled_still_closes_each_socket_once(times):
    worlds = []

    class Counted(Socket):
        closes = 0

        async def close(self, code, reason):
            self.closes += 1
            await asyncio.sleep(0)

    async def shut_down():
        registry, sockets = SocketRegistry(spread=0.0), [Counted() for _ in range(3)]
        worlds.append((registry, sockets))
        for number, socket in enumerate(sockets):
            registry.register(socket, f"s{number}")
        shutting = asyncio.ensure_future(registry.shut_down_async())
        await asyncio.sleep(0)  # it has begun
        for _ in range(times):
            shutting.cancel()
            await asyncio.sleep(0)
        await wait_until_async(lambda: len(registry) == 0)
        assert shutting.cancelled()

    asyncio.run(shut_down())
    (registry, sockets) = worlds.pop()
    assert [socket.closes for socket in sockets] == [1, 1, 1]
    assert (registry.closed, registry.failed) == (3, 0)


# --- loops and threads -----------------------------------------------------------------------------


def test_fault_11_one_janitor_and_one_registry_serve_three_loops_in_turn():
    store, registry = AsyncStore(alive=3), SocketRegistry()
    janitor = AsyncSessionJanitor(store, sockets=registry)

    async def serve(session_id):
        async with janitor:
            sockets = [Socket() for _ in range(3)]
            for socket in sockets:
                registry.register(socket, session_id)
            await asyncio.gather(*[janitor.cleanup_session(session_id) for _ in range(3)])
            return [socket.code for socket in sockets]

    for turn in range(3):
        assert asyncio.run(serve(f"new{turn}")) == [1008] * 3


def test_fault_12_sockets_of_two_loops_in_two_threads_are_closed_on_their_own():
    registry = SocketRegistry()
    registered = threading.Barrier(2)

    class Placed(Socket):
        async def close(self, code, reason):
            self.code, self.closed_on = code, asyncio.get_running_loop()

    async def serve(mine):
        socket = Placed()
        registry.register(socket, f"s{mine}")
        registered.wait(10)
        await registry.end_sessions_async([f"s{1 - mine}"])  # each the other's
        await wait_until_async(lambda: f"s{mine}" not in registry.session_ids())
        return socket.code, socket.closed_on is asyncio.get_running_loop()

    outcomes = []
    threads = [
        threading.Thread(target=lambda mine=mine: outcomes.append(asyncio.run(serve(mine), debug=True)))
        for mine in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert outcomes == [(1008, True)] * 2
    assert len(registry) == 0


def test_fault_13_a_loop_closed_with_a_janitor_and_sockets_leaves_them_free_to_go_on():
    clock, registry, socket = FakeClock(auto=False), SocketRegistry(), Socket()
    janitor = AsyncSessionJanitor(AsyncStore(expired=3), sockets=registry, clock=clock)

    async def begin():
        await janitor.start()
        registry.register(socket, "s1")
        await clock.wait_for_sleepers_async(1)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    janitor._run._task._log_destroy_pending = False  # that asyncio itself complains is its right
    loop.close()
    assert not janitor.is_running
    assert registry.end_sessions(["s1"]) == 0  # nobody is left to close it
    assert len(registry) == 0

    async def go_on():
        async with janitor:
            assert janitor.is_running
            return await janitor.sweep()

    assert asyncio.run(go_on()).sessions_cleaned == 3
    gc.collect()


async def test_fault_14_a_locked_file_does_not_hold_the_loop_up(path):
    async with AsyncSQLiteSessionStore(path) as store:
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        creating = asyncio.ensure_future(store.create("ada"))
        await asyncio.sleep(0.01)  # the loop turns all the while

        assert not creating.done()
        writer.execute("COMMIT")
        writer.close()
        assert await store.validate(await creating)


def test_fault_22_a_raising_listener_is_logged_once_and_the_others_hear(caplog):
    heard = []

    def fail(event):
        raise ValueError("broken listener")

    unsubscribe = subscribe(heard.append)
    try:
        janitor = SessionJanitor(Store(expired=1), on_sweep=fail)
        janitor.sweep()
        janitor.sweep()
    finally:
        unsubscribe()

    assert [type(event) for event in heard] == [SweepFinished] * 2
    assert sum("broken listener" in record.exc_text for record in caplog.records if record.exc_text) == 1
    assert janitor.stats().sweeps == 2


def test_fault_22_a_listener_may_call_the_janitor_it_listens_to():
    seen = []

    def reenter(event):
        if not seen:
            seen.append(janitor.stats().sweeps)
            seen.append(janitor.sweep())
            seen.append(janitor.cleanup_session("new0"))

    janitor = SessionJanitor(Store(alive=1), on_sweep=reenter)
    janitor.sweep()

    assert seen[0] == 1
    assert seen[1].complete
    assert seen[2] is True


def test_fault_22_a_listener_that_blocks_holds_nobody_else_up():
    inside, release = threading.Event(), threading.Event()
    let_go = []

    def block(event):
        inside.set()
        let_go.append(release.wait(5))

    janitor = SessionJanitor(Store(alive=1), random=lambda: 0.0, on_sweep=block)
    janitor.start()
    assert inside.wait(5)

    assert janitor.stats().sweeps == 1
    assert janitor.cleanup_session("new0")
    release.set()
    assert janitor.stop()
    assert let_go == [True]  # it was not the end of its patience


async def test_fault_23_a_socket_may_be_lost_while_the_registry_is_locked():
    registry = SocketRegistry()

    class Cyclic(Socket):
        def __init__(self):
            super().__init__()
            self.itself = self

    registry.register(Cyclic(), "s1")

    def collect_while_locked():
        with registry._lock:
            gc.collect()

    thread = threading.Thread(target=collect_while_locked, daemon=True)  # so that a deadlock ends, too
    thread.start()
    thread.join(5)

    assert not thread.is_alive()
    assert len(registry) == 0


# --- forks, copies, exit ---------------------------------------------------------------------------


@contextmanager
def all_held_elsewhere(*owners):
    """Have another thread hold the lock of each object."""
    held, release = threading.Event(), threading.Event()

    def hold():
        with ExitStack() as stack:
            for owner in owners:
                stack.enter_context(owner._lock)
            held.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    try:
        yield
    finally:
        release.set()
        holder.join()


@forking
def test_fault_28_a_child_works_although_every_lock_was_held(path):
    registry, watch = SocketRegistry(), MemoryWatch()
    with SQLiteSessionStore(path) as store:
        token = store.create("ada")
        janitor = SessionJanitor(store, sockets=registry, memory=watch)
        asynchronous = AsyncSessionJanitor(AsyncStore(), sockets=registry)
        janitor.start()

        def work():
            assert not janitor.is_running  # the thread is the parent's
            assert store.renew(token)
            assert janitor.sweep().complete
            assert registry.session_ids() == []
            assert watch.check().resident
            assert asyncio.run(asynchronous.sweep()).complete
            janitor.start()
            assert janitor.stats().is_running
            assert janitor.stop()

        with all_held_elsewhere(registry, watch, janitor, asynchronous):
            for _ in range(100):
                assert in_child(work) == 0

        assert janitor.is_running
        janitor.stop()


@forking
def test_fault_28_what_a_child_writes_is_not_lost_when_its_parent_closes_the_file(path):
    # Without closing what it inherited, the child would not hold SQLite's lock on the file, and the
    # parent, as the last one, would delete the log into which the child writes.
    store = SQLiteSessionStore(path)
    store.create("parent")
    write_in_child_around(store.close, lambda: store.create("child"))
    with SQLiteSessionStore(path) as store:
        assert store.count() == 3


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "make",
    [
        lambda: SessionJanitor(Store()),
        lambda: AsyncSessionJanitor(AsyncStore()),
        SocketRegistry,
        MemoryWatch,
    ],
)
def test_fault_31_what_holds_a_lock_refuses_to_be_copied(make, duplicate):
    with pytest.raises(TypeError, match="make a new one"):
        duplicate(make())


@pytest.mark.parametrize(
    "record",
    [
        JanitorStats(True, 1, 2, 3, 4.0, "125MB", 5, 6, 7.0, True),
        Session("id", "ada", {"a": [1]}, 1.0, 2.0, 3.0),
        Reading(1, 2, 3.0, 4, 5, 6, (7, 8, 9), False),
        SweepFinished("web", 1, 2.0, True, False),
    ],
)
def test_fault_31_records_round_trip(record):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(record, protocol)) == record
    assert copy.deepcopy(record) == record


SYNC_EXIT = """
import sys
from resilience.janitor import SessionJanitor
from resilience.janitor.sqlite import SQLiteSessionStore
store = SQLiteSessionStore(sys.argv[1])
janitor = SessionJanitor(store, interval=float(sys.argv[2]), pause=0)
janitor.start()
import time
time.sleep(0.05)
assert janitor.is_running
"""
ASYNC_EXIT = """
import asyncio, sys
from resilience.janitor import AsyncSessionJanitor
from resilience.janitor.sqlite import AsyncSQLiteSessionStore
store = AsyncSQLiteSessionStore(sys.argv[1])
janitor = AsyncSessionJanitor(store, interval=float(sys.argv[2]), pause=0)
async def main():
    await janitor.start()
    await asyncio.sleep(0.05)
    assert janitor.is_running
asyncio.run(main())
"""


@pytest.mark.parametrize("interval", ["1800", "1e-6"], ids=["waiting", "sweeping"])
@pytest.mark.parametrize("program", [SYNC_EXIT, ASYNC_EXIT], ids=["sync", "async"])
def test_fault_33_the_interpreter_exits_with_a_live_janitor(path, program, interval):
    fill(path, expired=50)
    done = subprocess.run(
        [sys.executable, "-c", program, path, interval], capture_output=True, timeout=10, check=False
    )

    assert done.stderr == b""
    assert done.returncode == 0


# --- clocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3600.0, -3600.0, -1.7e9])
def test_fault_34_a_step_of_the_wall_clock_moves_no_sweep(step):
    clock, swept = FakeClock(auto=False), []
    janitor = SessionJanitor(Store(), clock=clock, random=lambda: 0.5, on_sweep=swept.append)
    with janitor:
        clock.wait_for_sleepers(1)
        clock.step_wall(step)
        clock.advance(899.0)
        clock.wait_for_sleepers(1)
        assert swept == []
        clock.advance(1.0)
        wait_until(lambda: len(swept) == 1)


def test_fault_36_a_machine_that_slept_for_an_hour_wakes_to_one_sweep_and_one_reading():
    clock, swept, readings = FakeClock(auto=False), [], []
    watch = MemoryWatch(interval=10.0, reader=lambda: readings.append(1) or Usage(1, 2), clock=clock)
    janitor = SessionJanitor(
        Store(), interval=60.0, memory=watch, clock=clock, random=lambda: 0.5, on_sweep=swept.append
    )
    with janitor:
        clock.wait_for_sleepers(1)
        assert (len(swept), len(readings)) == (0, 1)
        clock.advance(3600.0)
        wait_until(lambda: clock.sleepers == 1)

        assert (len(swept), len(readings)) == (1, 2)


def test_fault_39_a_session_lasts_until_its_end_and_not_a_microsecond_longer(path):
    clock = FakeClock()
    with SQLiteSessionStore(path, idle_timeout=100.0, clock=clock) as store:
        token = store.create("ada")
        clock.advance(100.0 - 1e-6)
        assert store.validate(token)
        assert store.count_expired(10) == store.delete_expired(10) == 0
        clock.advance(1e-6)
        assert store.validate(token) is None
        assert store.renew(token) is None
        assert store.count_expired(10) == store.delete_expired(10) == 1


# --- tokens ----------------------------------------------------------------------------------------


def test_fault_95_of_a_token_only_a_hash_is_stored(path):
    with SQLiteSessionStore(path) as store:
        token = store.create("ada")
        (session,) = [store.validate(token)]
        for forged in (token[:-1], token.swapcase(), session.session_id, "", "\0", "\ud800", "x" * 100_000):
            assert store.validate(forged) is None
            assert store.renew(forged) is None
    written = path.read_bytes()
    assert session.session_id.encode() in written
    assert token.encode() not in written


# --- races in one file -----------------------------------------------------------------------------


def sweep_in_process(path, start, reports):
    with SQLiteSessionStore(path) as store:
        janitor = SessionJanitor(store, batch=7, pause=0)
        start.wait(10)
        reports.put(janitor.sweep().sessions_cleaned)


def test_fault_61_of_two_janitors_at_once_each_expired_session_is_deleted_by_one(path):
    alive = fill(path, expired=300, alive=20)
    context = multiprocessing.get_context("spawn")
    start, reports = context.Barrier(2), context.Queue()
    processes = [context.Process(target=sweep_in_process, args=(path, start, reports)) for _ in range(2)]
    for process in processes:
        process.start()
    cleaned = [reports.get(timeout=20) for _ in processes]
    for process in processes:
        process.join(10)
        assert process.exitcode == 0

    assert sum(cleaned) == 300
    with SQLiteSessionStore(path) as store:
        assert store.count_expired(1000) == 0
        assert all(store.validate(token) for token in alive)


def test_fault_62_a_session_whose_renewal_is_in_flight_survives_the_sweep(path):
    clock = FakeClock()
    with SQLiteSessionStore(path, idle_timeout=100.0, clock=clock) as store:
        token = store.create("ada")
        other = store.create("bob")
        clock.advance(100.0)  # both have expired, unless the renewal below is in time
        renewal = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        renewal.execute("BEGIN IMMEDIATE")
        renewal.execute(
            "UPDATE resilience_sessions SET expires_at = expires_at + 100 WHERE session_id = ?",
            [session_id_of(token)],
        )
        deleted = []
        sweeping = threading.Thread(target=lambda: deleted.append(store.delete_expired(10)))
        sweeping.start()
        wait_until(lambda: not store._file._idle)  # it waits for the write lock
        renewal.execute("COMMIT")
        sweeping.join(10)
        renewal.close()

        assert deleted == [1]
        assert store.validate(token)
        assert store.validate(other) is None


def test_fault_62_what_a_renewal_has_promised_is_kept_under_a_storm_of_sweeps(path):
    clock, broken, over = FakeClock(), [], threading.Event()
    with SQLiteSessionStore(path, idle_timeout=10.0, absolute_lifetime=1e6, clock=clock) as store:

        def sweep():
            while not over.is_set():
                clock.advance(1.0)
                store.delete_expired(100)

        sweeper = threading.Thread(target=sweep)
        sweeper.start()
        renewed = 0
        for _ in range(20):
            token = store.create("ada")
            while session := store.renew(token):
                renewed += 1
                again = store.validate(token)
                if again is None and clock.wall() < session.expires_at:
                    broken.append(session)
                if renewed % 50 == 0:
                    break
        over.set()
        sweeper.join(10)

    assert broken == []
    assert renewed
