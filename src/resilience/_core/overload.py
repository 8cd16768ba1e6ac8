"""Which signs mean that the other side has more to do than it can.

`resilience.transient.classify` says of any failure what told; here is which of those say "too much": the
other side says so itself, or it does not answer in time. What says that this side's own pool is used up
says nothing about the other.
"""

from __future__ import annotations

from typing import Final

STATUSES: Final = frozenset({429, 503, 504, 529})
"""HTTP: too many requests, service unavailable, gateway timeout; and "overloaded", which some send."""

SIGNS: Final = frozenset({
    *(f"HTTP {status}" for status in STATUSES),
    "gRPC DEADLINE_EXCEEDED",
    "gRPC RESOURCE_EXHAUSTED",
    "gRPC UNAVAILABLE",  # what 503 is there
    "AWS BandwidthLimitExceeded",
    "AWS EC2ThrottledException",
    "AWS LimitExceededException",
    "AWS PriorRequestNotComplete",
    "AWS ProvisionedThroughputExceededException",
    "AWS RequestLimitExceeded",
    "AWS RequestThrottled",
    "AWS RequestThrottledException",
    "AWS RequestTimeout",
    "AWS RequestTimeoutException",
    "AWS SlowDown",
    "AWS ThrottledException",
    "AWS Throttling",
    "AWS ThrottlingException",
    "AWS TooManyRequestsException",
    "SQLSTATE 53000",  # insufficient_resources
    "SQLSTATE 53200",  # out_of_memory
    "SQLSTATE 53300",  # too_many_connections
    "libpq: no more connections allowed",
    "libpq: query_wait_timeout",
    "libpq: remaining connection slots",
    "libpq: timeout expired",
    "libpq: too many clients",
    "libpq: too many connections",
    "MySQL error 1040",  # ER_CON_COUNT_ERROR
    "MySQL error 1203",  # ER_TOO_MANY_USER_CONNECTIONS
    "WebSocket close code 1013",  # try again later
    "errno ETIMEDOUT",
    "message 'timed out'",
    "message 'timeout'",
    "object store: timeout",
    "resilience.DeadlineExceeded",
    "resilience.DeadlinePassed",
    "resilience.TimeoutExceeded",
})  # fmt: skip
"""What `Failure.reason` says in such a case."""

TIMEOUTS: Final = ("Timeout", "TimeoutError", "TimeoutException", "TimeoutExpired", "TimedOut")
"""How the names of exceptions end that mean a timeout."""

OWN_POOL: Final = frozenset({
    "httpcore.PoolTimeout",
    "httpx.PoolTimeout",
    "psycopg.CancellationTimeout",
    "psycopg_pool.PoolTimeout",
    "sqlalchemy.TimeoutError",
})  # fmt: skip
"""Those of them that mean this side."""


def tells_overload(reason: str) -> bool:
    """Return whether what told about a failure says that the other side has too much to do.

    Example:
        >>> tells_overload("HTTP 503"), tells_overload("httpx.ReadTimeout"), tells_overload("HTTP 500")
        (True, True, False)
    """
    return reason in SIGNS or (reason.endswith(TIMEOUTS) and reason not in OWN_POOL)
