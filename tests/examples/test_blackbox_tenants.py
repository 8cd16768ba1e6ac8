"""The example backend from outside: tenants, and what one sees of the other."""

from __future__ import annotations

import re

import pytest

from tests.examples.backend_process import PASSWORD, assert_error, everywhere, invited, logged_in, login


@everywhere
def test_whoever_is_invited_joins_and_sees_who_else_is_there(server, user):
    with invited(server, user) as bob:
        assert bob.get("/api/auth/me").json()["role"] == "member"
        assert bob.get("/api/tenant").json() == {**user.get("/api/tenant").json(), "role": "member"}

        listed = bob.get("/api/tenant/users").json()
        assert sorted((one["email"], one["role"], one["disabled"]) for one in listed["users"]) == sorted(
            [(bob.email, "member", False), (user.email, "administrator", False)]
        )
        assert listed["after"] is None
        first, second = (one["email"] for one in listed["users"])
        rest = bob.get("/api/tenant/users", params={"after": first}).json()
        assert [one["email"] for one in rest["users"]] == [second]


@everywhere
@pytest.mark.parametrize("text", ["a\x00b", "two\nlines", "\x1b[31m", "\u202e"])
def test_what_a_terminal_or_a_database_would_stumble_over_is_refused(user, client, text):
    account = {"email": "new@example.com", "password": PASSWORD, "name": text}
    answer = client.post("/api/auth/register", json=account)
    assert assert_error(answer, 400, "VALIDATION_ERROR").get("fields", {}).keys() <= {"name"}
    answer = user.get("/api/tenant/users", params={"after": text})
    assert assert_error(answer, 400, "VALIDATION_ERROR")["fields"].keys() == {"after"}


def test_the_last_administrator_cannot_be_disabled(user):
    me = user.get("/api/auth/me").json()["id"]
    assert_error(user.post(f"/api/tenant/users/{me}/disable"), 409, "CONFLICT")


def test_another_tenants_users_are_not_found(server, user):
    with logged_in(server) as other:
        theirs = other.get("/api/auth/me").json()["id"]
        for action in ("disable", "enable"):
            assert_error(user.post(f"/api/tenant/users/{theirs}/{action}"), 404, "RESOURCE_NOT_FOUND")
        assert other.get("/api/auth/me").status_code == 200


@everywhere
def test_a_new_webhook_address_works_and_the_one_before_does_not(user, client):
    first, second = (user.post("/api/tenant/webhook-url").json() for _ in range(2))
    assert first.keys() == {"url", "signedUrl", "signingSecret"}
    assert first["signingSecret"] != second["signingSecret"]
    callback = {"CallSid": "c0ffee", "Status": "busy"}
    path = re.compile(r"/api/webhooks/[\w-]{43}/telephony$")
    assert client.post(path.search(second["url"])[0], json=callback).status_code == 200
    assert_error(client.post(path.search(first["url"])[0], json=callback), 404, "NOT_FOUND")


def test_fault_96_what_sets_a_session_is_kept_by_no_cache(user, client):
    change = {"currentPassword": PASSWORD, "newPassword": "quite another one", "endOthers": True}
    answers = [
        login(client, user.email, PASSWORD),
        user.post("/api/auth/password", json=change),
        client.post("/api/auth/logout"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert {"HttpOnly", "Path=/", "SameSite=lax"} < set(answer.headers["Set-Cookie"].split("; "))
        assert answer.headers["Cache-Control"] == "no-store"
        assert "Cookie" in answer.headers["Vary"]


@pytest.mark.parametrize("path", ["login", "register", "forgot-password", "reset-password", "logout"])
def test_another_site_cannot_have_a_browser_send_it(client, path):
    """Or it could log somebody into an account of its own, and read what they do there."""
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    by_itself = {"Authorization": "Basic YWRhOnNlY3JldA=="}  # as a browser does that has logged in at a proxy
    for headers in (foreign, foreign | by_itself):
        assert_error(client.post(f"/api/auth/{path}", json={}, headers=headers), 403, "FORBIDDEN")


def test_of_two_cookies_neither_counts(server, user):
    """Another site of the same domain can add one of its own, and no two frameworks choose alike."""
    own = f"session={user.token}"
    with server.client() as browser:
        for cookies in (f"session=bogus; {own}", f"{own}; session=bogus"):
            assert_error(browser.get("/api/auth/me", headers={"Cookie": cookies}), 401, "UNAUTHORIZED")
        assert browser.get("/api/auth/me", headers={"Cookie": f"a=b; {own};c"}).status_code == 200
