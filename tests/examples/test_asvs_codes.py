"""OWASP ASVS 5.0, 6.5 and 6.6: codes that are sent by mail; see docs/asvs.md."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import time

import pytest

from examples.backend.domain.codes import OneTimeCodes, Purpose
from tests.examples.backend_process import PASSWORD, assert_error, everywhere, fresh_email, login


def verify(client, email, code, **more):
    return client.post("/api/auth/verify-email", json={"email": email, "code": code, **more})


def wrong(code):
    return f"{(int(code) + 1) % 1_000_000:06}"


@pytest.fixture
def newcomer(server, client):
    """The address of somebody who has registered, and awaits a code."""
    email = fresh_email()
    assert client.post("/api/auth/register", json={"email": email, "password": PASSWORD}).status_code == 202
    return email


def kept(server, email):
    """Return what the database keeps of somebody's code."""
    with sqlite3.connect(server.var / "data.db") as db:
        db.row_factory = sqlite3.Row
        [row] = db.execute(
            "SELECT codes.* FROM codes JOIN users ON users.id = user_id WHERE email = ?", [email]
        )
    db.close()
    return dict(row)


@everywhere
def test_asvs_6_5_1_a_code_works_once(server, client, newcomer):
    code = server.code_for(newcomer)
    assert verify(client, newcomer, code).status_code == 200
    assert_error(verify(client, newcomer, code), 400, "VALIDATION_ERROR")


def test_asvs_6_5_1_so_does_one_that_resets_a_password(server, user, client):
    assert client.post("/api/auth/forgot-password", json={"email": user.email}).status_code == 202
    reset = {"email": user.email, "code": server.code_for(user.email, 2), "password": "another long one"}
    assert client.post("/api/auth/reset-password", json=reset).status_code == 200
    assert_error(client.post("/api/auth/reset-password", json=reset), 400, "VALIDATION_ERROR")
    assert login(client, user.email, "another long one").status_code == 200


def test_asvs_6_5_2_of_a_code_only_a_keyed_hash_is_stored(server, newcomer):
    code, row = server.code_for(newcomer), kept(server, newcomer)
    assert code not in map(str, row.values())
    assert len(row["hash"]) == hashlib.sha256().digest_size
    guesses = [code, f"{newcomer}{code}", f"{newcomer}\0{code}", f"verify-email\0{newcomer}\0{code}"]
    assert row["hash"] not in [hashlib.sha256(guess.encode()).digest() for guess in guesses]
    one, other = (
        OneTimeCodes(key * 32).hash_of(Purpose.VERIFY_EMAIL, newcomer, code) for key in (b"a", b"b")
    )
    assert one != other  # so without the key nobody can try all


def test_asvs_6_5_3_codes_do_not_come_from_a_generator_that_can_be_seeded():
    codes = OneTimeCodes(b"k" * 32)

    def drawn():
        random.seed(7)
        return [codes.issue(Purpose.VERIFY_EMAIL, "ada@example.com", now=0.0).digits for _ in range(20)]

    assert drawn() != drawn()


def test_asvs_6_5_4_a_code_is_any_six_digits():
    codes = OneTimeCodes(b"k" * 32)
    drawn = [codes.issue(Purpose.VERIFY_EMAIL, "ada@example.com", now=0.0).digits for _ in range(5000)]
    assert all(len(code) == 6 and code.isdecimal() for code in drawn)
    assert len(set(drawn)) > 4900  # of a million, some dozen come twice
    for place in range(6):
        assert {code[place] for code in drawn} == set("0123456789")


def test_asvs_6_5_5_a_code_lives_ten_minutes_at_most(server, newcomer):
    assert server.code_for(newcomer)
    assert 0 < kept(server, newcomer)["expires_at"] - time.time() <= 600


def test_asvs_6_6_2_a_new_code_ends_the_old_one(server, client, newcomer):
    old = server.code_for(newcomer)
    assert client.post("/api/auth/resend-otp", json={"email": newcomer}).status_code == 202
    new = server.code_for(newcomer, 2)
    if old != new:  # but once in a million times
        assert_error(verify(client, newcomer, old), 400, "VALIDATION_ERROR")
    assert verify(client, newcomer, new).status_code == 200


def test_asvs_6_6_2_a_code_is_for_its_registration_its_address_and_its_purpose(server, client, newcomer):
    code = server.code_for(newcomer)
    assert_error(verify(client, newcomer, code, registration="another"), 400, "VALIDATION_ERROR")
    assert_error(verify(client, fresh_email(), code), 400, "VALIDATION_ERROR")
    reset = {"email": newcomer, "code": code, "password": "another long one"}
    assert_error(client.post("/api/auth/reset-password", json=reset), 400, "VALIDATION_ERROR")
    assert verify(client, newcomer, code).status_code == 200


@everywhere
def test_asvs_6_6_3_after_five_guesses_the_right_code_does_not_help(server, client, newcomer):
    code = server.code_for(newcomer)
    for _ in range(5):
        assert verify(client, newcomer, wrong(code)).status_code == 400
    with server.client() as elsewhere:
        assert_error(verify(elsewhere, newcomer, code), 429, "RATE_LIMIT_EXCEEDED")


def test_asvs_6_6_3_another_code_brings_no_other_guesses(server, client, newcomer):
    for number in (1, 2):
        code = server.code_for(newcomer, number)
        for _ in range(2):
            assert verify(client, newcomer, wrong(code)).status_code == 400
        assert client.post("/api/auth/resend-otp", json={"email": newcomer}).status_code == 202
    code = server.code_for(newcomer, 3)
    assert verify(client, newcomer, wrong(code)).status_code == 400
    assert verify(client, newcomer, code).status_code in {400, 429}
