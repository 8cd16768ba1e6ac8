from __future__ import annotations

import hashlib

import pytest

from resilience.janitor.sessions import session_id_of


def test_an_id_is_the_sha256_of_the_token():
    assert session_id_of("secret") == hashlib.sha256(b"secret").hexdigest()


@pytest.mark.parametrize("token", ["", "\0", "é", "\ud800", "x" * 100_000])
def test_whatever_a_client_sends_has_an_id(token):
    assert len(session_id_of(token)) == 64
