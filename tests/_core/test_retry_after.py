from __future__ import annotations

import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.retry_after import LONGEST, parse_http_date, parse_retry_after

NOW = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(  # noqa: DTZ001 - made aware here
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)


def unix(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0, second: int = 0) -> float:
    return (datetime(year, month, day, hour, minute, second, tzinfo=UTC) - EPOCH).total_seconds()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" \t7 ", 7.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("1000000000", LONGEST),
        ("1e9", LONGEST),
        ("1e999", LONGEST),
        ("9" * 19, LONGEST),
    ],
)
def test_seconds(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "-0",
        "+5",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e-9",
        ".5",
        "5.",
        "1_000",
        "0x10",
        "5s",
        "5, 6",
        "５",  # noqa: RUF001 - a digit to str.isdigit and int, but not in HTTP
        "²",
        "9" * 20,
        "9" * 5000,
        "\n5",
        "5\n",
        "5\x00",
        "soon",
        "tomorrow, or the day after, or whenever it pleases the server to say so",
    ],
)
def test_what_is_neither_seconds_nor_a_date_is_ignored(value):
    assert parse_retry_after(value, NOW) is None


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "sun, 06 nov 1994 08:49:37 gmt",
    ],
)
def test_the_three_formats_of_a_date(date):
    assert parse_http_date(date, NOW) == NOW
    assert parse_retry_after(date, NOW - 10) == 10.0
    assert parse_retry_after(f" {date}\t", NOW - 10.25) == 10.25


def test_a_date_that_has_passed_is_zero():
    assert parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", NOW + 3600) == 0.0


def test_a_date_far_away_is_cut_down():
    assert parse_retry_after("Fri, 31 Dec 9999 23:59:59 GMT", NOW) == LONGEST


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 6 Nov 1994 08:49:37 GMT",  # a fixed date has two digits
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 06 Nov 1994 08:49:37 EST",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Son, 06 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 1994 08:49:37 GMT",
        "Thu, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun Nov 6 08:49:37 1994",  # asctime pads the day with a space
        "1994-11-06T08:49:37Z",
    ],
)
def test_what_only_resembles_a_date_is_none(date):
    assert parse_http_date(date, NOW) is None
    assert parse_retry_after(date, NOW) is None


def test_a_leap_second_is_a_moment():
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT", NOW) == unix(2017)


def test_leap_days():
    assert parse_http_date("Tue, 29 Feb 2000 00:00:00 GMT", NOW) == unix(2000, 2, 29)
    assert parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT", NOW) == unix(2024, 2, 29)


@pytest.mark.parametrize(
    ("now", "digits", "year"),
    [
        (unix(2026), "26", 2026),
        (unix(2026), "27", 2027),
        (unix(2026), "75", 2075),
        (unix(2026), "77", 1977),  # 2077 would be more than 50 years ahead
        (unix(2026), "99", 1999),
        (unix(1994), "43", 2043),
        (unix(1994), "45", 1945),
        (unix(2099, 12, 31), "00", 2100),
        (unix(2099, 12, 31), "49", 2149),
        (unix(2099, 12, 31), "51", 2051),
        (unix(2000), "99", 1999),
    ],
)
def test_a_year_of_two_digits_is_no_more_than_fifty_years_ahead(now, digits, year):
    assert parse_http_date(f"Monday, 02-Jan-{digits} 00:00:00 GMT", now) == unix(year, 1, 2)


def test_a_leap_day_of_two_digits_is_in_a_leap_year():
    assert parse_http_date("Monday, 29-Feb-00 00:00:00 GMT", unix(2099)) == unix(2000, 2, 29)
    assert parse_http_date("Monday, 29-Feb-01 00:00:00 GMT", unix(2026)) is None


@given(MOMENTS)
def test_every_moment_of_the_calendar_is_read_as_the_standard_library_writes_it(moment):
    expected = (moment - EPOCH).total_seconds()
    assert parse_http_date(format_datetime(moment, usegmt=True), NOW) == expected
    assert parse_http_date(
        moment.strftime("%a %b ") + f"{moment.day:2} {moment:%H:%M:%S} {moment.year:04}", 0
    ) == (expected)


@given(MOMENTS.filter(lambda moment: moment.year > 100), st.integers(-49 * 365, 49 * 365))
def test_a_year_of_two_digits_finds_the_nearest_moment(now, days):
    try:
        moment = now + timedelta(days=days)
    except OverflowError:
        return
    date = f"{moment:%A, %d-%b}-{moment.year % 100:02} {moment:%H:%M:%S} GMT"
    assert parse_http_date(date, (now - EPOCH).total_seconds()) == (moment - EPOCH).total_seconds()


@given(st.text() | st.from_regex(r"[A-Za-z]{3,9},? [0-9 A-Za-z:-]{8,30}"), st.floats(0, 1e11))
def test_whatever_a_server_sends_gives_a_bounded_wait_or_none(value, now):
    seconds = parse_retry_after(value, now)
    assert seconds is None or (math.isfinite(seconds) and 0.0 <= seconds <= LONGEST)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "EST5EDT"])
def test_dates_are_gmt_in_every_time_zone(zone):
    code = (
        "from resilience._core.retry_after import parse_http_date as p\n"
        "print(p('Sun, 06 Nov 1994 08:49:37 GMT', 0), p('Sun Nov  6 08:49:37 1994', 0))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.split() == [str(NOW), str(NOW)]
