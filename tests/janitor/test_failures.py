from __future__ import annotations

import logging

import pytest

from resilience import service_unavailable_error
from resilience.janitor.failures import FailureLog
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def log(clock):
    return FailureLog("looking", clock)


def told(caplog):
    return [(record.levelname, record.getMessage(), record.exc_info is not None) for record in caplog.records]


def test_an_outage_costs_the_log_a_traceback_and_a_line_a_minute(log, clock, caplog):
    for _ in range(240):  # two minutes of failing twice a second
        log.failed(ConnectionError("not now"))
        clock.advance(0.5)
    log.succeeded()

    assert told(caplog) == [
        ("ERROR", "looking failed; it goes on", True),
        ("ERROR", "looking still fails (120 times since the last line): ConnectionError('not now')", False),
        ("WARNING", "looking works again, after 240 failures", False),
    ]


def test_an_outage_that_was_put_in_words_needs_no_traceback(log, caplog):
    outage = service_unavailable_error("The database")
    outage.__cause__ = ConnectionError("refused")
    log.failed(outage)
    assert told(caplog) == [("ERROR", "looking failed; it goes on: ConnectionError('refused')", False)]


def test_each_outage_is_told_anew(log, clock, caplog):
    for _ in range(2):
        log.failed(ConnectionError("not now"))
        log.succeeded()
        clock.advance(1.0)

    assert told(caplog) == [("ERROR", "looking failed; it goes on", True)] * 2


def test_what_goes_well_is_not_worth_a_word(log, caplog):
    caplog.set_level(logging.DEBUG)
    log.succeeded()
    assert not caplog.records
