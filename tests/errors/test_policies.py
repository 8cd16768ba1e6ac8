from __future__ import annotations

import pytest

from resilience._core.quota import Decision, Quota
from resilience.errors import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    OverloadedError,
    RateLimitedError,
)


def refused(retry_after: float | None) -> Decision:
    return Decision.of(False, Quota(6, per=900.0), "login", remaining=0, retry_after=retry_after)


def test_an_open_breaker():
    error = CircuitOpenError("storage", 4.25)
    assert (error.name, error.retry_after) == ("storage", 4.25)
    assert (error.code, error.status, error.retryable) == (ErrorCode.SERVICE_UNAVAILABLE, 503, True)
    assert str(error) == "circuit breaker 'storage' is open: try again in 4.2 s"
    assert str(CircuitOpenError("storage", None)).endswith("held open: try again once it has been released")


def test_a_full_bulkhead():
    error = BulkheadFullError("storage", "the queue is full", 0.2)
    assert (error.name, error.reason, error.retry_after) == ("storage", "the queue is full", 0.2)
    assert (error.code, error.status, error.retryable) == (ErrorCode.SERVICE_UNAVAILABLE, 503, True)
    assert str(error) == "bulkhead 'storage': the queue is full"


def test_an_overload():
    error = OverloadedError("search", "too little time is left", None)
    assert (error.name, error.reason, error.retry_after) == ("search", "too little time is left", None)
    assert (error.code, error.status, error.retryable) == (ErrorCode.SERVICE_UNAVAILABLE, 503, True)
    assert str(error) == "'search' is overloaded: too little time is left"


def test_a_limit():
    error = RateLimitedError(refused(12.34))
    assert error.decision.limiter == "login"
    assert (error.code, error.status, error.retry_after) == (ErrorCode.RATE_LIMIT_EXCEEDED, 429, 12.34)
    assert error.retryable
    assert str(error) == "rate limiter 'login': 6/15 minutes reached; try again in 12.3 s"


def test_a_cost_that_never_fits():
    error = RateLimitedError(refused(None))
    assert (error.retry_after, error.retryable) == (None, False)
    assert str(error) == "rate limiter 'login': the call costs more than 6/15 minutes ever allows"


def test_a_deadline_is_a_timeout():
    error = DeadlineExceeded("2.0 s were up")
    assert isinstance(error, TimeoutError)
    assert (error.code, error.status, error.retry_after) == (ErrorCode.TIMEOUT, 504, None)
    assert (str(error), error.errno) == ("2.0 s were up", None)


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpenError("storage-eu-7", 4.0),
        BulkheadFullError("storage-eu-7", "all places are taken", None),
        OverloadedError("storage-eu-7", "the queue is full", 1.0),
        RateLimitedError(refused(1.0)),
        DeadlineExceeded("in storage-eu-7"),
    ],
)
def test_names_of_policies_are_not_public(error):
    assert error.public_message == error.code.title
    assert (error.fields, error.details, error.request_id) == (None, None, None)


@pytest.mark.parametrize("cls", [BulkheadFullError, CircuitOpenError, OverloadedError, RateLimitedError])
def test_a_rejection_is_made_without_python_code(cls):
    assert not hasattr(cls.__init__, "__code__")
    assert not hasattr(cls.__new__, "__code__")
