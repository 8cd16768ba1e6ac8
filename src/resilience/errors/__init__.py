"""The errors of a service, and what the policies raise.

One vocabulary on both ends of a call: the server raises these, `resilience.http` turns them into
responses, and `resilience.http.parse_error` turns such a response back into them.

    ServiceError (Exception)
    ├── CircuitOpenError      the breaker rejected the call              503
    ├── BulkheadFullError     the bulkhead had no place for the call     503
    ├── OverloadedError       the call would have added to an overload   503
    ├── RateLimitedError      the limiter refused the call               429
    └── DeadlineExceeded      the call's time was up (TimeoutError too)  504
        ├── DeadlinePassed    it was before the call was begun       504
        └── TimeoutExceeded   one step's was, by its own timeout         504

Only the deadline is a builtin error as well: whoever waits for a `TimeoutError` means just that. A
rejection that were a `ConnectionError` would be retried by everybody who retries those.

All of them can be copied and pickled; notes come along, causes and tracebacks do not, as with any
exception.
"""

from __future__ import annotations

from resilience.errors.codes import ErrorCode, is_error_code
from resilience.errors.helpers import (
    authentication_error,
    authorization_error,
    conflict_error,
    not_found_error,
    rate_limit_error,
    service_unavailable_error,
    throw_error,
    validation_error,
)
from resilience.errors.policies import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceeded,
    DeadlinePassed,
    OverloadedError,
    RateLimitedError,
    TimeoutExceeded,
)
from resilience.errors.service import ServiceError

__all__ = [
    "BulkheadFullError",
    "CircuitOpenError",
    "DeadlineExceeded",
    "DeadlinePassed",
    "ErrorCode",
    "OverloadedError",
    "RateLimitedError",
    "ServiceError",
    "TimeoutExceeded",
    "authentication_error",
    "authorization_error",
    "conflict_error",
    "is_error_code",
    "not_found_error",
    "rate_limit_error",
    "service_unavailable_error",
    "throw_error",
    "validation_error",
]
