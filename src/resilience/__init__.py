"""Keeps a Python service useful while the things it depends on fail.

Retries:
    `with_retry`, `RetryManager` and `AsyncRetryManager` make another attempt where that helps;
    `RetryBudget` caps them, and `is_transient` and `classify` say which failures are worth one.

Circuit breakers:
    `CircuitBreaker` stops calling what is down; `BreakerRegistry` keeps one for each key.

Rate limits:
    `RateLimiter` and `AsyncRateLimiter` hold a `Quota` and answer with a `Decision`. Several limiters are
    asked together, all or none, by `acquire_all`, `require_all` and `reserve_all`; `acquire_all_async`,
    `require_all_async` and `reserve_all_async` are their twins. `fold` makes one key of a name's spellings.

Overload:
    `Bulkhead` and `AsyncBulkhead` let at most so many calls run at a time; `AdaptiveLimit` finds out how many
    that should be. `AdaptiveThrottle` holds part of the calls back while their dependency refuses them, as
    `is_overload` tells. `LoadShedder` is for servers: it refuses what would not be done in time.
    `criticality` says how much work matters, `Criticality` has the levels, `current_criticality` tells which
    one holds.

Composition:
    `Pipeline` and `AsyncPipeline` put policies around a call, in one object; `KeyedPipelines` keeps one for
    each key. `explain` says what a composition comes to at worst, and what in it contradicts.

Deadlines and timeouts:
    `deadline` sets the instant by which a whole call must end, and `remaining` says how far off it is.
    `Timeout` limits one step, and `StreamTimeout` the wait for each item of a stream.

Other ways out:
    `Fallback` answers with something else where a call fails. `Hedge` makes the same call once more where
    the first takes longer than usual.

Errors:
    `ServiceError` with its `ErrorCode`, and what the policies raise: `CircuitOpenError`, `RateLimitedError`,
    `BulkheadFullError`, `OverloadedError`, `StoreUnavailable`, `DeadlineExceeded` and `TimeoutExceeded`.
    Helpers make the usual ones: `validation_error`, `authentication_error`, `authorization_error`,
    `not_found_error`, `conflict_error`, `rate_limit_error`, `service_unavailable_error`; `throw_error` raises
    one.

Clean-up:
    `SessionJanitor` and `AsyncSessionJanitor` end what has expired.

Errors and deadlines are loaded at once. A policy is loaded when its name is first asked for: who uses
retries only does not wait for a janitor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from resilience.criticality import Criticality, criticality, current_criticality
from resilience.deadline import deadline, remaining
from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    OverloadedError,
    RateLimitedError,
    ServiceError,
    TimeoutExceeded,
    authentication_error,
    authorization_error,
    conflict_error,
    not_found_error,
    rate_limit_error,
    service_unavailable_error,
    throw_error,
    validation_error,
)

if TYPE_CHECKING:
    from resilience.adaptive import AdaptiveLimit
    from resilience.breaker import BreakerRegistry, CircuitBreaker
    from resilience.bulkhead import AsyncBulkhead, Bulkhead
    from resilience.fallback import Fallback
    from resilience.hedging import Hedge
    from resilience.janitor import AsyncSessionJanitor, SessionJanitor
    from resilience.limiter import (
        AsyncRateLimiter,
        Decision,
        Quota,
        RateLimiter,
        acquire_all,
        acquire_all_async,
        fold,
        require_all,
        require_all_async,
        reserve_all,
        reserve_all_async,
    )
    from resilience.overload import is_overload
    from resilience.pipeline import AsyncPipeline, KeyedPipelines, Pipeline, explain
    from resilience.retry import AsyncRetryManager, RetryBudget, RetryManager, with_retry
    from resilience.shedding import LoadShedder
    from resilience.stores import StoreUnavailable
    from resilience.streams import StreamTimeout
    from resilience.throttle import AdaptiveThrottle
    from resilience.timeout import Timeout
    from resilience.transient import classify, is_transient

__all__ = [
    "AdaptiveLimit",
    "AdaptiveThrottle",
    "AsyncBulkhead",
    "AsyncPipeline",
    "AsyncRateLimiter",
    "AsyncRetryManager",
    "AsyncSessionJanitor",
    "BreakerRegistry",
    "Bulkhead",
    "BulkheadFullError",
    "CircuitBreaker",
    "CircuitOpenError",
    "Criticality",
    "DeadlineExceeded",
    "Decision",
    "ErrorCode",
    "Fallback",
    "Hedge",
    "KeyedPipelines",
    "LoadShedder",
    "OverloadedError",
    "Pipeline",
    "Quota",
    "RateLimitedError",
    "RateLimiter",
    "RetryBudget",
    "RetryManager",
    "ServiceError",
    "SessionJanitor",
    "StoreUnavailable",
    "StreamTimeout",
    "Timeout",
    "TimeoutExceeded",
    "acquire_all",
    "acquire_all_async",
    "authentication_error",
    "authorization_error",
    "classify",
    "conflict_error",
    "criticality",
    "current_criticality",
    "deadline",
    "explain",
    "fold",
    "is_overload",
    "is_transient",
    "not_found_error",
    "rate_limit_error",
    "remaining",
    "require_all",
    "require_all_async",
    "reserve_all",
    "reserve_all_async",
    "service_unavailable_error",
    "throw_error",
    "validation_error",
    "with_retry",
]

_LOADED_WHEN_ASKED_FOR = {
    "AdaptiveLimit": "adaptive",
    "AdaptiveThrottle": "throttle",
    "AsyncBulkhead": "bulkhead",
    "AsyncPipeline": "pipeline",
    "AsyncRateLimiter": "limiter",
    "AsyncRetryManager": "retry",
    "AsyncSessionJanitor": "janitor",
    "BreakerRegistry": "breaker",
    "Bulkhead": "bulkhead",
    "CircuitBreaker": "breaker",
    "Decision": "limiter",
    "Fallback": "fallback",
    "Hedge": "hedging",
    "KeyedPipelines": "pipeline",
    "LoadShedder": "shedding",
    "Pipeline": "pipeline",
    "Quota": "limiter",
    "RateLimiter": "limiter",
    "RetryBudget": "retry",
    "RetryManager": "retry",
    "SessionJanitor": "janitor",
    "StoreUnavailable": "stores",
    "StreamTimeout": "streams",
    "Timeout": "timeout",
    "acquire_all": "limiter",
    "acquire_all_async": "limiter",
    "classify": "transient",
    "explain": "pipeline",
    "fold": "limiter",
    "is_overload": "overload",
    "is_transient": "transient",
    "require_all": "limiter",
    "require_all_async": "limiter",
    "reserve_all": "limiter",
    "reserve_all_async": "limiter",
    "with_retry": "retry",
}


def __getattr__(name: str) -> Any:
    """Load a policy, once: from then on its name stands here."""
    if name not in _LOADED_WHEN_ASKED_FOR:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"resilience.{_LOADED_WHEN_ASKED_FOR[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List what is loaded and what would be."""
    return sorted({*globals(), *__all__})
