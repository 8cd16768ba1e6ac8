"""The example backend from outside: from registration to logout, and what those learn who guess."""

from __future__ import annotations

import pytest

from tests.examples.backend_process import PASSWORD, assert_error, everywhere, logged_in, login


@everywhere
def test_from_registration_to_logout(server, client):
    email = "Ada.Lovelace@example.com"
    account = {"email": email, "password": PASSWORD, "name": "Ada"}
    assert client.post("/api/auth/register", json=account).status_code == 202
    assert_error(login(client, email, PASSWORD), 403, "FORBIDDEN")  # not verified yet
    assert "login refused for the unverified A***@example.com" in server.log()
    code = server.code_for(email)
    assert client.post("/api/auth/verify-email", json={"email": email, "code": code}).status_code == 200

    answer = login(client, email.lower(), PASSWORD)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # over plain HTTP no browser would send it back
    assert (
        client.get("/api/auth/me").json().items()
        >= {"email": email, "name": "Ada", "emailVerified": True}.items()
    )

    with server.client() as program:  # without cookies
        program.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        assert program.get("/api/auth/me").status_code == 200
        assert client.post("/api/auth/logout").status_code == 200
        assert_error(program.get("/api/auth/me"), 401, "UNAUTHORIZED")
    assert_error(client.get("/api/auth/me"), 401, "UNAUTHORIZED")


def test_fault_94_a_login_ends_the_session_before_it(user):
    answer = login(user, user.email, PASSWORD)
    assert answer.status_code == 200
    assert answer.json()["token"] != user.token
    assert user.get("/api/auth/me").status_code == 401  # its header still has the first token


@pytest.mark.parametrize("token", ["forged", "x" * 5000, "%00", "a b", "é"])
def test_fault_95_what_is_no_token_is_nobodys(client, token):
    answer = client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}".encode("latin-1")})
    assert_error(answer, 401, "UNAUTHORIZED")


def test_a_known_address_is_answered_like_a_new_one_and_told_by_mail(server):
    with logged_in(server, "known@example.com") as client:
        answers = [
            client.post("/api/auth/register", json={"email": email, "password": "quite another one"})
            for email in ("known@example.com", "unknown@example.com")
        ]
        known, unknown = (answer.json() for answer in answers)
        assert known["registration"] != unknown["registration"]
        assert known | {"registration": ""} == unknown | {"registration": ""}
        assert [answer.status_code for answer in answers] == [202, 202]
        assert "You have an account already" in server.mail_to("known@example.com")[-1]
        assert login(client, "known@example.com", "quite another one").status_code == 401


def test_a_wrong_code_is_refused_and_five_void_the_right_one(server, client):
    email = "guessed@example.com"
    client.post("/api/auth/register", json={"email": email, "password": PASSWORD})
    code = server.code_for(email)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"

    def verify(digits):
        return client.post("/api/auth/verify-email", json={"email": email, "code": digits})

    body = assert_error(verify(wrong), 400, "VALIDATION_ERROR")
    assert "code" in body["fields"]
    assert [verify(wrong).status_code for _ in range(4)] == [400] * 4
    refused = verify(code)
    assert_error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) <= 300


def test_a_new_code_voids_the_old_one(server, client):
    email = "impatient@example.com"
    client.post("/api/auth/register", json={"email": email, "password": PASSWORD})
    codes = [server.code_for(email)]
    for _ in range(3):
        assert client.post("/api/auth/resend-otp", json={"email": email}).status_code == 202
        codes.append(server.code_for(email))
    assert_error(client.post("/api/auth/resend-otp", json={"email": email}), 429, "RATE_LIMIT_EXCEEDED")
    assert len(server.mail_to(email)) == 4
    if codes[0] != codes[-1]:  # one in a million
        old = client.post("/api/auth/verify-email", json={"email": email, "code": codes[0]})
        assert_error(old, 400, "VALIDATION_ERROR")
    new = client.post("/api/auth/verify-email", json={"email": email, "otp": codes[-1]})
    assert new.status_code == 200


def test_a_new_code_is_no_new_set_of_guesses(server, client):
    email = "patient@example.com"
    client.post("/api/auth/register", json={"email": email, "password": PASSWORD})

    def guess():
        wrong = f"{(int(server.code_for(email)) + 1) % 1_000_000:06}"
        return client.post("/api/auth/verify-email", json={"email": email, "code": wrong}).status_code

    assert [guess() for _ in range(3)] == [400] * 3
    assert client.post("/api/auth/resend-otp", json={"email": email}).status_code == 202
    assert [guess() for _ in range(3)] == [400, 400, 429]


def test_a_code_can_be_bound_to_its_registration(server):
    def register(client, password):
        answer = client.post("/api/auth/register", json={"email": "raced@example.com", "password": password})
        return answer.json()["registration"]

    def verify(client, registration):
        code = {"email": "raced@example.com", "code": server.code_for("raced@example.com")}
        return client.post("/api/auth/verify-email", json={**code, "registration": registration}).status_code

    with server.client() as ada, server.client() as eve:
        own = register(ada, "what Ada has chosen")
        register(eve, "what Eve has chosen")
        assert verify(ada, own) == 400
        assert login(eve, "raced@example.com", "what Eve has chosen").status_code == 403
        assert verify(ada, register(ada, "what Ada has chosen")) == 200
        assert login(ada, "raced@example.com", "what Ada has chosen").status_code == 200


def test_nobody_unknown_is_sent_a_code(server, client):
    answer = client.post("/api/auth/resend-otp", json={"email": "nobody@example.com"})
    assert answer.status_code == 202
    assert server.mail_to("nobody@example.com") == []
