"""OWASP ASVS 5.0, 6.1 to 6.3: passwords, and those who guess them; see docs/asvs.md."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import argon2
import pytest

from examples.backend.kit import drive
from examples.backend.ports.passwords import Argon2Passwords
from examples.backend.ports.workers import InThisThread
from tests.examples.backend_process import (
    ROOT,
    Running,
    assert_error,
    everywhere,
    fresh_email,
    logged_in,
    login,
)


def register(server, password):
    """Return the answer to a registration with this password."""
    with server.client() as client:
        return client.post("/api/auth/register", json={"email": fresh_email(), "password": password})


def refusal(server, password):
    """Return what a registration is told of this password; None if it is taken."""
    answer = register(server, password)
    if answer.status_code == 202:
        return None
    return assert_error(answer, 400, "VALIDATION_ERROR")["fields"]["password"]


# --- which are taken -------------------------------------------------------------------------------


def test_asvs_6_2_1_a_password_of_7_characters_is_refused_and_15_are_advised(server):
    assert "15" in refusal(server, "x7#kQ2z")
    assert refusal(server, "x7#kQ2zv") is None


@pytest.mark.parametrize("password", ["password", "12345678", "iloveyou", "PASSWORD1", "qwertyuiop"])
def test_asvs_6_2_4_common_passwords_are_refused(server, password):
    assert "common" in refusal(server, password)


@pytest.mark.parametrize(
    "password",
    [
        "vwlkdnpqbt",
        "VWLKDNPQBT",
        "8402759136",
        "vw kd pq bt",
        "!$%&/()=?*",
        "пароль и соль",
        "🐎🔋📎🔧🐎🔋📎🔧",
    ],
)
def test_asvs_6_2_5_a_password_may_be_made_of_anything(server, password):
    assert refusal(server, password) is None


def test_asvs_6_2_8_a_password_is_checked_whole_and_as_it_came(server):
    password = "Correct horse, battery staple! " * 4
    others = [password[:72], password[:-1], password.strip(), password.lower(), password + " "]
    with logged_in(server, password=password) as user, server.client() as client:
        assert [login(client, user.email, other).status_code for other in others] == [401] * len(others)
        assert login(client, user.email, password).status_code == 200


@pytest.mark.parametrize("length", [64, 128, 1024])
def test_asvs_6_2_9_a_long_password_is_taken(server, length):
    assert refusal(server, ("a long one, " * 100)[:length]) is None


def test_asvs_6_2_12_a_password_that_has_leaked_is_refused(tmp_path, app):
    leaked = "one that has leaked from elsewhere"
    with (
        range_api({leaked}) as (url, asked),
        Running(tmp_path / "var", app, breached_passwords_url=url) as server,
    ):
        assert "leaked" in refusal(server, leaked)
        assert refusal(server, "one that has never leaked") is None
    assert {len(prefix) for prefix in asked} == {5}  # all that the service is told


@contextlib.contextmanager
def range_api(leaked):
    """Run a service of leaked passwords; yield its address, and what it was asked for."""
    asked = []
    digests = {hashlib.sha1(password.encode()).hexdigest().upper() for password in leaked}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            prefix = self.path.rpartition("/")[2]
            asked.append(prefix)
            lines = [f"{digest[5:]}:7" for digest in digests if digest.startswith(prefix)]
            body = "\r\n".join([*lines, f"{'0' * 35}:0"]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{service.server_port}/range/", asked
        service.shutdown()


# --- those who guess -------------------------------------------------------------------------------


def test_asvs_6_1_1_it_is_written_down_how_guessing_is_held_off():
    page = (ROOT / "docs" / "backend.md").read_text()
    assert "6 in 15 minutes" in page
    assert "50 an hour" in page
    assert "100 an hour" in page
    assert "lock" in page


@everywhere
def test_asvs_6_3_1_a_guesser_is_stopped_and_the_owner_is_not(server, user):
    with server.client() as guesser, server.client() as owner:
        for _ in range(6):
            assert_error(login(guesser, user.email), 401, "UNAUTHORIZED")
        for _ in range(20):
            assert_error(login(guesser, user.email), 429, "RATE_LIMIT_EXCEEDED")
        assert user.get("/api/auth/me").status_code == 200  # who is logged in stays so
        assert login(owner, user.email, "correct horse battery").status_code == 200


def test_asvs_6_3_1_one_password_is_not_tried_on_a_thousand_accounts(server, client):
    statuses = [login(client, fresh_email()).status_code for _ in range(51)]
    assert statuses == [401] * 50 + [429]


def test_asvs_6_3_8_a_login_does_not_tell_who_has_an_account(server, user, client):
    known, unknown = login(client, user.email), login(client, fresh_email())
    assert known.status_code == unknown.status_code == 401
    assert told(known) == told(unknown)


def test_asvs_6_3_8_an_unknown_user_costs_a_hash_too():
    class Counting(argon2.PasswordHasher):
        checked = 0

        def verify(self, *args):
            self.checked += 1
            return super().verify(*args)

    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    passwords = Argon2Passwords(InThisThread("Hashing", threads=1, queue=0), hasher)
    assert not drive(passwords.verify("whatever", None))
    assert hasher.checked == 1


@pytest.mark.parametrize("path", ["register", "resend-otp", "forgot-password"])
def test_asvs_6_3_8_nor_does_any_other_answer(server, user, client, path):
    answers = [
        client.post(f"/api/auth/{path}", json={"email": email, "password": "a long enough one"})
        for email in random.sample([user.email, fresh_email()], 2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert told(answers[0]) == told(answers[1])


@pytest.mark.parametrize("path", ["verify-email", "reset-password"])
def test_asvs_6_3_8_nor_does_a_wrong_code(server, user, client, path):
    answers = [
        client.post(
            f"/api/auth/{path}", json={"email": email, "code": "000000", "password": "a long enough one"}
        )
        for email in (user.email, fresh_email())
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert told(answers[0]) == told(answers[1])


def told(answer):
    """Return what an answer tells but for what is drawn anew each time: names of headers, and the body."""
    always_new = {"requestId", "timestamp", "registration"}
    body = {name: value for name, value in answer.json().items() if name not in always_new}
    return sorted(answer.headers), len(answer.content), body
