from __future__ import annotations

import asyncio
import logging
import threading

import pytest

import resilience.janitor
from resilience.events import SweepFailed, SweepFinished
from resilience.janitor import AsyncSessionJanitor, SessionJanitor, SocketRegistry
from resilience.janitor.runs import ThreadRun
from resilience.testing import FakeClock, wait_until, wait_until_async
from tests.janitor.doubles import AsyncStore, AsyncStuckStore, Socket, Store, StuckStore


@pytest.fixture
def clock():
    return FakeClock(auto=False)


def test_the_public_names():
    for name in resilience.janitor.__all__:
        assert getattr(resilience.janitor, name).__name__ == name


# --- one sweep -------------------------------------------------------------------------------------


def test_a_sweep_deletes_what_expired_in_batches():
    store, told, clock = Store(expired=11, alive=3), [], FakeClock()
    janitor = SessionJanitor(store, batch=5, pause=0.5, clock=clock, name="web", on_sweep=told.append)
    report = janitor.sweep()

    assert report == SweepFinished("web", 11, 1.0, complete=True, dry_run=False)
    assert told == [report]
    assert store.batches == [5, 5, 1]
    assert len(store.sessions) == 3
    stats = janitor.stats()
    assert (stats.sessions_cleaned, stats.sweeps, stats.last_sweep_at) == (11, 1, clock.wall())


async def test_a_sweep_in_a_task_deletes_what_expired_in_batches():
    store, told, clock = AsyncStore(expired=11, alive=3), [], FakeClock()
    janitor = AsyncSessionJanitor(store, batch=5, pause=0.5, clock=clock, name="web", on_sweep=told.append)
    report = await janitor.sweep()

    assert report == SweepFinished("web", 11, 1.0, complete=True, dry_run=False)
    assert told == [report]
    assert store.batches == [5, 5, 1]
    assert len(store.sessions) == 3
    stats = janitor.stats()
    assert (stats.sessions_cleaned, stats.sweeps, stats.last_sweep_at) == (11, 1, clock.wall())


def test_a_sweep_is_bounded_in_rows_and_the_next_goes_on():
    store = Store(expired=10)
    janitor = SessionJanitor(store, batch=4, max_rows=6, pause=0)

    assert janitor.sweep()[1:2] == (6,)
    assert store.batches == [4, 2]
    assert janitor.sweep().sessions_cleaned == 4
    assert janitor.sweep().complete
    assert janitor.stats().sessions_cleaned == 10


async def test_a_sweep_in_a_task_is_bounded_in_rows_and_the_next_goes_on():
    store = AsyncStore(expired=10)
    janitor = AsyncSessionJanitor(store, batch=4, max_rows=6, pause=0)

    assert (await janitor.sweep()).complete is False
    assert store.batches == [4, 2]
    assert (await janitor.sweep()).sessions_cleaned == 4


def test_a_sweep_is_bounded_in_time():
    store, clock = Store(expired=100), FakeClock()
    store.before_batch = lambda _: clock.advance(0.75)
    report = SessionJanitor(store, batch=5, max_seconds=2.0, pause=0.25, clock=clock).sweep()

    assert report.sessions_cleaned == 10
    assert report.elapsed == 2.0
    assert not report.complete


async def test_a_sweep_in_a_task_is_bounded_in_time():
    store, clock = AsyncStore(expired=100), FakeClock()
    store.store.before_batch = lambda _: clock.advance(0.75)
    report = await AsyncSessionJanitor(store, batch=5, max_seconds=2.0, pause=0.25, clock=clock).sweep()

    assert (report.sessions_cleaned, report.complete) == (10, False)


def test_a_dry_run_only_counts():
    store, registry = Store(expired=7, alive=2), SocketRegistry()
    janitor = SessionJanitor(store, dry_run=True, sockets=registry)
    report = janitor.sweep()

    assert (report.sessions_cleaned, report.complete, report.dry_run) == (7, True, True)
    assert len(store.sessions) == 9
    assert janitor.stats().sessions_cleaned == 0
    assert janitor.stats().sweeps == 1


async def test_a_dry_run_in_a_task_only_counts():
    store = AsyncStore(expired=7, alive=2)
    report = await AsyncSessionJanitor(store, dry_run=True, max_rows=7).sweep()

    assert (report.sessions_cleaned, report.complete) == (7, False)
    assert len(store.sessions) == 9


def test_a_failing_sweep_is_told_raised_and_counted():
    def fail_second(number):
        if number == 2:
            raise OSError("disk full")

    store, told = Store(expired=10), []
    store.before_batch = fail_second
    janitor = SessionJanitor(store, batch=4, pause=0, name="web", on_sweep_failed=told.append)
    with pytest.raises(OSError, match="disk full") as raised:
        janitor.sweep()

    assert told == [SweepFailed("web", raised.value)]
    stats = janitor.stats()
    assert (stats.failed_sweeps, stats.sweeps, stats.last_sweep_at) == (1, 0, None)
    assert stats.sessions_cleaned == 4  # the first batch stays


async def test_a_failing_sweep_in_a_task_is_told_raised_and_counted():
    def fail(_):
        raise OSError("disk full")

    store, told = AsyncStore(expired=10), []
    store.store.before_batch = fail
    janitor = AsyncSessionJanitor(store, name="web", on_sweep_failed=told.append)
    with pytest.raises(OSError, match="disk full") as raised:
        await janitor.sweep()

    assert told == [SweepFailed("web", raised.value)]
    assert janitor.stats().failed_sweeps == 1


# --- ending sessions and their sockets -------------------------------------------------------------


async def test_a_sweep_closes_the_sockets_of_all_ended_sessions():
    store, registry = AsyncStore(expired=2, alive=1), SocketRegistry()
    janitor = AsyncSessionJanitor(store, sockets=registry)
    expired, ended_elsewhere, alive = Socket(), Socket(), Socket()
    registry.register(expired, "old0")
    registry.register(ended_elsewhere, "logged out by another process")
    registry.register(alive, "new0")
    await janitor.sweep()

    assert (expired.code, ended_elsewhere.code, alive.code) == (1008, 1008, None)
    assert janitor.stats().connections_closed == 2


async def test_a_sweep_in_a_thread_closes_sockets_on_their_loop():
    store, registry = Store(expired=1, alive=1), SocketRegistry()
    janitor = SessionJanitor(store, sockets=registry)
    expired, alive = Socket(), Socket()
    registry.register(expired, "old0")
    registry.register(alive, "new0")
    await asyncio.to_thread(janitor.sweep)

    assert (expired.code, alive.code) == (1008, None)
    assert janitor.stats().connections_closed == 1


async def test_one_session_ends_with_its_sockets():
    store, registry = AsyncStore(alive=2), SocketRegistry()
    janitor = AsyncSessionJanitor(store, sockets=registry)
    socket = Socket()
    registry.register(socket, "new0")

    assert await janitor.cleanup_session("new0") is True
    assert await janitor.cleanup_session("new0") is False
    assert socket.code == 1008
    assert list(store.sessions) == ["new1"]


async def test_one_session_ends_with_its_sockets_from_a_thread():
    store, registry = Store(alive=2), SocketRegistry()
    janitor = SessionJanitor(store, sockets=registry)
    socket = Socket()
    registry.register(socket, "new0")

    assert await asyncio.to_thread(janitor.cleanup_session, "new0") is True
    assert socket.code == 1008


async def test_all_sessions_of_a_user_end_with_their_sockets():
    store, registry = AsyncStore(alive=2), SocketRegistry()
    janitor = AsyncSessionJanitor(store, sockets=registry)
    by_session, by_user, other = Socket(), Socket(), Socket()
    registry.register(by_session, "new0")
    registry.register(by_user, "deleted before", "bob")
    registry.register(other, "elsewhere", "ada")

    assert await janitor.cleanup_user_sessions("bob") == 2
    assert (by_session.code, by_user.code, other.code) == (1008, 1008, None)
    assert await janitor.cleanup_user_sessions("bob") == 0


async def test_all_sessions_of_a_user_end_with_their_sockets_from_a_thread():
    store, registry = Store(alive=2), SocketRegistry()
    janitor = SessionJanitor(store, sockets=registry)
    socket = Socket()
    registry.register(socket, "new1", "bob")

    assert await asyncio.to_thread(janitor.cleanup_user_sessions, "bob") == 2
    assert socket.code == 1008


def test_sessions_end_without_a_registry_too():
    janitor = SessionJanitor(Store(expired=2, alive=2))

    assert janitor.cleanup_session("new0")
    assert janitor.cleanup_user_sessions("ada") == 2


async def test_sessions_end_in_a_task_without_a_registry_too():
    janitor = AsyncSessionJanitor(AsyncStore(expired=2, alive=2))

    assert await janitor.cleanup_session("new0")
    assert await janitor.cleanup_user_sessions("ada") == 2


# --- one of several nodes --------------------------------------------------------------------------


def test_where_another_node_is_cleaning_the_sweep_ends_and_is_no_failure():
    store, told = Store(expired=10), []
    first = store.delete_expired
    store.delete_expired = lambda limit: first(limit) if not store.batches else None
    janitor = SessionJanitor(store, batch=4, pause=0, name="web", on_sweep=told.append)
    report = janitor.sweep()

    assert (report.sessions_cleaned, report.complete, report.left_to_another) == (4, False, True)
    assert told == [report]
    assert (janitor.stats().sessions_cleaned, janitor.stats().failed_sweeps) == (4, 0)


async def test_where_another_node_is_cleaning_the_sweep_in_a_task_ends_and_still_closes_sockets():
    class Busy(AsyncStore):
        async def delete_expired(self, limit):
            self.batches.append(None)

    store, registry, socket = Busy(expired=10), SocketRegistry(), Socket()
    registry.register(socket, "old0")
    report = await AsyncSessionJanitor(store, sockets=registry).sweep()

    assert (report.sessions_cleaned, report.complete, report.left_to_another) == (0, False, True)
    assert store.batches == [None]  # it asks once, and not again and again
    assert socket.code == 1008


# --- a batch whose sweep is cancelled ----------------------------------------------------------------


async def test_a_batch_goes_on_without_its_sweep_and_is_counted():
    store = AsyncStuckStore(expired=10)
    janitor = AsyncSessionJanitor(store, batch=4)
    sweeping = asyncio.ensure_future(janitor.sweep())
    await store.inside.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    assert janitor.stats().sessions_cleaned == 0
    store.release.set()
    await wait_until_async(lambda: janitor.stats().sessions_cleaned == 4)

    assert store.batches == [4]
    assert not janitor._batches


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_batch_that_fails_without_its_sweep_is_logged_and_a_cancelled_one_is_not(cancelled, caplog):
    class Failing(AsyncStuckStore):
        async def delete_expired(self, limit):
            await super().delete_expired(limit)
            raise OSError("disk full")

    store = Failing(expired=10)
    janitor = AsyncSessionJanitor(store, name="web")
    sweeping = asyncio.ensure_future(janitor.sweep())
    await store.inside.wait()
    (batch,) = janitor._batches
    sweeping.cancel()
    await asyncio.wait([sweeping])
    store.release.set()
    if cancelled:
        batch.cancel()
    await asyncio.wait([batch])
    await asyncio.sleep(0)

    assert ("disk full" in caplog.text) is not cancelled
    assert janitor.stats().sessions_cleaned == 0


# --- sockets in between ------------------------------------------------------------------------------


def in_between(janitor, store, registry, clock, **options):
    """Return a janitor that sweeps in half an hour, and checks its sockets in half a minute."""
    never = resilience.janitor.MemoryWatch(interval=1e9)
    options = {"random": lambda: 0.5, **options}
    return janitor(store, sockets=registry, clock=clock, memory=never, **options)


async def test_between_sweeps_sockets_are_closed_whose_sessions_ended_elsewhere(clock):
    store, registry, sockets = AsyncStore(alive=1200), SocketRegistry(), [Socket() for _ in range(1200)]
    asked, ended = [], store.ended

    async def remember(session_ids):
        asked.append(len(session_ids))
        return await ended(session_ids)

    store.ended = remember
    for number, socket in enumerate(sockets):
        registry.register(socket, f"new{number}")
    async with in_between(AsyncSessionJanitor, store, registry, clock) as janitor:
        await clock.wait_for_sleepers_async(1)
        del store.sessions["new7"]  # logged out on another machine
        clock.advance(30.0)
        await wait_until_async(lambda: sockets[7].code == 1008)
        assert asked == [500, 500, 200]
        assert [socket.code for socket in sockets].count(None) == 1199
        await clock.wait_for_sleepers_async(1)
        clock.advance(59.0)
        await clock.wait_for_sleepers_async(1)
        assert len(asked) == 3
        clock.advance(1.0)
        await wait_until_async(lambda: len(asked) == 6)
        assert janitor.stats().sweeps == 0


async def test_between_sweeps_a_thread_closes_them_too(clock):
    store, registry, socket = Store(alive=2), SocketRegistry(), Socket()
    registry.register(socket, "new0")
    with in_between(SessionJanitor, store, registry, clock) as janitor:
        await clock.wait_for_sleepers_async(1)
        del store.sessions["new0"]
        clock.advance(30.0)
        await wait_until_async(lambda: socket.code == 1008)
        await clock.wait_for_sleepers_async(1)
        assert janitor.stats().sweeps == 0


async def test_a_check_that_fails_is_logged_and_the_next_one_comes(clock, caplog):
    store, registry, socket = AsyncStore(), SocketRegistry(), Socket()
    registry.register(socket, "gone")
    ended = store.ended

    async def fail(session_ids):
        store.ended = ended
        raise OSError("no route to host")

    store.ended = fail
    draws = iter([0.5, 0.0, 0.5, 0.5])  # the first check comes at once
    options = {"name": "web", "random": lambda: next(draws)}
    async with in_between(AsyncSessionJanitor, store, registry, clock, **options) as janitor:
        await clock.wait_for_sleepers_async(1)
        clock.advance(60.0)
        await wait_until_async(lambda: socket.code == 1008)
        assert janitor.stats().failed_sweeps == 0

    assert "the janitor web failed to check the open sockets; it goes on" in caplog.text
    assert "no route to host" in caplog.text


async def test_a_check_in_a_thread_that_fails_is_logged_and_the_next_one_comes(clock, caplog):
    store, registry, socket = Store(), SocketRegistry(), Socket()
    registry.register(socket, "gone")
    ended = store.ended

    def fail(session_ids):
        store.ended = ended
        raise OSError("no route to host")

    store.ended = fail
    with in_between(SessionJanitor, store, registry, clock, name="web"):
        for seconds in (30.0, 60.0):
            await clock.wait_for_sleepers_async(1)
            clock.advance(seconds)
        await wait_until_async(lambda: socket.code == 1008)
        await clock.wait_for_sleepers_async(1)

    assert "the janitor web failed to check the open sockets; it goes on" in caplog.text


@pytest.mark.parametrize("options", [{"sockets_interval": None}, {"dry_run": True}])
async def test_sockets_are_not_checked_in_between_where_that_is_not_wanted(clock, options):
    store, registry, socket = AsyncStore(), SocketRegistry(), Socket()
    registry.register(socket, "gone")
    async with in_between(AsyncSessionJanitor, store, registry, clock, **options):
        await clock.wait_for_sleepers_async(1)
        clock.advance(600.0)
        await clock.wait_for_sleepers_async(1)

    assert socket.code is None


async def test_a_check_that_is_told_to_stop_leaves_the_sockets_to_the_shutdown():
    store, registry, socket = Store(), SocketRegistry(), Socket()
    registry.register(socket, "gone")
    for stopping in (threading.Event(), asyncio.Event()):
        stopping.set()
    SessionJanitor(store, sockets=registry)._close_ended(stopping)
    await AsyncSessionJanitor(AsyncStore(), sockets=registry)._close_ended(stopping)

    assert socket.code is None


# --- the schedule ----------------------------------------------------------------------------------


def test_it_sweeps_by_itself_an_interval_after_the_end_of_the_last(clock):
    store, swept = Store(), []
    store.before_batch = lambda _: clock.step(40.0)  # a sweep takes a while
    draws = iter([0.25, 0.5, 1.0, 0.5])
    janitor = SessionJanitor(
        store,
        interval=1000.0,
        jitter=0.1,
        clock=clock,
        random=lambda: next(draws),
        max_seconds=60.0,
        on_sweep=lambda _: swept.append(clock.now()),
        memory=resilience.janitor.MemoryWatch(interval=1e9),
    )
    started = clock.now()
    with janitor:
        for seconds in (250.0, 1000.0, 1100.0):
            clock.wait_for_sleepers(1)
            clock.advance(seconds - 1.0)
            clock.wait_for_sleepers(1)
            count = len(swept)
            clock.advance(1.0)
            wait_until(lambda: len(swept) == count + 1)  # noqa: B023 - called at once

    assert [at - started for at in swept] == [290.0, 1330.0, 2470.0]


async def test_it_sweeps_in_a_task_an_interval_after_the_end_of_the_last(clock):
    store, swept = AsyncStore(), []
    store.store.before_batch = lambda _: clock.step(40.0)
    draws = iter([0.25, 0.5, 0.5])
    janitor = AsyncSessionJanitor(
        store,
        interval=1000.0,
        clock=clock,
        random=lambda: next(draws),
        on_sweep=lambda _: swept.append(clock.now()),
        memory=resilience.janitor.MemoryWatch(interval=1e9),
    )
    started = clock.now()
    async with janitor:
        for seconds in (250.0, 1000.0):
            await clock.wait_for_sleepers_async(1)
            clock.advance(seconds - 1.0)
            await clock.wait_for_sleepers_async(1)
            count = len(swept)
            clock.advance(1.0)
            await wait_until_async(lambda: len(swept) == count + 1)  # noqa: B023 - called at once

    assert [at - started for at in swept] == [290.0, 1330.0]


def test_memory_is_read_in_between(clock):
    readings = []
    watch = resilience.janitor.MemoryWatch(
        interval=60.0, reader=lambda: readings.append(clock.now()) or resilience.janitor.usage.Usage(1, 2)
    )
    with SessionJanitor(Store(), interval=1000.0, memory=watch, clock=clock, random=lambda: 0.99):
        wait_until(lambda: len(readings) == 1)
        for count in (2, 3):
            clock.wait_for_sleepers(1)
            clock.advance(60.0)
            wait_until(lambda: len(readings) == count)  # noqa: B023 - called at once


async def test_memory_is_read_in_between_in_a_task():
    clock, readings = FakeClock(), []
    watch = resilience.janitor.MemoryWatch(
        interval=60.0, reader=lambda: readings.append(clock.now()) or resilience.janitor.usage.Usage(1, 2)
    )
    janitor = AsyncSessionJanitor(
        AsyncStore(),
        interval=1000.0,
        memory=watch,
        clock=clock,
        random=lambda: 0.5,
        on_sweep=lambda _: janitor._run.stopping.set(),
    )
    await janitor.start()
    await wait_until_async(lambda: not janitor.is_running)

    assert readings == [1000.0 + 60.0 * n for n in range(9)]


def test_one_failing_sweep_is_logged_and_the_next_one_comes(clock, caplog):
    def fail_first(number):
        if not failed:
            failed.append(number)
            raise OSError("database is locked")

    failed, store, swept = [], Store(expired=3), []
    store.before_batch = fail_first
    janitor = SessionJanitor(store, clock=clock, random=lambda: 0.5, name="web", on_sweep=swept.append)
    with janitor:
        clock.wait_for_sleepers(1)
        clock.advance(900.0)
        wait_until(lambda: janitor.stats().failed_sweeps == 1)
        clock.wait_for_sleepers(1)
        assert janitor.is_running
        clock.advance(1800.0)
        wait_until(lambda: swept)

    assert store.sessions == {}
    assert "the janitor web failed to sweep; it goes on" in caplog.text
    assert "database is locked" in caplog.text


async def test_one_failing_sweep_in_a_task_is_logged_and_the_next_one_comes(clock, caplog):
    def fail_first(number):
        if not failed:
            failed.append(number)
            raise OSError("database is locked")

    failed, store, swept = [], AsyncStore(expired=3), []
    store.store.before_batch = fail_first
    janitor = AsyncSessionJanitor(store, clock=clock, random=lambda: 0.5, name="web", on_sweep=swept.append)
    async with janitor:
        await clock.wait_for_sleepers_async(1)
        clock.advance(900.0)
        await wait_until_async(lambda: janitor.stats().failed_sweeps == 1)
        await clock.wait_for_sleepers_async(1)
        clock.advance(1800.0)
        await wait_until_async(lambda: swept)

    assert store.sessions == {}
    assert "the janitor web failed to sweep; it goes on" in caplog.text


async def test_what_a_store_has_cancelled_itself_fails_the_sweep_and_ends_nothing(clock, caplog):
    class Closing(AsyncStore):
        async def delete_expired(self, limit):
            waited_for = asyncio.get_running_loop().create_future()
            waited_for.cancel()
            await waited_for

    told = []
    janitor = AsyncSessionJanitor(Closing(), clock=clock, random=lambda: 0.5, on_sweep_failed=told.append)
    async with janitor:
        await clock.wait_for_sleepers_async(1)
        clock.advance(900.0)
        await wait_until_async(lambda: told)
        await clock.wait_for_sleepers_async(1)
        assert janitor.is_running

    assert "failed to sweep; it goes on" in caplog.text
    assert janitor.stats().failed_sweeps == 1


# --- starting and stopping -------------------------------------------------------------------------


def test_starting_twice_is_starting_once(clock):
    janitor = SessionJanitor(Store(), clock=clock, name="twice")
    assert not janitor.is_running
    janitor.start()
    janitor.start()

    assert janitor.stats().is_running
    assert sum(thread.name == "resilience janitor twice" for thread in threading.enumerate()) == 1
    assert janitor.stop() is True
    assert not janitor.is_running
    assert not any(thread.name == "resilience janitor twice" for thread in threading.enumerate())


async def test_starting_twice_in_a_loop_is_starting_once(clock):
    janitor = AsyncSessionJanitor(AsyncStore(), clock=clock, name="twice")
    await janitor.start()
    await janitor.start()

    assert janitor.stats().is_running
    assert sum(task.get_name() == "resilience janitor twice" for task in asyncio.all_tasks()) == 1
    assert await janitor.stop() is True
    assert not janitor.is_running


def test_an_interval_that_is_meant_to_be_never_ends_nothing():
    read = threading.Event()
    watch = resilience.janitor.MemoryWatch(
        interval=1e300, reader=lambda: read.set() or resilience.janitor.usage.Usage(1, 2)
    )
    with SessionJanitor(Store(), interval=1e300, memory=watch) as janitor:
        assert read.wait(5)
        assert (
            janitor.stop() is True
        )  # a thread that had ended by an error would be a warning, and so a failure


def test_it_can_be_started_again_after_a_stop(clock):
    janitor = SessionJanitor(Store(), clock=clock)
    assert janitor.stop() is True  # it was not running
    for _ in range(3):
        janitor.start()
        assert janitor.is_running
        assert janitor.stop() is True
        assert janitor.stop() is True
        assert not janitor.is_running


def test_it_can_be_started_on_one_loop_after_another():
    janitor = AsyncSessionJanitor(AsyncStore(expired=3))

    async def live(*, stop):
        assert await janitor.stop() is True
        await janitor.start()
        assert janitor.is_running
        await asyncio.sleep(0)
        if stop:
            assert await janitor.stop() is True

    asyncio.run(live(stop=True))
    asyncio.run(live(stop=False))  # the loop ends, and the task with it
    assert not janitor.is_running
    asyncio.run(live(stop=True))


def test_a_sweep_in_progress_ends_after_its_batch(clock):
    store, reports = StuckStore(expired=10), []
    janitor = SessionJanitor(store, batch=4, clock=clock, random=lambda: 0.0, on_sweep=reports.append)
    janitor.start()
    clock.advance(0.0)
    assert store.inside.wait(5)
    threading.Timer(0.02, store.release.set).start()

    assert janitor.stop() is True
    assert store.batches == [4]
    assert [(report.sessions_cleaned, report.complete) for report in reports] == [(4, False)]


async def test_a_sweep_in_progress_in_a_task_ends_after_its_batch(clock):
    store, reports, registry, socket = AsyncStuckStore(expired=10), [], SocketRegistry(), Socket()
    registry.register(socket, "old0")
    janitor = AsyncSessionJanitor(
        store, batch=4, clock=clock, random=lambda: 0.0, on_sweep=reports.append, sockets=registry
    )
    await janitor.start()
    await store.inside.wait()  # it sweeps, which is also a check, before it checks
    stopping = asyncio.ensure_future(janitor.stop())
    await asyncio.sleep(0)
    store.release.set()

    assert await stopping is True
    assert store.batches == [4]
    assert [(report.sessions_cleaned, report.complete) for report in reports] == [(4, False)]
    assert socket.code is None  # the shutdown closes them, with 1012


def test_a_stop_returns_when_its_time_is_up_and_says_so(caplog):
    store = StuckStore(expired=10)
    janitor = SessionJanitor(store, random=lambda: 0.0, name="web")
    janitor.start()
    assert store.inside.wait(5)

    assert janitor.stop(timeout=0.01) is False
    assert janitor.is_running
    assert "the janitor web is still in the middle of a batch after 0.01 s" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    janitor.start()  # another thread; the old one ends after its batch
    store.release.set()
    assert janitor.stop() is True


async def test_a_stop_in_a_loop_cancels_the_batch_when_its_time_is_up(caplog):
    store = AsyncStuckStore(expired=10)
    janitor = AsyncSessionJanitor(store, random=lambda: 0.0, name="web", clock=FakeClock())
    await janitor.start()
    await store.inside.wait()

    assert await janitor.stop(timeout=0.01) is False
    assert "the janitor web is still in the middle of a batch after 0.01 s" in caplog.text
    await wait_until_async(lambda: not janitor.is_running)
    assert store.batches == []


def test_a_hook_may_stop_its_own_janitor(clock):
    stopped = []
    janitor = SessionJanitor(
        Store(), clock=clock, random=lambda: 0.0, on_sweep=lambda _: stopped.append(janitor.stop())
    )
    janitor.start()
    wait_until(lambda: not janitor.is_running)

    assert stopped == [False]


def test_a_store_that_stops_it_before_the_start_has_returned_stops_it(clock, monkeypatch):
    """The thread of a run may be quicker than the `start` that has made it."""
    answers, answered = [], threading.Event()

    class Slow(ThreadRun):
        def __init__(self, work, name):
            super().__init__(work, name)
            answered.wait(0.05)  # it is not answered before the `start` has returned

    def stop(_):
        answers.append(janitor.stop())
        answered.set()

    monkeypatch.setattr(resilience.janitor.janitor, "ThreadRun", Slow)
    store = Store()
    store.before_batch = stop
    janitor = SessionJanitor(store, clock=clock, random=lambda: 0.0)
    janitor.start()
    wait_until(lambda: not janitor.is_running)

    assert answers == [False]


async def test_a_hook_may_stop_its_own_janitor_in_a_loop(clock):
    stopped, janitor = [], None

    class Stopping(AsyncStore):
        async def delete_expired(self, limit):
            stopped.append(await janitor.stop())
            return 0

    janitor = AsyncSessionJanitor(Stopping(), clock=clock, random=lambda: 0.0)
    await janitor.start()
    await wait_until_async(lambda: not janitor.is_running)

    assert stopped == [False]


async def test_it_is_stopped_on_its_own_loop_only():
    janitor = AsyncSessionJanitor(AsyncStore(), name="web")
    async with janitor:
        with pytest.raises(RuntimeError, match="the janitor web runs on another event loop"):
            await asyncio.to_thread(asyncio.run, janitor.stop())
        assert janitor.is_running
