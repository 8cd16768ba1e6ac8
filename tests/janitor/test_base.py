"""What both janitors have in common; each test runs with both."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle

import pytest

from resilience.events import MemoryAlert, SweepFailed
from resilience.janitor import AsyncSessionJanitor, MemoryWatch, SessionJanitor, SocketRegistry
from resilience.janitor.base import JanitorStats
from resilience.janitor.usage import Usage
from resilience.testing import FakeClock, wait_until_async
from tests.janitor.doubles import AsyncStore, Socket, Store

MB = 1_000_000


@pytest.fixture(params=[(SessionJanitor, Store), (AsyncSessionJanitor, AsyncStore)], ids=["sync", "async"])
def make(request):
    janitor, store = request.param

    def make(*args, **options):
        return janitor(store(), *args, **options)

    return make


def reading(resident, limit=100 * MB):
    return MemoryWatch(reader=lambda: Usage(resident, limit))


# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("interval", 0, ValueError),
        ("interval", float("nan"), ValueError),
        ("interval", "1800", TypeError),
        ("batch", 0, ValueError),
        ("batch", 2.5, TypeError),
        ("max_rows", 0, ValueError),
        ("max_seconds", 0, ValueError),
        ("pause", -0.1, ValueError),
        ("jitter", 1.1, ValueError),
        ("sockets_interval", 0, ValueError),
        ("sockets_interval", "60", TypeError),
        ("on_sweep", "print", TypeError),
    ],
)
def test_what_makes_no_sense_is_refused(make, option, value, error):
    with pytest.raises(error):
        make(**{option: value})


@pytest.mark.parametrize(
    ("janitor", "store", "twin"),
    [(SessionJanitor, AsyncStore, "AsyncSessionJanitor"), (AsyncSessionJanitor, Store, "SessionJanitor")],
)
def test_a_store_of_the_other_kind_is_refused_with_advice(janitor, store, twin):
    with pytest.raises(TypeError, match=f"give it to {twin}"):
        janitor(store())


@pytest.mark.parametrize("janitor", [SessionJanitor, AsyncSessionJanitor])
def test_what_is_no_store_is_refused(janitor):
    with pytest.raises(TypeError, match=r"has no delete_expired\(limit\)"):
        janitor(object())


def test_an_asynchronous_hook_is_refused(make):
    async def tell(event): ...

    with pytest.raises(TypeError, match="called, not awaited"):
        make(on_sweep=tell)


# --- statistics ------------------------------------------------------------------------------------


def test_a_new_janitor_has_done_nothing(make):
    assert make(memory=reading(125 * MB)).stats() == JanitorStats(
        is_running=False,
        sessions_cleaned=0,
        connections_closed=0,
        memory_alerts=0,
        last_sweep_at=None,
        memory="125MB",
        sweeps=0,
        failed_sweeps=0,
        last_sweep_elapsed=None,
        memory_high=False,
    )


def test_statistics_fit_into_json(make):
    shown = json.loads(json.dumps(make(memory=reading(125 * MB)).stats().as_dict()))

    assert shown["is_running"] is False
    assert shown["memory"] == "125MB"
    assert list(shown) == list(JanitorStats._fields)


def test_memory_is_that_of_the_process_where_no_watch_is_given(make):
    memory = make().stats().memory

    assert memory.endswith("MB")
    assert int(memory.removesuffix("MB")) > 5


def test_closed_sockets_are_counted(make):
    assert make(sockets=SocketRegistry()).stats().connections_closed == 0


# --- what a sweep leaves in the statistics -----------------------------------------------------------


async def finish(outcome):
    """Wait for what either of the two returns."""
    return await outcome if asyncio.iscoroutine(outcome) else outcome


async def test_a_sweep_is_counted(make):
    clock = FakeClock()
    janitor = make(batch=1, pause=0.25, clock=clock)
    janitor._store.sessions["old"] = ("ada", True)
    await finish(janitor.sweep())
    stats = janitor.stats()

    assert (stats.sessions_cleaned, stats.sweeps) == (1, 1)
    assert (stats.last_sweep_at, stats.last_sweep_elapsed) == (clock.wall(), 0.25)


async def test_a_failing_sweep_is_counted_and_told(make):
    told = []
    janitor = make(on_sweep_failed=told.append)
    janitor._store = None
    with pytest.raises(AttributeError) as raised:
        await finish(janitor.sweep())

    assert told == [SweepFailed("sessions", raised.value)]
    assert janitor.stats().failed_sweeps == 1


async def test_a_started_janitor_comes_again_by_its_schedule(make):
    clock, swept = FakeClock(auto=False), []
    janitor = make(clock=clock, random=lambda: 0.5, on_sweep=swept.append)
    await finish(janitor.start())
    for seconds in (900.0, 1800.0):
        await clock.wait_for_sleepers_async(1)
        clock.advance(seconds)
        await wait_until_async(lambda: janitor.stats().last_sweep_at == clock.wall())

    assert await finish(janitor.stop())
    assert len(swept) == 2


async def test_sockets_are_checked_by_a_schedule_of_their_own(make):
    clock, registry, socket = FakeClock(auto=False), SocketRegistry(), Socket()
    registry.register(socket, "gone")
    janitor = make(sockets=registry, sockets_interval=10.0, clock=clock, random=lambda: 0.5)
    janitor._store.sessions["alive"] = ("ada", False)
    await finish(janitor.start())
    await clock.wait_for_sleepers_async(1)
    clock.advance(5.0)
    await wait_until_async(lambda: socket.code == 1008)
    await clock.wait_for_sleepers_async(1)

    assert await finish(janitor.stop())
    assert janitor.stats().sweeps == 0


def test_a_failed_check_is_logged_with_its_reason(make, caplog):
    make(name="web")._log_failed_check(OSError("no route to host"))

    assert "the janitor web failed to check the open sockets; it goes on" in caplog.text
    assert "no route to host" in caplog.text


def test_a_failed_sweep_is_logged_with_its_reason(make, caplog):
    make(name="web")._log_failed_sweep(OSError("disk full"))

    assert "the janitor web failed to sweep; it goes on" in caplog.text
    assert "disk full" in caplog.text


async def test_a_batch_that_outlasts_the_stop_is_warned_about(make, caplog):
    janitor = make(name="web")
    janitor._warn_still_busy(5.0)

    assert "the janitor web is still in the middle of a batch after 5 s" in caplog.text


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_janitor_is_not_copied(make, duplicate):
    with pytest.raises(TypeError, match="make a new one"):
        duplicate(make())


# --- memory ----------------------------------------------------------------------------------------


def test_an_alert_is_told_and_counted(make):
    alerts = []
    janitor = make(memory=reading(85 * MB), name="web", on_memory_alert=alerts.append)
    janitor._read_memory(janitor._first_schedule())
    janitor._read_memory(janitor._first_schedule())

    assert alerts == [MemoryAlert("web", 85 * MB, 100 * MB, 0.0)]
    assert janitor.stats().memory_alerts == 1


def test_the_statistics_tell_whether_memory_is_high_now(make):
    sizes = iter([85 * MB] * 2 + [70 * MB] * 3)
    janitor = make(memory=MemoryWatch(reader=lambda: Usage(next(sizes), 100 * MB)))
    janitor._read_memory(janitor._first_schedule())
    assert janitor.stats().memory_high is True
    janitor._read_memory(janitor._first_schedule())

    assert janitor.stats().memory_high is False
    assert janitor.stats().memory_alerts == 1


def test_where_all_is_well_nothing_is_told(make):
    alerts = []
    janitor = make(memory=reading(10 * MB), on_memory_alert=alerts.append)
    janitor._read_memory(janitor._first_schedule())

    assert alerts == []


def test_the_next_reading_comes_an_interval_after_the_last(make):
    clock = FakeClock()
    janitor = make(memory=MemoryWatch(interval=30.0, reader=lambda: Usage(1, 2)), clock=clock)
    schedule = janitor._first_schedule()
    assert schedule.read_at == clock.now()

    assert janitor._read_memory(schedule) == schedule._replace(read_at=clock.now() + 30.0)


def test_a_failing_reader_is_logged_and_ends_nothing(make, caplog):
    def reader():
        raise OSError(24, "Too many open files")

    clock = FakeClock()
    janitor = make(memory=MemoryWatch(reader=reader, interval=30.0), clock=clock, name="web")
    schedule = janitor._read_memory(janitor._first_schedule())

    assert schedule.read_at == clock.now() + 30.0
    assert "the janitor web could not read the memory in use" in caplog.text
    assert "Too many open files" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR
