from __future__ import annotations

import asyncio
import copy
import pickle
import sys
import threading
import tracemalloc

import pytest

from resilience.janitor.memory import MemoryWatch, for_people
from resilience.janitor.usage import Usage
from resilience.testing import FakeClock

MB = 1_000_000


class Reader:
    """Reads whatever it is told to."""

    def __init__(self, *sizes, limit=100 * MB):
        self.sizes = list(sizes)
        self.limit = limit

    def __call__(self):
        return Usage(self.sizes.pop(0), self.limit)


# --- alerts ----------------------------------------------------------------------------------------


def test_an_alert_is_raised_once_until_it_is_cleared():
    watch = MemoryWatch(reader=Reader(*[share * MB for share in (80, 81, 90, 76, 85, 74, 81, 82)]))
    told = [(watch.check().alert, watch.high) for _ in range(8)]
    alerts, high = zip(*told, strict=True)

    assert alerts == (False, True, False, False, False, False, True, False)
    assert high == (False, True, True, True, True, False, True, True)
    assert watch.alerts == 2


def test_the_thresholds_can_be_chosen():
    watch = MemoryWatch(
        reader=Reader(*[n * MB for n in (51, 49, 51, 30, 51)]), alert_above=0.5, clear_below=0.4
    )

    assert [watch.check().alert for _ in range(5)] == [True, False, False, False, True]


def test_an_alert_that_comes_sooner_is_over_sooner():
    watch = MemoryWatch(reader=Reader(*[n * MB for n in (41, 37, 41)]), alert_above=0.4)

    assert [watch.check().alert for _ in range(3)] == [True, False, True]


def test_a_child_begins_anew():
    clock = FakeClock()
    watch = MemoryWatch(reader=Reader(90 * MB, 96 * MB), clock=clock)
    watch.check()
    clock.advance(10.0)
    assert watch.high
    watch.after_fork()
    assert not watch.high
    reading = watch.check()

    assert (reading.alert, reading.slope) == (True, 0.0)


def test_a_limit_of_ones_own_counts_instead_of_the_containers():
    watch = MemoryWatch(reader=Reader(45 * MB), limit=50 * MB)
    reading = watch.check()

    assert reading.limit == 50 * MB
    assert reading.alert


@pytest.mark.parametrize(("resident", "limit"), [(None, 100), (90, None), (None, None)])
def test_where_the_system_does_not_say_there_is_no_alert(resident, limit):
    watch = MemoryWatch(reader=Reader(resident, limit=limit))
    reading = watch.check()

    assert (reading.resident, reading.limit, reading.alert) == (resident, limit, False)
    assert reading.slope == 0.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("interval", 0),
        ("alert_above", 0),
        ("alert_above", 1.1),
        ("clear_below", 0.81),
        ("readings", 1),
        ("limit", 0),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(option, value):
    with pytest.raises(ValueError, match=option):
        MemoryWatch(**{option: value})


# --- readings --------------------------------------------------------------------------------------


def test_the_slope_is_that_of_the_recent_readings():
    clock = FakeClock()
    watch = MemoryWatch(reader=Reader(90 * MB, 10 * MB, 11 * MB, 12 * MB), readings=3, clock=clock)
    slopes = []
    for _ in range(4):
        slopes.append(watch.check().slope)
        clock.advance(10.0)

    assert slopes[0] == 0.0
    assert slopes[1] < 0
    assert slopes[3] == pytest.approx(MB / 10)


def test_the_machine_itself_is_read_where_no_reader_is_given():
    watch = MemoryWatch()
    before = watch.check()
    ballast = bytearray(64 * MB)
    after = watch.check()
    size = len(ballast)

    assert after.resident - before.resident > size / 2
    assert watch.resident() > size / 2
    assert before.limit > before.resident
    assert before.open_files > 0
    assert len(before.gc_counts) == 3


def test_threads_are_counted():
    watch, leave = MemoryWatch(), threading.Event()
    before = watch.check().threads
    thread = threading.Thread(target=leave.wait)
    thread.start()
    during = watch.check().threads
    leave.set()
    thread.join()

    assert during == before + 1


def test_outside_an_event_loop_there_are_no_tasks():
    assert MemoryWatch().check().tasks is None


def test_where_nobody_uses_asyncio_it_is_not_asked(monkeypatch):
    monkeypatch.delitem(sys.modules, "asyncio")

    assert MemoryWatch().check().tasks is None


async def test_the_tasks_of_the_loop_are_counted():
    watch = MemoryWatch()
    before = watch.check().tasks
    sleeping = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(5)]
    during = watch.check().tasks
    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)

    assert during == before + 5


# --- traces ----------------------------------------------------------------------------------------


def test_a_trace_shows_who_keeps_memory():
    clock, kept = FakeClock(auto=False), []
    watch = MemoryWatch(clock=clock)
    found = []
    tracing = threading.Thread(target=lambda: found.extend(watch.trace(seconds=30.0, top=3)))
    tracing.start()
    clock.wait_for_sleepers(1)
    kept.append(bytearray(5 * MB))
    bytearray(9 * MB)  # released at once
    clock.advance(30.0)
    tracing.join(5)

    assert found[0].file == __file__
    assert 5 * MB <= found[0].size < 6 * MB
    assert found[0].blocks >= 1
    assert found[0].line > 0
    assert len(found) <= 3
    assert not tracemalloc.is_tracing()


def test_a_trace_does_not_end_anothers():
    tracemalloc.start()
    try:
        with pytest.raises(RuntimeError, match="running already"):
            MemoryWatch().trace(seconds=0.01)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("seconds", "top", "error"),
    [(0, 5, ValueError), (301, 5, ValueError), (1, 0, ValueError), ("1", 5, TypeError)],
)
def test_a_trace_without_a_box_is_refused(seconds, top, error):
    with pytest.raises(error):
        MemoryWatch().trace(seconds, top)
    assert not tracemalloc.is_tracing()


async def test_a_trace_in_a_loop_holds_nobody_up():
    clock, kept = FakeClock(auto=False), []
    tracing = asyncio.ensure_future(MemoryWatch(clock=clock).trace_async(seconds=30.0, top=1))
    await clock.wait_for_sleepers_async(1)
    kept.append(bytearray(5 * MB))
    clock.advance(30.0)
    (most,) = await tracing

    assert most.file == __file__
    assert not tracemalloc.is_tracing()


async def test_a_cancelled_trace_ends_at_once():
    clock = FakeClock(auto=False)
    tracing = asyncio.ensure_future(MemoryWatch(clock=clock).trace_async())
    await clock.wait_for_sleepers_async(1)
    tracing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tracing

    assert not tracemalloc.is_tracing()


# --- for people ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shown"),
    [(None, "unknown"), (0, "0MB"), (125_400_000, "125MB"), (1_999_600_000, "2000MB")],
)
def test_memory_is_shown_in_megabytes(size, shown):
    assert for_people(size) == shown


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(duplicate):
    with pytest.raises(TypeError, match="make a new one"):
        duplicate(MemoryWatch())
