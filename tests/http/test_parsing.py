"""A response of any server as the error that it tells."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.errors import ErrorCode, ServiceError, validation_error
from resilience.http.body import error_response
from resilience.http.parsing import parse_error
from resilience.retry import RetryManager
from resilience.testing import FakeClock


class At:
    """A clock that stands still."""

    def __init__(self, wall):
        self.wall = lambda: wall


def parsed(status=400, content=None, headers=(), **options) -> ServiceError:
    return parse_error(status, headers, json.dumps(content).encode(), **options)


# --- our own -------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, "application/problem+json"])
@pytest.mark.parametrize("development", [False, True])
def test_what_the_server_raised_comes_back(accept, development):
    raised = validation_error("Email is invalid", {"email": "invalid format"})
    response = error_response(raised, request_id="r1", accept=accept, development=development)
    error = parse_error(*response)
    assert (error.message, error.code, error.status) == ("Email is invalid", ErrorCode.VALIDATION_ERROR, 400)
    assert (error.fields, error.request_id) == ({"email": "invalid format"}, "r1")
    assert (error.details is not None) == development


@pytest.mark.parametrize("name", ["SERVICE_UNAVAILABLE", "RATE_LIMIT_EXCEEDED", "DATABASE_ERROR", "CONFLICT"])
def test_a_code_says_whether_retrying_helps(name):
    code = getattr(ErrorCode, name)
    error = parse_error(*error_response(ServiceError(code=code, retry_after=7), request_id="r"))
    assert error.code is code
    assert error.retryable == code.retryable
    assert error.retry_after == 7.0


def test_the_server_s_own_codes_can_be_told():
    locked = ErrorCode("INVOICE_LOCKED", 409, "Invoice locked", retryable=True)
    body = {"code": "INVOICE_LOCKED", "error": "No"}
    assert parsed(409, body, codes=[locked]).code is locked
    unknown = parsed(409, body).code
    assert (unknown, unknown.status, unknown.retryable) == ("INVOICE_LOCKED", 409, False)


def test_a_code_that_does_not_go_with_the_status_is_judged_by_the_status():
    error = parsed(503, {"code": "NOT_FOUND"})
    assert (error.code, error.status, error.code.status, error.retryable) == ("NOT_FOUND", 503, 503, True)


# --- anybody's -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        *((status, True) for status in (408, 425, 429, 500, 502, 503, 504)),
        *((status, False) for status in (400, 404, 413, 501, 507)),
    ],
)
def test_without_a_code_the_status_decides(status, retryable):
    assert parse_error(status, {}, b"").retryable is retryable


def test_too_large_is_retryable_only_where_the_server_says_when():
    assert parse_error(413, {"Retry-After": "5"}, b"").retryable


@pytest.mark.parametrize("status", [0, 200, 302, 600, -1])
def test_a_status_that_is_no_error_s_is_a_bad_gateway(status):
    error = parse_error(status, {}, b"")
    assert (error.status, error.code) == (502, ErrorCode.EXTERNAL_SERVICE_ERROR)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"error": "No"}, "No"),
        ({"detail": "No"}, "No"),
        ({"message": "No"}, "No"),
        ({"title": "No"}, "No"),
        ({"title": "401 Unauthorized", "description": "No"}, "No"),  # as Falcon has it
        ({"title": "Bad Request", "detail": "No", "type": "about:blank"}, "No"),
        ({"error": "invalid_grant", "error_description": "No"}, "No"),
        ({"error": {"code": 7, "message": "No"}}, "No"),
        ({"error": "  No  "}, "No"),
        ({"error": ""}, None),
        ({"error": 7}, None),
        ({"error": {}}, None),
        ({}, None),
        ([], None),
        ("No", None),
        (7, None),
        (None, None),
        ({"error": "a\r\nb"}, r"a\r\nb"),
        ({"error": "x" * 1000}, "x" * 500 + "…"),
    ],
)
def test_the_message_is_looked_for_in_the_usual_places(content, message):
    assert parsed(400, content).message == (message or ErrorCode.BAD_REQUEST.title)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"Not Found", "Not Found"),
        ("Not Found", "Not Found"),
        (b"<html>no</html>", None),
        (b"two\nlines", None),
        (b"\xff\xfe\x00", None),
        (b"", None),
        (b"{", "{"),
        (b"[" * 60_000, "[" * 500 + "…"),
        (b"1" * 60_000, "1" * 500 + "…"),
        (b'{"error": "No"}' + b" " * 70_000, None),
        (bytearray(b'{"error": "No"}'), "No"),
    ],
)
def test_a_body_may_be_anything(body, message):
    assert parse_error(404, {"Content-Type": "application/json"}, body).message == (
        message or ErrorCode.NOT_FOUND.title
    )


def test_the_content_type_may_lie():
    assert parse_error(404, {"Content-Type": "image/png"}, b'{"error": "No"}').message == "No"


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ({"fields": {"email": "bad", "age": 7}}, {"email": "bad", "age": "7"}),
        ({"fields": {}}, None),
        ({"fields": {"a\n": "\x1b[31mred"}}, {"a\\n": "\\x1b[31mred"}),
        ({"detail": [{"loc": ["body", "a\n"], "msg": "\x1b[31mred"}]}, {"a\\n": "\\x1b[31mred"}),
        ({"fields": []}, None),
        ({"detail": [{"loc": ["body", "email"], "msg": "bad", "input": "secret"}]}, {"email": "bad"}),
        ({"detail": [{"msg": "bad"}]}, None),
        ({"detail": [7]}, None),
        ({"detail": 7}, None),
    ],
)
def test_field_errors_are_kept(content, fields):
    assert parsed(422, content).fields == fields


def test_many_fields_are_cut():
    assert len(parsed(422, {"fields": {str(number): "bad" for number in range(1000)}}).fields) == 100


@pytest.mark.parametrize(
    ("content", "headers", "request_id"),
    [
        ({"requestId": "a"}, {"X-Request-Id": "b"}, "a"),
        ({"requestId": "a b"}, {"X-Request-Id": "b"}, "b"),
        ({"requestId": 7}, {"X-Request-Id": "b c"}, None),
        ({}, {}, None),
    ],
)
def test_a_request_id_is_kept_if_it_is_safe(content, headers, request_id):
    assert parsed(400, content, headers).request_id == request_id


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["7"], 7.0),
        (["soon", "7"], 7.0),
        (["Sun, 06 Nov 1994 08:49:37 GMT"], 10.0),
        (["-1"], None),
        ([], None),
    ],
)
def test_retry_after_is_read_in_all_forms(lines, seconds):
    headers = [("retry-after", line) for line in lines]
    assert parse_error(503, headers, b"", clock=At(784111767.0)).retry_after == seconds


def test_a_parsed_error_can_be_pickled():
    error = parsed(418, {"code": "TEAPOT", "error": "short and stout", "details": {"a": [1]}})
    other = pickle.loads(pickle.dumps(error))
    assert (other.code, other.message, other.details) == ("TEAPOT", "short and stout", {"a": [1]})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(
        ["error", "code", "detail", "fields", "details", "requestId", "message", "loc", "msg"]
    ), inner),
)  # fmt: skip


@given(st.integers(), st.lists(st.tuples(st.text(), st.text())), st.binary() | JSON.map(json.dumps))
def test_it_never_raises(status, headers, body):
    error = parse_error(status, headers, body)
    assert 400 <= error.status <= 599
    assert error.message.isprintable()


# --- on the client's side ------------------------------------------------------------------------


def test_a_retry_obeys_what_the_server_said():
    clock = FakeClock()
    answers = iter([(503, {"Retry-After": "7"}, b""), (500, {}, b""), (404, {}, b"")])

    def fetch():
        raise parse_error(*next(answers))

    with pytest.raises(ServiceError) as caught:
        RetryManager(max_attempts=5, name="parsed", clock=clock, budget=None).execute(fetch)
    assert caught.value.status == 404
    assert len(clock.sleeps) == 2
    assert clock.sleeps[0] >= 7.0
