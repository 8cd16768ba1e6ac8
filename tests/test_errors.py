"""The error codes, the errors and their helpers."""

from __future__ import annotations

import copy
import json
import math
import pickle
import re
from pathlib import Path

import pytest

from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    authentication_error,
    authorization_error,
    conflict_error,
    is_error_code,
    not_found_error,
    rate_limit_error,
    service_unavailable_error,
    throw_error,
    validation_error,
)

STATUSES = {
    401: "UNAUTHORIZED INVALID_TOKEN TOKEN_EXPIRED MISSING_CREDENTIALS",
    403: "FORBIDDEN INSUFFICIENT_PERMISSIONS MULTI_TENANCY_VIOLATION",
    400: "BAD_REQUEST INVALID_INPUT VALIDATION_ERROR MISSING_REQUIRED_FIELD",
    404: "NOT_FOUND RESOURCE_NOT_FOUND",
    409: "CONFLICT DUPLICATE_ENTRY STATE_CONFLICT",
    429: "RATE_LIMIT_EXCEEDED TOO_MANY_REQUESTS",
    500: "INTERNAL_ERROR DATABASE_ERROR",
    502: "EXTERNAL_SERVICE_ERROR",
    503: "SERVICE_UNAVAILABLE",
    504: "TIMEOUT",
}
NAMES = [(status, name) for status, names in STATUSES.items() for name in names.split()]
LOCKED = ErrorCode("INVOICE_LOCKED", 409, "Invoice locked", retryable=True, public=False)


def refused(retry_after: float | None) -> Decision:
    return Decision.of(False, Quota(6, per=900.0), "login", remaining=0, retry_after=retry_after)


class InvoiceLockedError(ServiceError):
    """An application's own error, with an `__init__` unlike its base's."""

    code = LOCKED

    def __init__(self, invoice: int, *, holder: str) -> None:
        super().__init__(f"invoice {invoice} is held by {holder}")
        self.invoice = invoice


# --- codes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "name"), NAMES)
def test_each_code_has_its_status_and_a_title(status, name):
    code = getattr(ErrorCode, name)
    assert code == name
    assert code.status == status
    assert code.title[0].isupper()
    assert "_" not in code.title


def test_there_are_no_codes_beyond_the_documented():
    codes = {code for code in vars(ErrorCode).values() if isinstance(code, ErrorCode)}
    assert codes == {name for _, name in NAMES}


def test_retrying_helps_with_what_passes_by_itself():
    retryable = {name for _, name in NAMES if getattr(ErrorCode, name).retryable}
    assert retryable == {
        "RATE_LIMIT_EXCEEDED",
        "TOO_MANY_REQUESTS",
        "EXTERNAL_SERVICE_ERROR",
        "SERVICE_UNAVAILABLE",
        "TIMEOUT",
    }


def test_what_tells_of_our_inside_is_not_public():
    private = {name for _, name in NAMES if not getattr(ErrorCode, name).public}
    assert private == {
        "MULTI_TENANCY_VIOLATION",
        "INTERNAL_ERROR",
        "DATABASE_ERROR",
        "EXTERNAL_SERVICE_ERROR",
    }


def test_a_code_is_a_string():
    assert json.dumps({"code": LOCKED}) == '{"code": "INVOICE_LOCKED"}'
    assert {LOCKED: 1}["INVOICE_LOCKED"] == 1
    assert repr(LOCKED) == "<ErrorCode INVOICE_LOCKED 409>"


@pytest.mark.parametrize("name", ["", "lower", "1ST", "A B", "A" * 65, "ÄRGER", "A\n"])
def test_a_code_with_a_bad_name_is_refused(name):
    assert not is_error_code(name)
    with pytest.raises(ValueError, match="in capitals"):
        ErrorCode(name, 400, "x")


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_status_that_is_no_errors_is_refused(status):
    with pytest.raises(ValueError, match=f"not {status}"):
        ErrorCode("ODD", status, "Odd")
    with pytest.raises(ValueError, match=f"not {status}"):
        ServiceError("odd", status=status)


@pytest.mark.parametrize("status", ["404", 404.5, None])
def test_a_status_that_is_no_whole_number_is_refused(status):
    with pytest.raises(TypeError, match="a whole number"):
        ErrorCode("ODD", status, "Odd")


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="a string, not 404"):
        ErrorCode(404, 404, "Odd")


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda code: pickle.loads(pickle.dumps(code))]
)
def test_a_code_can_be_copied_and_pickled(duplicate):
    other = duplicate(LOCKED)
    assert other == LOCKED
    assert (other.status, other.title, other.retryable, other.public) == (409, "Invoice locked", True, False)


# --- errors --------------------------------------------------------------------------------------


def test_an_error_says_everything():
    error = ServiceError(
        "No",
        LOCKED,
        status=423,
        fields={"invoice": "locked"},
        details={"row": 7},
        retry_after=2.5,
        request_id="r1",
    )
    assert str(error) == error.message == "No"
    assert (error.code, error.status, error.retryable, error.retry_after) == (LOCKED, 423, True, 2.5)
    assert (error.fields, error.details, error.request_id) == ({"invoice": "locked"}, {"row": 7}, "r1")


def test_an_error_needs_nothing():
    error = ServiceError()
    assert (error.code, error.status, error.message) == (
        ErrorCode.INTERNAL_ERROR,
        500,
        "Something went wrong on our side",
    )
    assert (error.retryable, error.retry_after) == (False, None)
    assert (error.fields, error.details, error.request_id) == (None, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"code": "NOT_FOUND"}, "code is an ErrorCode, not 'NOT_FOUND'"),
        ({"fields": ["email"]}, "fields are a mapping of names"),
        ({"details": "row 7"}, "details are a mapping of names"),
        ({"status": "404"}, "a whole number, not '404'"),
    ],
)
def test_what_could_not_be_answered_is_refused_where_it_is_raised(arguments, message):
    with pytest.raises(TypeError, match=message):
        ServiceError("x", **arguments)


def test_an_error_whose_init_was_skipped_still_has_a_message():
    class CarelessError(ServiceError):
        def __init__(self):
            pass

    assert str(CarelessError()) == ErrorCode.INTERNAL_ERROR.title


@pytest.mark.parametrize("retry_after", [-1.0, math.nan, math.inf])
def test_a_wait_that_makes_no_sense_is_refused(retry_after):
    with pytest.raises(ValueError, match="retry_after"):
        rate_limit_error(retry_after)


def test_a_subclass_has_its_own_code():
    error = InvoiceLockedError(7, holder="ada")
    assert (error.code, error.status, error.message) == (LOCKED, 409, "invoice 7 is held by ada")


def test_only_a_public_code_shows_its_message_and_a_500_never_does():
    assert not_found_error("User").public_message == "User not found"
    assert service_unavailable_error("Wasabi storage").public_message.startswith("Wasabi storage")
    assert InvoiceLockedError(7, holder="ada").public_message == "Invoice locked"
    internal = type("Internal", (ServiceError,), {"internal": True})
    assert internal("db-7 is down", ErrorCode.CONFLICT).public_message == ErrorCode.CONFLICT.title
    assert (
        ServiceError("db-7 is down", ErrorCode.CONFLICT, status=500).public_message
        == ErrorCode.CONFLICT.title
    )


def test_an_error_can_be_copied_and_pickled_whatever_its_init_takes():
    error = InvoiceLockedError(7, holder="ada")
    error.add_note("seen by bob")
    for other in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (other.message, other.invoice, other.__notes__) == (error.message, 7, ["seen by bob"])


# --- what the policies raise ---------------------------------------------------------------------


def test_an_open_breaker():
    error = CircuitOpenError("storage", 4.25)
    assert (error.name, error.retry_after) == ("storage", 4.25)
    assert (error.code, error.status, error.retryable) == (ErrorCode.SERVICE_UNAVAILABLE, 503, True)
    assert str(error) == "circuit breaker 'storage' is open: try again in 4.2 s"
    assert str(CircuitOpenError("storage", None)).endswith("held open: try again once it has been released")


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
        RateLimitedError(refused(1.0)),
        DeadlineExceeded("in storage-eu-7"),
    ],
)
def test_names_of_policies_are_not_public(error):
    assert error.public_message == error.code.title
    assert (error.fields, error.details, error.request_id) == (None, None, None)


@pytest.mark.parametrize("cls", [CircuitOpenError, RateLimitedError])
def test_a_rejection_is_made_without_python_code(cls):
    assert not hasattr(cls.__init__, "__code__")
    assert not hasattr(cls.__new__, "__code__")


# --- helpers -------------------------------------------------------------------------------------


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


# --- the page ------------------------------------------------------------------------------------


def test_the_documentation_lists_the_codes_as_they_are():
    page = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (yes|no) \| (yes|no) \|$", page, re.MULTILINE)
    codes = [code for code in vars(ErrorCode).values() if isinstance(code, ErrorCode)]
    word = {True: "yes", False: "no"}
    assert rows == [
        (str(code.status), str(code), code.title, word[code.retryable], word[code.public]) for code in codes
    ]
