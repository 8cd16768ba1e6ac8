from __future__ import annotations

import hashlib

import pytest

from resilience.janitor.sessions import Lifetimes, Session, is_unicode, new_token, session_id_of


def test_an_id_is_the_sha256_of_the_token():
    assert session_id_of("secret") == hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize("token", ["", "\0", "é", "\ud800", "x" * 100_000])
def test_whatever_a_client_sends_has_an_id(token):
    assert len(session_id_of(token)) == 64


def test_half_of_a_surrogate_pair_is_not_unicode():
    assert all(map(is_unicode, ["", "\0", "é", "\U0001f600"]))
    assert not is_unicode("\ud83d")


def test_a_token_is_long_and_new_each_time():
    tokens = {new_token() for _ in range(50)}

    assert len(tokens) == 50
    assert {len(token) for token in tokens} == {43}


# --- when a renewal is worth a write ---------------------------------------------------------------

LIFETIMES = Lifetimes(idle_timeout=100.0, absolute_lifetime=1000.0)


def session(expires_at):
    return Session("5e55", "ada", {}, created_at=0.0, expires_at=expires_at, ends_at=1000.0)


@pytest.mark.parametrize(
    ("now", "expires_at", "renewed"),
    [
        (50.0, 140.0, 150.0),  # a tenth of the idle timeout
        (50.0, 141.0, None),
        (950.0, 995.0, 1000.0),  # less, but as far as it goes
        (950.0, 1000.0, None),
        (10.0, 300.0, None),  # a clock that was set back shortens nothing
    ],
)
def test_a_renewal_is_worth_a_write_after_a_tenth_or_at_the_very_end(now, expires_at, renewed):
    assert LIFETIMES.renewed(session(expires_at), now) == renewed


def test_lifetimes_must_make_sense():
    assert Lifetimes.checked(60, 60) == (60.0, 60.0)
    with pytest.raises(ValueError, match="idle_timeout"):
        Lifetimes.checked(61.0, 60.0)
    with pytest.raises(ValueError, match="absolute_lifetime"):
        Lifetimes.checked(1.0, float("inf"))
