"""An error as a response."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    not_found_error,
    rate_limit_error,
    validation_error,
)
from resilience.http.body import (
    error_body,
    error_response,
    is_error_body,
    prefers_problem,
    problem_body,
)
from resilience.http.mapping import to_service_error

PROBLEM = "application/problem+json"


class At:
    """A clock that stands still."""

    def __init__(self, wall):
        self.wall = lambda: wall


NOON = At(1736937000.9)


def decision(allowed: bool, retry_after: float | None = 0.0, limiter: str = "login") -> Decision:
    return Decision.of(
        allowed, Quota(6, per=900.0), limiter, remaining=2, reset_after=60.0, retry_after=retry_after
    )


def failed() -> ServiceError:
    try:
        raise KeyError("/srv/secret")
    except KeyError as error:
        return to_service_error(error)


# --- bodies --------------------------------------------------------------------------------------


def test_the_body_has_exactly_these_keys():
    body = error_body(not_found_error("User"), request_id="r1", clock=NOON)
    assert body == {
        "error": "User not found",
        "code": "RESOURCE_NOT_FOUND",
        "requestId": "r1",
        "timestamp": "2025-01-15T10:30:00Z",
    }


def test_the_problem_form_says_the_same():
    body = problem_body(not_found_error("User"), request_id="r1", instance="/users/7", clock=NOON)
    assert body == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "User not found",
        "instance": "/users/7",
        "code": "RESOURCE_NOT_FOUND",
        "requestId": "r1",
        "timestamp": "2025-01-15T10:30:00Z",
    }


def test_a_status_without_a_phrase():
    body = problem_body(ServiceError("x", status=499), request_id="r1")
    assert body["title"] == "Error"
    assert "instance" not in body


@pytest.mark.parametrize("form", [error_body, problem_body])
def test_fields_are_shown_always(form):
    body = form(validation_error("Email is invalid", {"email": "invalid format"}), request_id="r1")
    assert body["fields"] == {"email": "invalid format"}


@pytest.mark.parametrize("form", [error_body, problem_body])
def test_in_production_nothing_internal_leaves(form):
    error = failed()
    error.details = {"query": "SELECT secret"}
    text = json.dumps(form(error, request_id="r1"))
    assert "secret" not in text
    assert "KeyError" not in text
    assert "details" not in text


@pytest.mark.parametrize("form", [error_body, problem_body])
def test_in_development_everything_is_shown(form):
    error = failed()
    error.details = {"query": "SELECT secret"}
    details = form(error, request_id="r1", development=True)["details"]
    assert details["query"] == "SELECT secret"
    assert details["exception"] == "KeyError: '/srv/secret'"
    assert "in failed" in details["traceback"][-1]


def test_an_error_without_a_cause_tells_of_itself_if_it_was_raised():
    error = not_found_error("User")
    assert error_body(error, request_id="r1", development=True)["details"] == {}
    with pytest.raises(ServiceError):
        raise error
    details = error_body(error, request_id="r1", development=True)["details"]
    assert details == {"exception": "resilience.errors.service.ServiceError: User not found"}


def test_only_a_failure_of_ours_tells_where_it_was_raised():
    error = ServiceError("the disk is full")
    with pytest.raises(ServiceError):
        raise error
    details = error_body(error, request_id="r1", development=True)["details"]
    assert details["exception"] == "resilience.errors.service.ServiceError: the disk is full"
    assert "raise error" in details["traceback"][-1]


def test_a_policy_s_message_is_for_developers():
    error = CircuitOpenError("storage-eu-7", 4.0)
    assert "storage-eu-7" not in json.dumps(error_body(error, request_id="r1"))
    assert "storage-eu-7" in error_body(error, request_id="r1", development=True)["error"]


# --- responses -----------------------------------------------------------------------------------


def test_a_whole_response():
    response = error_response(not_found_error("User"), request_id="r1", clock=NOON)
    assert response.status == 404
    assert dict(response.headers) == {
        "Content-Type": "application/json",
        "Content-Length": str(len(response.body)),
        "Cache-Control": "no-store",
        "X-Request-Id": "r1",
    }
    assert json.loads(response.body) == error_body(not_found_error("User"), request_id="r1", clock=NOON)


def test_a_problem_for_who_asks_for_it():
    response = error_response(not_found_error("User"), request_id="r1", accept=PROBLEM, instance="/u")
    assert dict(response.headers)["Content-Type"] == PROBLEM
    assert json.loads(response.body)["instance"] == "/u"


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (rate_limit_error(59.1), "60"),
        (ServiceError(code=ErrorCode.SERVICE_UNAVAILABLE, retry_after=0.0), "1"),
        (CircuitOpenError("storage", 4.2), "5"),
        (CircuitOpenError("storage", None), None),
        (RateLimitedError(decision(False, 7.5)), "8"),
        (RateLimitedError(decision(False, None)), None),
        (not_found_error(), None),
    ],
)
def test_retry_after(error, seconds):
    assert dict(error_response(error, request_id="r1").headers).get("Retry-After") == seconds


def test_waiting_for_one_limit_does_not_help_where_another_never_lets_it_through():
    error = RateLimitedError(decision(False, 7.5))
    response = error_response(error, request_id="r1", decisions=[decision(False, None)])
    assert "Retry-After" not in dict(response.headers)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(not_found_error(), None), (CircuitOpenError("storage", 4.2), "5"), (rate_limit_error(), "8")],
)
def test_what_a_limiter_asks_to_wait_is_told_with_429_only(error, seconds):
    response = error_response(error, request_id="r1", decisions=[decision(False, 7.5)])
    assert dict(response.headers).get("Retry-After") == seconds


def test_decisions_give_rate_limit_headers():
    noted = decision(True)
    headers = dict(error_response(not_found_error(), request_id="r1", decisions=[noted], clock=At(0)).headers)
    assert (headers["X-RateLimit-Remaining"], headers["X-RateLimit-Reset"]) == ("2", "60")
    assert "Retry-After" not in headers


def test_the_decision_of_a_refusal_is_counted_once():
    refusal = decision(False, 7.0)
    for decisions in ([], [refusal]):
        response = error_response(
            RateLimitedError(refusal), request_id="r1", decisions=decisions, style="ietf"
        )
        assert dict(response.headers)["RateLimit"] == '"login";r=2;t=60'


class Hostile:
    def __repr__(self):
        return "<hostile>"


class Speechless:
    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "details",
    [
        {"a": Hostile()},
        {"a": Speechless()},
        {("a",): Speechless()},
        {"a": {1, 2}},
        {("a", "b"): 1},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": b"x"},
    ],
)
def test_what_json_cannot_hold_is_shown_somehow(details):
    error = ServiceError("x", details=details)
    body = json.loads(
        error_response(error, request_id="r1", development=True).body, parse_constant=pytest.fail
    )
    assert body["details"]


def test_a_cycle_and_a_deep_nest_are_shown_somehow():
    cycle: dict = {}
    cycle["cycle"] = cycle
    nest: list = []
    for _ in range(900):
        nest = [nest]
    for details in (cycle, {"nest": nest}):
        response = error_response(ServiceError("x", details=details), request_id="r1", development=True)
        assert is_error_body(response.body)


@given(st.text(alphabet=st.characters(codec=None)), st.dictionaries(st.text(), st.text()))
def test_bodies_are_ascii_and_survive_json(message, fields):
    error = validation_error(message, fields)
    body = error_response(error, request_id="r1").body
    assert body.isascii()
    assert json.loads(body)["error"] == message
    assert json.loads(body).get("fields", {}) == fields


# --- whose body ----------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [None, PROBLEM])
def test_our_bodies_are_known(accept):
    assert is_error_body(error_response(not_found_error(), request_id="r", accept=accept).body)


@pytest.mark.parametrize(
    "body", [b"", b"Not Found", b"[]", b"{}", b'{"code": "A"}', b"[" * 100_000, b"\xff", b"1" * 5000]
)
def test_others_are_not(body):
    assert not is_error_body(body)


# --- negotiation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "accept",
    [
        PROBLEM,
        "Application/Problem+JSON",
        f"{PROBLEM}, application/json",
        f"application/json, {PROBLEM}",
        f"application/json;q=0.9, {PROBLEM};q=0.9",
        f"application/json;q=0.5, {PROBLEM} ; Q=0.8",
        f"*/*;q=0.1, {PROBLEM};q=0.2",
        f"application/json;q=2, {PROBLEM}",
        f'text/html;a="x,y;q=1", {PROBLEM}',
        f"{PROBLEM};charset=utf-8",
        f"application/*;q=0, {PROBLEM};q=0.001",
    ],
)
def test_asked_for(accept):
    assert prefers_problem(accept)


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/*",
        "application/json",
        f"{PROBLEM};q=0",
        f"{PROBLEM};q=0.000",
        f"application/json, {PROBLEM};q=0.9",
        f"*/*, {PROBLEM};q=0.5",
        f"{PROBLEM};q=nonsense",
        f"{PROBLEM};q=1.5",
        f"{PROBLEM};q=",
        f'text/html;a="{PROBLEM}"',
        f'text/html;a=", {PROBLEM}',
        "application/problem+xml",
    ],
)
def test_not_asked_for(accept):
    assert not prefers_problem(accept)


@given(st.text(alphabet='aplicton/problem+json*;,q=01." \\', max_size=60))
def test_negotiation_never_fails(accept):
    prefers_problem("problem" + accept)
