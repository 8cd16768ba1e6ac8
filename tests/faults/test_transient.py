"""The fault catalogue's lines on what failures say."""

from __future__ import annotations

import httpx
import pytest

from resilience import transient
from resilience._core.retry_after import LONGEST
from resilience.retry import RetryManager
from resilience.testing import FakeClock

REQUEST = httpx.Request("GET", "http://api.invalid")
WALL = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT

HONOURED = {
    "seconds": ("7", 7.0),
    "fixed date": ("Sun, 06 Nov 1994 08:49:47 GMT", 10.0),
    "RFC 850 date": ("Sunday, 06-Nov-94 08:49:47 GMT", 10.0),
    "asctime date": ("Sun Nov  6 08:49:47 1994", 10.0),
}
CLAMPED = {"1e9": "1e9", "a billion": "1000000000", "far date": "Fri, 31 Dec 9999 23:59:59 GMT"}
IGNORED = {
    "negative": "-5",
    "not a number": "NaN",
    "infinite": "inf",
    "garbage": "soon",
    "empty": "",
    "too long": "9" * 400,
    "no such day": "Sun, 31 Nov 1994 08:49:47 GMT",
}


def delay_after_429(retry_after, **limits):
    """Return the seconds that a call waited after one 429, and how many attempts it made."""
    clock = FakeClock(wall=WALL)
    answers = [httpx.Response(429, headers={"Retry-After": retry_after}, request=REQUEST)]
    attempts = 0

    def fetch():
        nonlocal attempts
        attempts += 1
        for answer in answers[attempts - 1 :]:
            answer.raise_for_status()

    retries = RetryManager(initial_delay=0.001, max_delay=0.001, budget=None, clock=clock, **limits)
    try:
        retries.execute(fetch)
    except httpx.HTTPStatusError:
        assert clock.sleeps == []
    return sum(clock.sleeps), attempts


@pytest.mark.parametrize(("value", "seconds"), HONOURED.values(), ids=HONOURED)
def test_fault_65_retry_after_is_honoured_and_jittered_upwards_only(value, seconds):
    delay, attempts = delay_after_429(value)

    assert seconds <= delay <= seconds * 1.5
    assert attempts == 2


@pytest.mark.parametrize("value", CLAMPED.values(), ids=CLAMPED)
def test_fault_65_an_absurd_retry_after_is_clamped(value):
    delay, attempts = delay_after_429(value, max_retry_after=LONGEST)
    assert LONGEST <= delay <= LONGEST * 1.5
    assert attempts == 2

    assert delay_after_429(value) == (0, 1)  # by default a minute is the longest wait: the call ends at once


@pytest.mark.parametrize("value", IGNORED.values(), ids=IGNORED)
def test_fault_65_a_retry_after_that_makes_no_sense_is_ignored(value):
    delay, attempts = delay_after_429(value)

    assert transient.retry_after_of(httpx.Response(429, headers={"Retry-After": value}), WALL) is None
    assert delay <= 0.001
    assert attempts == 2


def test_fault_59_disk_full_and_read_only_are_not_retried():
    psycopg = pytest.importorskip("psycopg")

    for error in (psycopg.errors.DiskFull("53100"), psycopg.errors.ReadOnlySqlTransaction("25006")):
        assert not transient.is_transient(error)
