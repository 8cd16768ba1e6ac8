from __future__ import annotations

import logging

import pytest

from resilience.stores import StoreUnavailable
from resilience.stores.outage_log import INTERVAL, OutageLog
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.threads import together

DOWN = StoreUnavailable("the limits on redis://cache:6379/0 are unavailable: no answer")
DENIED = StoreUnavailable("it may not run scripts: grant it EVAL")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def log(clock):
    return OutageLog("redis://cache:6379/0", clock)


def down(log):
    log.failed(DOWN, out_of_reach=True)


def test_the_first_failure_is_a_line(log, caplog):
    down(log)
    assert caplog.messages == [str(DOWN)]
    assert caplog.records[0].levelno == logging.WARNING
    assert log.is_told


def test_an_outage_is_a_line_a_minute_with_how_many_there_were(log, clock, caplog):
    for second in range(180):
        down(log)
        assert len(caplog.messages) == second // 60 + 1
        clock.advance(1)
    assert caplog.messages[1] == f"{DOWN} (59 more failures since the last line)"


def test_its_end_is_a_line(log, clock, caplog):
    for _ in range(5):
        down(log)
        clock.advance(1)
    log.answered()
    assert caplog.messages[1] == (
        "redis://cache:6379/0 answers again, 5.0 s after the first failure (4 more were not logged)"
    )
    log.answered()
    assert len(caplog.messages) == 2
    assert not log.is_told


def test_the_length_of_an_outage_is_that_of_all_of_it(log, clock, caplog):
    down(log)
    clock.advance(INTERVAL)
    down(log)
    clock.advance(INTERVAL)
    log.answered()
    assert "120.0 s after" in caplog.messages[-1]


def test_going_up_and_down_is_two_lines_a_minute_at_most(log, clock, caplog):
    for _ in range(60):
        down(log)
        log.answered()
        clock.advance(1)
    assert len(caplog.messages) == 2


def test_an_error_that_the_server_answers_is_a_line_too_and_has_no_end(log, clock, caplog):
    log.failed(DENIED, out_of_reach=False)
    log.failed(DENIED, out_of_reach=False)
    log.answered()
    assert caplog.messages == [str(DENIED)]
    clock.advance(INTERVAL)
    log.failed(DENIED, out_of_reach=False)
    assert caplog.messages[1].endswith(" (1 more failures since the last line)")


def test_of_many_threads_one_writes(log, caplog):
    together(8, lambda _: [down(log) for _ in range(50)])
    assert len(caplog.messages) == 1


@forking
def test_a_child_can_write_where_a_thread_of_its_parent_held_the_lock(log):
    import threading

    held, done = threading.Event(), threading.Event()

    def hold():
        with log._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    try:
        assert in_child(lambda: down(log)) == 0
    finally:
        done.set()
        holder.join()
