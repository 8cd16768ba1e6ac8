"""Reading headers, and telling clients about rate limits."""

from __future__ import annotations

from email.message import Message

import pytest
from starlette.datastructures import Headers

from resilience._core.quota import Decision, Quota
from resilience.http.headers import header_values, limit_headers, rate_limit_headers, whole_seconds
from resilience.testing import FakeClock

QUOTA = Quota(6, per=900.0)


def allowed(remaining, reset_after=0.0, limiter="login", quota=QUOTA):
    return Decision.of(True, quota, limiter, remaining=remaining, reset_after=reset_after)


def refused(retry_after, reset_after=900.0, limiter="login", quota=QUOTA):
    return Decision.of(False, quota, limiter, remaining=0, reset_after=reset_after, retry_after=retry_after)


class At:
    """A clock that stands still."""

    def __init__(self, wall):
        self.wall = lambda: wall


# --- reading -------------------------------------------------------------------------------------


def message() -> Message:
    headers = Message()
    headers["Accept"] = "a"
    headers["accept"] = "b"
    return headers


@pytest.mark.parametrize(
    "headers",
    [
        [("Accept", "a"), ("x", "y"), ("accept", "b")],
        [(b"Accept", b"a"), (b"ACCEPT", b"b")],
        Headers(raw=[(b"accept", b"a"), (b"accept", b"b")]),
        message(),
        iter([("accept", "a"), (b"accept", "b")]),
    ],
)
def test_headers_are_read_from_whatever_carries_them(headers):
    assert header_values(headers, "accept") == ["a", "b"]


def test_a_missing_header_has_no_values():
    assert header_values({"Accept": "a"}, "x") == []
    assert header_values((), "x") == []


# --- rate limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "whole"), [(0.0, 1), (0.2, 1), (1.0, 1), (1.001, 2), (59.01, 60)])
def test_seconds_are_rounded_up_and_at_least_one(seconds, whole):
    assert whole_seconds(seconds) == whole


def test_no_decision_gives_no_headers():
    assert rate_limit_headers() == {}
    assert rate_limit_headers(style="both") == {}


def test_an_allowed_call_has_no_retry_after():
    assert rate_limit_headers(allowed(3, 42.2), clock=At(1000.5)) == {
        "X-RateLimit-Limit": "6",
        "X-RateLimit-Remaining": "3",
        "X-RateLimit-Reset": "1043",
    }


def test_a_refused_call_has_one():
    headers = rate_limit_headers(refused(12.1), clock=At(1000.0))
    assert headers == {
        "X-RateLimit-Limit": "6",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1900",
        "Retry-After": "13",
    }


def test_the_longest_wait_of_all_refusals_counts():
    assert rate_limit_headers(refused(5.0), allowed(1), refused(70.0))["Retry-After"] == "70"


def test_waiting_does_not_help_a_call_that_never_fits():
    assert "Retry-After" not in rate_limit_headers(refused(5.0), refused(None))


def test_the_tightest_decision_is_shown():
    wide = allowed(90, quota=Quota(100, per=60.0))
    assert rate_limit_headers(wide, allowed(2))["X-RateLimit-Limit"] == "6"
    assert rate_limit_headers(allowed(0), refused(1.0, quota=Quota(9, per=1.0)))["X-RateLimit-Limit"] == "9"
    slow = allowed(2, 50.0, quota=Quota(7, per=60.0))
    assert rate_limit_headers(allowed(2, 10.0), slow)["X-RateLimit-Limit"] == "7"


def test_the_draft_s_fields():
    headers = rate_limit_headers(
        allowed(3, 41.5), allowed(70, 3.0, "address", Quota(100, per=1.5)), style="ietf"
    )
    assert headers == {
        "RateLimit-Policy": '"login";q=6;w=900, "address";q=100;w=2',
        "RateLimit": '"login";r=3;t=42, "address";r=70;t=3',
    }


def test_both_styles():
    assert list(rate_limit_headers(refused(1.0), style="both", clock=FakeClock())) == [
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
        "RateLimit-Policy",
        "RateLimit",
        "Retry-After",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("a\r\nX: y", '"a??X: y"'), ("größe", '"gr??e"'), ("", '""')],
)
def test_a_name_becomes_a_structured_string(name, shown):
    assert rate_limit_headers(allowed(1, limiter=name), style="ietf")["RateLimit"] == f"{shown};r=1;t=0"


@pytest.mark.parametrize(("status", "wait"), [(200, None), (404, None), (503, None), (429, "13")])
def test_only_a_429_tells_how_long_to_wait(status, wait):
    headers = limit_headers(status, [refused(12.1)], "x", At(0))
    assert (headers["X-RateLimit-Remaining"], headers.get("Retry-After")) == ("0", wait)
    assert limit_headers(429, [allowed(1)], "x", At(0)).get("Retry-After") is None
