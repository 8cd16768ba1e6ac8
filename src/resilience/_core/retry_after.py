"""The Retry-After field of HTTP (RFC 9110, section 10.2.3): seconds, or a date in any of the three formats.

Rules:
    - A date is GMT, whatever the time zone or the locale of the process: the calendar is counted by hand.
    - What is neither is ignored (`None`): a header from outside must not break a call, nor stop it for ever.
    - A date that has passed is 0; anything longer than `LONGEST` is cut down to it.

Seconds are read a little more generously than the standard writes them: some servers send `1.5` or `1e3`,
and to wait is kinder than to try again at once.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

LONGEST: Final = 21_600.0
"""The longest wait that is believed: six hours, as in urllib3 (`Retry.DEFAULT_RETRY_AFTER_MAX`)."""

_LONGEST_TEXT: Final = 64
"""The longest date has 33 characters; what is longer than this is no Retry-After."""

_DAY: Final = 86_400
_FIFTY_YEARS: Final = 50 * 365.2425 * _DAY

# At most 19 digits, as many as 64 bits hold: what is longer is no number of seconds but an accident.
_SECONDS: Final = re.compile(r"[0-9]{1,19}(\.[0-9]{1,19})?(e\+?[0-9]{1,3})?", re.ASCII | re.IGNORECASE)

_TIME: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH: Final = rf"(?P<month>{'|'.join(_MONTHS)})"
_DAY_NAME: Final = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY_NAME: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"

_DATES: Final = (
    # IMF-fixdate:   Sun, 06 Nov 1994 08:49:37 GMT
    rf"{_DAY_NAME}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
    # RFC 850:       Sunday, 06-Nov-94 08:49:37 GMT
    rf"{_LONG_DAY_NAME}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
    # asctime:       Sun Nov  6 08:49:37 1994
    rf"{_DAY_NAME} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})",
)


def parse_retry_after(value: str, wall_now: float) -> float | None:
    """Return the seconds that a Retry-After value asks to wait, counted from `wall_now`.

    Args:
        value: The field's value, as received.
        wall_now: Unix seconds; what a date is counted from.

    Returns:
        Seconds, from 0 to `LONGEST`; None for a value that is neither seconds nor a date.

    Example:
        >>> parse_retry_after("120", wall_now=0.0)
        120.0
        >>> parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", wall_now=784111767.0)
        10.0
        >>> parse_retry_after("-5", wall_now=0.0) is None
        True
    """
    text = value.strip(" \t") if len(value) <= _LONGEST_TEXT else ""
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST)
    instant = parse_http_date(text, wall_now)
    return None if instant is None else min(max(instant - wall_now, 0.0), LONGEST)


def parse_http_date(text: str, wall_now: float) -> float | None:
    """Return the Unix seconds of an HTTP date (RFC 9110, section 5.6.7), or None if it is none.

    Args:
        text: The date, without spaces around it.
        wall_now: Unix seconds; tells which century a year of two digits is in.

    Example:
        >>> parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT", wall_now=0.0)
        784111777.0
        >>> parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT", wall_now=784111777.0)
        784111777.0
        >>> parse_http_date("Sun Nov  6 08:49:37 1994", wall_now=0.0)
        784111777.0
    """
    for pattern in _date_patterns():
        match = pattern.fullmatch(text)
        if match:
            break
    else:
        return None
    month = _MONTHS.index(match["month"].lower()) + 1
    day, hour, minute, second = (int(match[part]) for part in ("day", "hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 60:  # noqa: PLR2004 - a clock's face; 60 is a leap second
        return None
    time_of_day = hour * 3600 + minute * 60 + second
    if len(match["year"]) == 4:  # noqa: PLR2004 - digits
        return _instant(int(match["year"]), month, day, time_of_day)
    return _within_fifty_years(int(match["year"]), month, day, time_of_day, wall_now)


@cache
def _date_patterns() -> tuple[re.Pattern[str], ...]:
    """Compile the three when a date is first seen: that takes as long as the rest of this module's import."""
    return tuple(re.compile(pattern, re.ASCII | re.IGNORECASE) for pattern in _DATES)


def _within_fifty_years(year: int, month: int, day: int, time_of_day: int, wall_now: float) -> float | None:
    """Read a year of two digits: no more than 50 years ahead, else the latest such year in the past."""
    century = int(1970 + wall_now // (365.2425 * _DAY)) // 100 * 100
    for candidate in (century + 100 + year, century + year, century - 100 + year):
        instant = _instant(candidate, month, day, time_of_day)
        if instant is not None and instant - wall_now <= _FIFTY_YEARS:
            return instant
    return None


def _instant(year: int, month: int, day: int, time_of_day: int) -> float | None:
    """Return the Unix seconds of a moment in the proleptic Gregorian calendar; None if there is none."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    days_in_month = 29 if month == 2 and leap else (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]  # noqa: PLR2004 - February
    if not 1 <= day <= days_in_month:
        return None
    return float(_days_since_1970(year, month, day) * _DAY + time_of_day)


def _days_since_1970(year: int, month: int, day: int) -> int:
    """Count the days (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil).

    The year is taken to begin in March, so that the leap day comes last.
    """
    year -= month <= 2  # noqa: PLR2004 - January and February
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * 146_097 + day_of_era - 719_468
