"""Whether a failure says that the other side has more to do than it can.

Policies that react to overload must not react to what is merely broken: to hold calls back helps a server
that has too much to do, and nobody else.
"""

from __future__ import annotations

from resilience._core.overload import STATUSES, tells_overload
from resilience.conditions import says_nothing
from resilience.errors import DeadlineExceeded, ServiceError
from resilience.transient import classify

__all__ = ["is_overload"]


def is_overload(exc: BaseException) -> bool:
    """Return whether the call that raised `exc` met an overload: was refused as one too many, or timed out.

    That is HTTP 429, 503 and 504, gRPC's RESOURCE_EXHAUSTED, UNAVAILABLE and DEADLINE_EXCEEDED, the
    throttling codes of AWS, a database without a free connection, and any client's timeout; also where it is
    wrapped. A group is, if one of its leaves is. What was refused on this side, by a breaker, a limiter or a
    pool that is used up, says nothing about the other and is none.

    Any thread may call it. It raises nothing but what a function raises that was registered with
    `resilience.transient`.

    Example:
        >>> from resilience import CircuitOpenError, service_unavailable_error
        >>> is_overload(TimeoutError()), is_overload(service_unavailable_error("busy"))
        (True, True)
        >>> is_overload(ConnectionRefusedError()), is_overload(CircuitOpenError("storage", 1.0))
        (False, False)
    """
    if isinstance(exc, BaseExceptionGroup):
        return any(map(is_overload, exc.exceptions))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - of any exceptions
    if says_nothing(exc):
        return False
    if isinstance(exc, ServiceError):
        return isinstance(exc, DeadlineExceeded) or exc.status in STATUSES
    return tells_overload(classify(exc).reason)
