from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

from resilience.errors import ErrorCode, is_error_code

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


def test_the_documentation_lists_the_codes_as_they_are():
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \| (yes|no) \| (yes|no) \|$", page, re.MULTILINE)
    codes = [code for code in vars(ErrorCode).values() if isinstance(code, ErrorCode)]
    word = {True: "yes", False: "no"}
    assert rows == [
        (str(code.status), str(code), code.title, word[code.retryable], word[code.public]) for code in codes
    ]
