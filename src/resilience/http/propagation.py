"""How long a caller will still wait, and how much the call matters: told to the server in two headers.

    X-Request-Timeout: 1.250            seconds that are left
    X-Criticality: sheddable_plus       left out where it is `critical`, the default

A server that knows them does no work that nobody waits for any more, and refuses first what matters least.

Rules:
    - What is sent is a duration, not an instant: clocks of two machines differ. The time on the way is not
      counted, so a server believes to have a little more time than its caller gives it.
    - It is rounded down, to whole milliseconds.
    - A server bounds what it is asked for: nobody gets more time than the server gives, or is more critical
      than the server admits. What it cannot read it ignores, as if it had not been sent.
    - Where no time is left, nothing is begun: neither the sending nor the serving.

There is no standard. Seconds in `X-Request-Timeout` are what services that do this over HTTP mostly read, and
seconds are what Retry-After and the timeouts of clients are in. `grpc-timeout` belongs to gRPC, whose proxies
act on it, and has a notation of its own; a deadline as a date would need one clock. The levels of criticality
are those of the SRE book, "Handling Overload", which has them travel with each request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.criticality import Criticality, criticality, current_criticality
from resilience.deadline import CURRENT, deadline
from resilience.errors import DeadlinePassed
from resilience.http.headers import header_values

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resilience.clock import Clock
    from resilience.http.headers import Headers

TIMEOUT_HEADER: Final = "X-Request-Timeout"
CRITICALITY_HEADER: Final = "X-Criticality"

_LONGEST: Final = 999_999_999
"""Seconds; the longest time that is sent, some 31 years."""

_SECONDS: Final = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


def headers() -> dict[str, str]:
    """Return the headers for a request that is sent from this context; none where nothing is to be told.

    Returns:
        `X-Request-Timeout` where there is a deadline; `X-Criticality` where it is not `critical`.

    Raises:
        DeadlinePassed: The deadline has passed, so the request should not be sent.

    Example:
        >>> from resilience.criticality import criticality
        >>> from resilience.testing import FakeClock
        >>> with deadline(1.25, clock=FakeClock()), criticality("sheddable"):
        ...     headers()
        {'X-Request-Timeout': '1.250', 'X-Criticality': 'sheddable'}
    """
    told: dict[str, str] = {}
    ends = CURRENT.get()
    if ends is not None:
        ends.require("the request")
        milliseconds = int(min(ends.left(), _LONGEST) * 1000)
        told[TIMEOUT_HEADER] = f"{milliseconds / 1000:.3f}"
    level = current_criticality()
    if level is not Criticality.CRITICAL:
        told[CRITICALITY_HEADER] = level.name.lower()
    return told


def deadline_from(headers: Headers, most: float, *, clock: Clock = SYSTEM_CLOCK) -> deadline:
    """Return a block with the deadline of a request: what its caller asks for, and at most `most` seconds.

    Where several lines say how long, the shortest time counts.

    Args:
        headers: Those of the request, a mapping or pairs; names in any case.
        most: Seconds that any request may take, above 0.
        clock: What the seconds are counted on, from the beginning of the block.

    Raises:
        DeadlinePassed: The caller has no time left, so the request should not be served.
        TypeError, ValueError: `most` is no number above 0.

    Example:
        >>> from resilience import remaining
        >>> from resilience.testing import FakeClock
        >>> for asked in ("1.250", "3600", "soon"):
        ...     with deadline_from({"X-Request-Timeout": asked}, most=30.0, clock=FakeClock()):
        ...         remaining()
        1.25
        30.0
        30.0
    """
    seconds = number("most", most, above=0)
    for value in header_values(headers, TIMEOUT_HEADER.lower()):
        if _SECONDS.fullmatch(value.strip()):
            seconds = min(seconds, float(value))
    if seconds <= 0:
        raise DeadlinePassed("the request was not begun: its caller has no time left")
    return deadline(seconds, clock=clock)


def criticality_from(
    headers: Headers, *, most: Criticality | str = Criticality.CRITICAL
) -> AbstractContextManager[None]:
    """Return a block with the criticality of a request: what its caller says, and at most `most`.

    Where several lines say how much, the least counts; where none does, it is `critical`, or `most`.

    Args:
        headers: Those of the request, a mapping or pairs; names in any case.
        most: The most that a caller may claim. Only between services that trust each other should it be
            `"critical_plus"`.

    Raises:
        TypeError, ValueError: `most` is no criticality.

    Example:
        >>> from resilience.criticality import current_criticality
        >>> with criticality_from({"X-Criticality": "sheddable"}):
        ...     current_criticality()
        <Criticality.SHEDDABLE: 0>
    """
    told = (value.strip().upper() for value in header_values(headers, CRITICALITY_HEADER.lower()))
    known = [Criticality[name] for name in told if name in Criticality.__members__]
    return criticality(min([*(known or [Criticality.CRITICAL]), Criticality.of(most)]))
