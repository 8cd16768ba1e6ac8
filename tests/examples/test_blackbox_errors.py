"""The example backend from outside: what is wrong is said in one form, whatever it is and wherever."""

from __future__ import annotations

import pytest

from tests.examples.backend_process import REQUEST_ID, assert_error, everywhere, login


@everywhere
def test_an_invalid_registration_says_what_is_wrong_with_each_field(client):
    answer = client.post("/api/auth/register", json={"email": "invalid"})
    body = assert_error(answer, 400, "VALIDATION_ERROR")
    assert body["fields"].keys() == {"email", "password"}


def test_what_is_not_there_is_not_found(client):
    assert_error(client.get("/api/nonexistent"), 404, "NOT_FOUND")


def test_a_wrong_method_is_told_which_are_right(client):
    answer = client.get("/api/auth/login")
    assert_error(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff", b"[" * 50_000, b'{"email": 1e400}'])
def test_a_body_that_cannot_be_read_is_a_bad_request(client, body):
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, "VALIDATION_ERROR")


def test_a_body_that_is_too_long_is_refused(client):
    answer = client.post("/api/auth/login", content=b" " * 100_000)
    assert_error(answer, 413, "CONTENT_TOO_LARGE")


def test_fault_93_a_huge_password_is_refused_before_it_is_hashed(client):
    assert_error(login(client, "ada@example.com", "x" * 1025), 400, "VALIDATION_ERROR")
    assert_error(login(client, "ada@example.com", "x" * 1_000_000), 413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize(
    "email",
    [
        "a@b",
        "a b@example.com",
        "a@example.com\r\nBcc: all",
        "a\x00@example.com",
        "@",
        "=?utf-8?b?YQ0K?=@example.com",
    ],
)
def test_what_is_no_address_is_refused(client, email):
    answer = client.post("/api/auth/register", json={"email": email, "password": "long enough"})
    assert_error(answer, 400, "VALIDATION_ERROR")


def test_a_lone_surrogate_is_refused(client):
    body = b'{"email": "ada@example.com", "password": "\\ud800 and so on"}'
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, "VALIDATION_ERROR")


def test_an_error_comes_as_problem_details_for_those_who_ask(client):
    answer = client.get("/api/nonexistent", headers={"Accept": "application/problem+json"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 404


def test_a_request_id_is_kept_if_it_is_harmless(client):
    assert client.get("/health/live", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    forged = client.get("/health/live", headers={"X-Request-Id": "a<script>"}).headers["X-Request-Id"]
    assert REQUEST_ID.fullmatch(forged)
