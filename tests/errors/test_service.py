from __future__ import annotations

import copy
import math
import pickle

import pytest

from resilience.errors import ErrorCode, ServiceError

LOCKED = ErrorCode("INVOICE_LOCKED", 409, "Invoice locked", retryable=True, public=False)


class InvoiceLockedError(ServiceError):
    """An application's own error, with an `__init__` unlike its base's."""

    code = LOCKED

    def __init__(self, invoice: int, *, holder: str) -> None:
        super().__init__(f"invoice {invoice} is held by {holder}")
        self.invoice = invoice


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
        ServiceError(retry_after=retry_after)


@pytest.mark.parametrize("status", [0, 200, 399, 600])
def test_a_status_that_is_no_errors_is_refused(status):
    with pytest.raises(ValueError, match=f"not {status}"):
        ServiceError("odd", status=status)


def test_a_subclass_has_its_own_code():
    error = InvoiceLockedError(7, holder="ada")
    assert (error.code, error.status, error.message) == (LOCKED, 409, "invoice 7 is held by ada")


def test_only_a_public_code_shows_its_message_and_a_500_never_does():
    assert ServiceError("User not found", ErrorCode.NOT_FOUND).public_message == "User not found"
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
