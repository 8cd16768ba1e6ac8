"""Which code stands for a bare status."""

from __future__ import annotations

import pytest

from resilience.errors import ErrorCode
from resilience.http.status import VOCABULARY, code_for_status


@pytest.mark.parametrize("status", range(400, 600))
def test_every_error_status_has_a_code(status):
    code = code_for_status(status)
    assert code.status == status or (status, code) == (422, ErrorCode.VALIDATION_ERROR)
    assert code.public or status >= 500


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BAD_REQUEST"),
        (401, "UNAUTHORIZED"),
        (403, "FORBIDDEN"),
        (404, "NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (409, "CONFLICT"),
        (413, "CONTENT_TOO_LARGE"),
        (418, "HTTP_418"),
        (422, "VALIDATION_ERROR"),
        (429, "RATE_LIMIT_EXCEEDED"),
        (500, "INTERNAL_ERROR"),
        (502, "EXTERNAL_SERVICE_ERROR"),
        (503, "SERVICE_UNAVAILABLE"),
        (504, "TIMEOUT"),
        (599, "HTTP_599"),
    ],
)
def test_the_usual_codes(status, name):
    assert code_for_status(status) == name


def test_the_vocabulary_is_the_library_s_own():
    assert VOCABULARY["TIMEOUT"] is ErrorCode.TIMEOUT
    assert "METHOD_NOT_ALLOWED" not in VOCABULARY
