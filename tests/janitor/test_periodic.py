from __future__ import annotations

import asyncio
import copy
import threading

import pytest

from resilience.janitor.periodic import AsyncPeriodic, Periodic
from resilience.testing import FakeClock, wait_until, wait_until_async
from tests.children import forking, in_child


@pytest.fixture
def clock():
    return FakeClock(auto=False)


class Job:
    """Notes when it is called, since the start of the clock; the first calls fail."""

    def __init__(self, clock, failing=0):
        self.clock = clock
        self.start = clock.now()
        self.failing = failing
        self.times = []

    def __call__(self):
        self.times.append(self.clock.now() - self.start)
        if len(self.times) <= self.failing:
            raise ConnectionError("not now")

    async def awaited(self):
        self()


def draws(*numbers):
    """Return a source of these random numbers, and then of one in the middle."""
    left = iter(numbers)
    return lambda: next(left, 0.5)


DAY = 86_400.0

TIMES = [15.0, 75.0, 141.0]
"""When calls come with an interval of 60 s, the draws 0.25, 0.5, 1.0, and a jitter of a tenth."""


def test_it_calls_after_part_of_the_interval_and_then_again_and_again(clock):
    job = Job(clock)
    with Periodic(job, 60.0, clock=clock, random=draws(0.25, 0.5, 1.0)):
        for step in (14.5, 0.5, 59.5, 0.5, 65.5, 0.5):
            clock.wait_for_sleepers(1)
            clock.advance(step)
        wait_until(lambda: len(job.times) == 3)

    assert job.times == TIMES


async def test_it_awaits_after_part_of_the_interval_and_then_again_and_again(clock):
    job = Job(clock)
    async with AsyncPeriodic(job.awaited, 60.0, clock=clock, random=draws(0.25, 0.5, 1.0)):
        for step in (14.5, 0.5, 59.5, 0.5, 65.5, 0.5):
            await clock.wait_for_sleepers_async(1)
            clock.advance(step)
        await wait_until_async(lambda: len(job.times) == 3)

    assert job.times == TIMES


def test_an_interval_may_be_longer_than_a_thread_can_wait(clock):
    job = Job(clock)
    with Periodic(job, 2 * DAY, clock=clock, random=draws(1.0)):
        for _ in range(2):
            clock.wait_for_sleepers(1)
            clock.advance(DAY)
        wait_until(lambda: job.times)

    assert job.times == [2 * DAY]


async def test_an_interval_of_a_task_may_be_as_long():
    times, clock = [], FakeClock()

    async def job():
        times.append(clock.now())
        await periodic.stop()

    periodic = AsyncPeriodic(job, 2 * DAY, clock=clock, random=draws(1.0))
    began = clock.now()
    await periodic.start()
    await wait_until_async(lambda: not periodic.is_running)

    assert [time - began for time in times] == [2 * DAY]


def test_a_failure_is_logged_and_ends_nothing(clock, caplog):
    job = Job(clock, failing=1)
    with Periodic(job, 60.0, name="reaping", clock=clock, random=draws(0.0)):
        wait_until(lambda: job.times)
        clock.wait_for_sleepers(1)
        clock.advance(60.0)
        wait_until(lambda: len(job.times) == 2)

    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "reaping failed; it goes on")
    assert isinstance(record.exc_info[1], ConnectionError)


async def test_a_failure_of_a_task_is_logged_and_ends_nothing(clock, caplog):
    calls = []

    async def job():
        calls.append(clock.now())
        if len(calls) == 1:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled  # somebody else's cancellation is a failure too

    async with AsyncPeriodic(job, 60.0, name="reaping", clock=clock, random=draws(0.0)):
        await clock.wait_for_sleepers_async(1)
        clock.advance(60.0)
        await wait_until_async(lambda: len(calls) == 2)

    (record,) = caplog.records
    assert record.getMessage() == "reaping failed; it goes on"


def test_it_can_be_started_and_stopped_again_and_again(clock):
    periodic = Periodic(Job(clock), 60.0, clock=clock)
    assert periodic.stop()
    for _ in range(2):
        periodic.start()
        thread = periodic._run
        periodic.start()
        assert periodic._run is thread
        assert periodic.is_running
        assert periodic.stop()
        assert not periodic.is_running


async def test_a_task_can_be_started_and_stopped_again_and_again(clock):
    periodic = AsyncPeriodic(Job(clock).awaited, 60.0, clock=clock)
    assert await periodic.stop()
    for _ in range(2):
        await periodic.start()
        task = periodic._run
        await periodic.start()
        assert periodic._run is task
        assert periodic.is_running
        assert await periodic.stop()
        assert not periodic.is_running


def test_stopping_does_not_wait_for_ever(caplog):
    begun, release = threading.Event(), threading.Event()

    def job():
        begun.set()
        release.wait(5.0)

    periodic = Periodic(job, 60.0, name="reaping", random=draws(0.0))
    periodic.start()
    begun.wait(5.0)

    assert not periodic.stop(timeout=0.01)
    assert caplog.messages == ["reaping is still busy after 0.01 s"]
    release.set()
    assert periodic.stop()


async def test_stopping_cancels_a_task_that_takes_too_long(caplog):
    begun = asyncio.Event()

    async def job():
        begun.set()
        await asyncio.sleep(60)

    periodic = AsyncPeriodic(job, 60.0, name="reaping", random=draws(0.0), clock=FakeClock())
    await periodic.start()
    await begun.wait()

    assert not await periodic.stop(timeout=0.01)
    await wait_until_async(lambda: not periodic.is_running)
    assert caplog.messages == ["reaping is still busy after 0.01 s"]


def test_a_job_may_stop_itself():
    answers = []
    periodic = Periodic(lambda: answers.append(periodic.stop()), 60.0, random=draws(0.0))
    periodic.start()
    wait_until(lambda: not periodic.is_running)

    assert answers == [False]


async def test_a_job_in_a_task_may_stop_itself():
    answers = []

    async def job():
        answers.append(await periodic.stop())

    periodic = AsyncPeriodic(job, 60.0, random=draws(0.0))
    await periodic.start()
    await wait_until_async(lambda: not periodic.is_running)

    assert answers == [False]


async def test_a_task_is_stopped_where_it_runs(clock):
    periodic = AsyncPeriodic(Job(clock).awaited, 60.0, name="reaping", clock=clock)
    async with periodic:
        with pytest.raises(RuntimeError, match="reaping runs on another event loop: stop it there"):
            await asyncio.to_thread(asyncio.run, periodic.stop())


@forking
def test_a_forked_child_has_nothing_running(clock):
    with Periodic(Job(clock), 60.0, clock=clock) as periodic:

        def work():
            assert not periodic.is_running
            assert periodic.stop()

        assert in_child(work) == 0
        assert periodic.is_running


def test_what_makes_no_sense_is_refused(clock):
    job = Job(clock)
    with pytest.raises(TypeError, match="is a coroutine function: give it to AsyncPeriodic"):
        Periodic(job.awaited, 60.0)
    with pytest.raises(TypeError, match="is a function: give it to Periodic"):
        AsyncPeriodic(job, 60.0)
    with pytest.raises(ValueError, match="interval must be a finite number above 0"):
        Periodic(job, 0.0)
    with pytest.raises(ValueError, match="jitter must be a finite number of at least 0 and of at most 1"):
        Periodic(job, 60.0, jitter=2.0)
    with pytest.raises(TypeError, match="Periodic belongs to the process it runs in"):
        copy.copy(Periodic(job, 60.0))


def test_its_name_is_the_jobs_where_there_is_none(clock):
    with Periodic(Job(clock).__call__, 60.0, clock=clock):
        names = [thread.name for thread in threading.enumerate()]

    assert any(name.startswith("resilience ") and "Job" in name for name in names)
