"""The fault catalogue's lines on errors."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest

from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    validation_error,
)


def refused(retry_after: float | None) -> Decision:
    return Decision.of(False, Quota(6, per=900.0), "login", remaining=0, retry_after=retry_after)


class PickyError(ServiceError):
    def __init__(self, *, only_by_keyword: str) -> None:
        super().__init__(only_by_keyword, ErrorCode.CONFLICT, status=423, retry_after=3.0)


ERRORS = [
    ServiceError("No", ErrorCode("OWN", 418, "Own"), details={"a": [1]}, request_id="r1"),
    validation_error("Email is invalid", {"email": "invalid format"}),
    CircuitOpenError("storage", 4.0),
    CircuitOpenError("storage", None),
    RateLimitedError(refused(12.5)),
    DeadlineExceeded("2.0 s were up"),
    PickyError(only_by_keyword="x"),
]


def through_pickle(error: ServiceError, protocol: int) -> ServiceError:
    return pickle.loads(pickle.dumps(error, protocol))


DUPLICATES = [copy.copy, copy.deepcopy] + [
    (lambda error, protocol=protocol: through_pickle(error, protocol))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
]


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_fault_31_errors_round_trip_with_their_notes(error, duplicate):
    error.__dict__.pop("__notes__", None)
    error.add_note("resilience: 3 attempts in 2.1 s; stopped: budget exhausted")
    other = duplicate(error)
    assert type(other) is type(error)
    assert other is not error
    assert other.args == error.args
    assert other.__dict__ == error.__dict__
    for name in ("message", "code", "status", "fields", "details", "retry_after", "request_id", "retryable"):
        assert getattr(other, name) == getattr(error, name)
    assert str(other) == str(error)


def refuse() -> None:
    raise CircuitOpenError("storage", 4.0)


def test_fault_31_an_error_crosses_from_a_spawned_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(CircuitOpenError) as caught:
        pool.apply(refuse)
    assert (caught.value.name, caught.value.retry_after) == ("storage", 4.0)
