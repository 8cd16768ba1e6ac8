from __future__ import annotations

import asyncio
import gc

import pytest

from resilience import DeadlineExceeded, LoadShedder, OverloadedError, criticality, deadline
from resilience.events import CallRefused
from resilience.shedding import LoadShedderStats
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.threads import together


@pytest.fixture
def clock():
    return FakeClock()


def seen(shedder, clock, seconds=1.0, kind="work", times=5):
    """Let the shedder see so many pieces of work."""
    for _ in range(times):
        with shedder.acquire(kind):
            clock.advance(seconds)
    return shedder


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"workers": 1.5}, TypeError),
        ({"max_wait": 0}, ValueError),
        ({"share": 0}, ValueError),
        ({"share": 1.1}, ValueError),
        ({"window": 0}, ValueError),
        ({"name": 7}, TypeError),
        ({"on_refused": 7}, TypeError),
    ],
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        LoadShedder(**arguments)


def test_work_that_would_not_be_done_in_time_is_refused(clock):
    told = []
    shedder = seen(LoadShedder(name="api", clock=clock, on_refused=told.append), clock)
    assert shedder.estimate("work") == 1.0
    assert shedder.estimate("other") is None
    reason = "0.900 s are left, and it takes 1.000 s"
    with deadline(0.9, clock=clock):
        with shedder.guard("other"):
            pass
        with pytest.raises(OverloadedError, match=reason):
            shedder.guard("work")
    assert told == [CallRefused("load shedder", "api", reason)]
    assert shedder.stats() == LoadShedderStats("api", 0, 0.0, 1)
    with deadline(1.1, clock=clock), shedder.guard("work"):
        assert repr(shedder) == "<LoadShedder 'api', 1 pending>"


def test_a_deadline_that_has_passed_is_said_as_such(clock):
    shedder = LoadShedder(name="api", clock=clock)
    with deadline(0, clock=clock), pytest.raises(DeadlineExceeded, match="work of 'api' was not begun"):
        shedder.acquire()
    assert shedder.stats().pending == 0


def test_each_function_is_a_kind_of_work(clock):
    shedder = LoadShedder(clock=clock)

    @shedder
    def slow():
        clock.advance(1.0)

    @shedder
    def quick():
        clock.advance(0.1)

    for _ in range(5):
        slow()
        quick()
    with deadline(0.5, clock=clock):
        quick()
        with pytest.raises(OverloadedError):
            slow()


def do(shedder, clock, *seconds, kind="work", error=None):
    """Do one piece of work: wait for the first seconds, if there are two, and work for the last."""
    with shedder.acquire(kind) as work:
        for wait in seconds[:-1]:
            clock.advance(wait)
            work.begin()
        clock.advance(seconds[-1])
        if error is not None:
            raise error


def test_a_failure_takes_its_time_and_a_cancellation_says_nothing(clock):
    shedder = LoadShedder(window=1000.0, clock=clock)
    for error, seconds in ((OSError, 1.0), (asyncio.CancelledError, 60.0)):
        for _ in range(5):
            with pytest.raises(error):
                do(shedder, clock, seconds, error=error())
    assert shedder.estimate("work") == 1.0
    assert shedder.stats().pending == 0


def test_what_matters_least_is_refused_first(clock):
    shedder = seen(LoadShedder(2, max_wait=1.0, clock=clock), clock, 0.6)
    held = [shedder.acquire("work", criticality="critical_plus") for _ in range(2)]
    assert shedder.stats().expected_wait == pytest.approx(0.3)
    with pytest.raises(OverloadedError, match="sheddable work waits no longer than 0") as refusal:
        shedder.acquire("work", criticality="sheddable")
    assert refusal.value.retry_after == pytest.approx(0.05)
    held.append(shedder.acquire("work", criticality="sheddable_plus"))
    with criticality("sheddable_plus"), pytest.raises(OverloadedError):
        shedder.acquire("work")
    held.append(shedder.acquire("work"))
    with pytest.raises(OverloadedError):
        shedder.acquire("work")
    for permit in held:
        permit.success()
    with pytest.raises(ValueError, match="urgent"):
        shedder.acquire(criticality="urgent")


def test_a_wait_in_line_is_no_time_of_work(clock):
    shedder = LoadShedder(window=1000.0, clock=clock)
    for _ in range(5):
        do(shedder, clock, 3.0, 1.0)
    assert shedder.estimate("work") == 1.0


def test_after_a_wait_it_looks_again(clock):
    shedder = seen(LoadShedder(max_wait=2.0, window=1000.0, clock=clock), clock)
    with deadline(2.0, clock=clock), pytest.raises(OverloadedError, match=r"0\.900 s are left"):
        do(shedder, clock, 1.1, 1.0)
    for _ in range(5):
        with deadline(3.0, clock=clock), pytest.raises(DeadlineExceeded):
            do(shedder, clock, 3.0, 1.0, kind="other")
    assert shedder.estimate("other") is None
    with pytest.raises(OverloadedError, match=r"the wait was 1\.600 s, and critical work waits no longer"):
        do(shedder, clock, 1.6, 1.0)
    assert shedder.stats()[1:] == (0, 0.0, 2)
    assert shedder.estimate("work") == 1.0  # what was not begun took no time


def test_a_clock_that_is_set_back_gives_no_negative_times(clock):
    shedder = LoadShedder(clock=clock)
    for _ in range(5):
        with shedder.acquire("work"):
            clock.step(-1.0)
    assert shedder.estimate("work") is None  # all that was before the last step is forgotten
    for _ in range(5):
        with shedder.acquire("work"):
            pass
    assert shedder.estimate("work") == 0.0


def test_work_that_is_dropped_is_not_pending(clock):
    shedder = LoadShedder(clock=clock)
    permit = shedder.acquire("work")
    assert permit.ticket.kind == "work"
    del permit
    gc.collect()
    assert shedder.stats().pending == 0


@forking
def test_a_forked_child_has_its_own_work(clock):
    shedder = seen(LoadShedder(clock=clock), clock)
    permit = shedder.acquire("work")

    def look():
        assert shedder.stats().pending == 0
        assert shedder.estimate("work") is None
        permit.success()
        assert shedder.stats().pending == 0

    with shedder._lock:
        assert in_child(look) == 0
    assert shedder.stats().pending == 1


def test_threads_count_right():
    shedder = LoadShedder(4, clock=FakeClock(yielding=True))
    together(8, lambda _: [shedder.execute(str) for _ in range(50)])
    assert shedder.stats()[1:] == (0, 0.0, 0)
