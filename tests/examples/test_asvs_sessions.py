"""OWASP ASVS 5.0, chapters 3 and 7: sessions, and the cookies that carry them; see docs/asvs.md."""

from __future__ import annotations

import base64
import hashlib
import time
from http.cookies import SimpleCookie

import pytest

from tests.examples.backend_process import (
    PASSWORD,
    assert_error,
    everywhere,
    invited,
    log_in,
    logged_in,
    login,
    wait_until,
)

over_https = pytest.mark.parametrize("server", ["asgi-https", "wsgi-https"], indirect=True)
brief = pytest.mark.parametrize("server", ["asgi-brief", "wsgi-brief"], indirect=True)
"""Where sessions last for seconds."""


def is_logged_in(client):
    return client.get("/api/auth/me").status_code == 200


# --- cookies ---------------------------------------------------------------------------------------


@pytest.fixture
def cookie(server, user):
    """The cookie that a login sets."""
    with server.client() as client:
        [header] = login(client, user.email, PASSWORD).headers.get_list("Set-Cookie")
    [(name, morsel)] = SimpleCookie(header).items()
    return name, morsel


@over_https
def test_asvs_3_3_1_the_session_s_cookie_is_secure(cookie):
    name, morsel = cookie
    assert name == "__Host-session"
    assert morsel["secure"] is True


@over_https
def test_asvs_3_3_2_it_is_not_sent_with_other_sites_requests(cookie):
    assert cookie[1]["samesite"] in {"lax", "Lax", "strict", "Strict"}


@over_https
def test_asvs_3_3_2_and_other_sites_requests_are_refused(server, user):
    with server.client() as browser:
        browser.headers["Cookie"] = f"__Host-session={user.token}"
        for headers in (
            {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.com"},
            {"Origin": "null"},
        ):
            answer = browser.post("/api/auth/logout-everywhere", headers=headers)
            assert_error(answer, 403, "FORBIDDEN")
        own = {"Sec-Fetch-Site": "same-origin", "Origin": "https://backend.example.com"}
        assert browser.post("/api/auth/logout-everywhere", headers=own).status_code == 200


@over_https
def test_asvs_3_3_3_it_is_for_this_host_only(cookie):
    name, morsel = cookie
    assert name.startswith("__Host-")
    assert (morsel["path"], morsel["domain"]) == ("/", "")


@over_https
def test_asvs_3_3_4_scripts_do_not_see_it(cookie):
    assert cookie[1]["httponly"] is True


# --- tokens ----------------------------------------------------------------------------------------


def test_asvs_7_2_3_a_token_has_256_bits_and_only_its_hash_is_stored(server, user):
    assert len(base64.urlsafe_b64decode(user.token + "=")) == 32
    hashed = hashlib.sha256(user.token.encode()).hexdigest()
    written = [file.read_bytes() for file in server.var.rglob("*") if file.is_file()]
    assert not [file for file in written if user.token.encode() in file]
    assert [file for file in written if hashed.encode() in file or bytes.fromhex(hashed) in file]
    assert user.token not in server.log()


@everywhere
def test_asvs_7_2_4_a_login_gives_a_new_token_and_ends_the_old_one(server, user):
    old = user.token
    log_in(user, user.email)
    assert user.token != old
    with server.client() as client:
        client.headers["Authorization"] = f"Bearer {old}"
        assert_error(client.get("/api/auth/me"), 401, "UNAUTHORIZED")
    assert is_logged_in(user)


@everywhere
def test_asvs_7_2_4_nobody_chooses_a_token_for_somebody_else(server, user):
    chosen = "chosen-by-an-attacker"
    with server.client(headers={"Cookie": f"session={chosen}"}) as client:
        answer = login(client, user.email, PASSWORD)
    assert answer.status_code == 200
    assert chosen not in answer.text + answer.headers["Set-Cookie"]


# --- lifetimes -------------------------------------------------------------------------------------


@brief
def test_asvs_7_3_1_a_session_that_is_not_used_ends(server):
    with logged_in(server) as used, logged_in(server) as unused:
        begun_at = time.monotonic()
        while time.monotonic() < begun_at + 1.5:
            time.sleep(0.1)
            assert is_logged_in(used)
        assert_error(unused.get("/api/auth/me"), 401, "UNAUTHORIZED")


@brief
def test_asvs_7_3_2_a_session_ends_however_much_it_is_used(user):
    wait_until(lambda: time.sleep(0.1) or not is_logged_in(user))


# --- who ends them ---------------------------------------------------------------------------------


@everywhere
def test_asvs_7_4_1_logging_out_ends_the_session_on_the_server(server, user):
    assert user.post("/api/auth/logout").status_code == 200
    for _ in range(4):  # whichever process answers
        assert_error(user.get("/api/auth/me"), 401, "UNAUTHORIZED")


@everywhere
def test_asvs_7_4_1_logging_out_everywhere_ends_them_all(server, user):
    with server.client() as elsewhere:
        log_in(elsewhere, user.email)
        assert user.post("/api/auth/logout-everywhere").status_code == 200
        assert not is_logged_in(user)
        assert not is_logged_in(elsewhere)


@everywhere
def test_asvs_7_4_2_who_is_disabled_is_logged_out_and_stays_out(server, user):
    with invited(server, user) as member, server.client() as elsewhere:
        log_in(elsewhere, member.email)
        user_id = member.get("/api/auth/me").json()["id"]
        assert user.post(f"/api/tenant/users/{user_id}/disable").status_code == 200
        assert not is_logged_in(member)
        assert not is_logged_in(elsewhere)
        assert_error(login(elsewhere, member.email, PASSWORD), 401, "UNAUTHORIZED")
        assert user.post(f"/api/tenant/users/{user_id}/enable").status_code == 200
        log_in(elsewhere, member.email)
        assert not is_logged_in(member)  # what has ended stays so


@everywhere
@pytest.mark.parametrize("end_others", [True, False])
def test_asvs_7_4_3_a_change_of_password_may_end_the_other_sessions(server, user, end_others):
    change = {"currentPassword": PASSWORD, "newPassword": "another long one", "endOthers": end_others}
    with server.client() as elsewhere, server.client() as renewed:
        log_in(elsewhere, user.email)
        renewed.headers["Authorization"] = (
            f"Bearer {user.post('/api/auth/password', json=change).json()['token']}"
        )
        assert is_logged_in(renewed)
        assert not is_logged_in(user)
        assert is_logged_in(elsewhere) is not end_others


@everywhere
def test_asvs_7_4_3_a_reset_ends_them_all(server, user):
    with server.client() as elsewhere:
        elsewhere.post("/api/auth/forgot-password", json={"email": user.email})
        reset = {"email": user.email, "code": server.code_for(user.email, 2), "password": "another long one"}
        assert elsewhere.post("/api/auth/reset-password", json=reset).status_code == 200
        assert not is_logged_in(user)


@everywhere
def test_asvs_7_5_2_users_see_and_end_their_sessions(server, user):
    with server.client(headers={"User-Agent": "Ada's telephone"}) as elsewhere:
        log_in(elsewhere, user.email)
        listed = user.get("/api/auth/sessions").json()["sessions"]
        assert [session["current"] for session in listed] == [False, True]  # the newest first
        assert listed[0]["device"] == "Ada's telephone"
        assert listed[0]["address"] == elsewhere.headers["X-Forwarded-For"]
        assert user.token not in str(listed)
        assert user.delete(f"/api/auth/sessions/{listed[0]['id']}").status_code == 200
        assert not is_logged_in(elsewhere)
        assert is_logged_in(user)
        assert len(user.get("/api/auth/sessions").json()["sessions"]) == 1
