from __future__ import annotations

import pytest

from resilience.errors import (
    ErrorCode,
    ServiceError,
    authentication_error,
    authorization_error,
    conflict_error,
    not_found_error,
    rate_limit_error,
    service_unavailable_error,
    throw_error,
    validation_error,
)

LOCKED = ErrorCode("INVOICE_LOCKED", 409, "Invoice locked", retryable=True, public=False)


def test_throw_error_raises():
    with pytest.raises(ServiceError, match="No money") as caught:
        throw_error("No money", LOCKED, 402)
    assert (caught.value.code, caught.value.status) == (LOCKED, 402)
    with pytest.raises(ServiceError) as caught:
        throw_error("Oops")
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (validation_error("Email is invalid"), "VALIDATION_ERROR", "Email is invalid"),
        (validation_error(), "VALIDATION_ERROR", "The input is invalid"),
        (authentication_error("Please login first"), "UNAUTHORIZED", "Please login first"),
        (authentication_error(), "UNAUTHORIZED", "Please log in first"),
        (authorization_error("Admins only"), "FORBIDDEN", "Admins only"),
        (authorization_error(), "FORBIDDEN", "This is not allowed"),
        (not_found_error("User"), "RESOURCE_NOT_FOUND", "User not found"),
        (not_found_error(), "RESOURCE_NOT_FOUND", "Resource not found"),
        (conflict_error("Taken"), "CONFLICT", "Taken"),
        (conflict_error(), "CONFLICT", "This conflicts with the present state"),
        (rate_limit_error(60), "RATE_LIMIT_EXCEEDED", "Too many requests, please try again later"),
        (
            service_unavailable_error("Wasabi storage"),
            "SERVICE_UNAVAILABLE",
            "Wasabi storage is unavailable, please try again later",
        ),
        (
            service_unavailable_error(),
            "SERVICE_UNAVAILABLE",
            "The service is unavailable, please try again later",
        ),
    ],
)
def test_a_helper_returns_its_error(error, code, message):
    assert (error.code, error.message) == (code, message)
    assert error.status == error.code.status


def test_helpers_pass_on_what_they_are_given():
    assert validation_error("x", {"email": "invalid format"}).fields == {"email": "invalid format"}
    assert rate_limit_error(60).retry_after == 60
    assert rate_limit_error().retry_after is None
    assert service_unavailable_error("Storage", 5.0).retry_after == 5.0
