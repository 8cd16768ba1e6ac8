from __future__ import annotations

import pytest

from resilience._core import taxonomy
from resilience._core.overload import OWN_POOL, SIGNS, STATUSES, tells_overload


@pytest.mark.parametrize(
    "reason",
    ["HTTP 503", "HTTP 429", "gRPC UNAVAILABLE", "AWS SlowDown", "TimeoutError", "requests.ConnectTimeout"],
)
def test_what_tells_an_overload(reason):
    assert tells_overload(reason)


@pytest.mark.parametrize(
    "reason", ["HTTP 500", "errno ECONNREFUSED", "SQLSTATE 40001", "ValueError", *sorted(OWN_POOL)]
)
def test_what_does_not(reason):
    assert not tells_overload(reason)


def test_every_sign_is_one_that_can_be_told():
    """A sign that `classify` never gives would be a rule that never holds."""
    told = {
        *(f"HTTP {status}" for status in STATUSES),
        *(f"gRPC {name}" for name in taxonomy.GRPC),
        *(f"AWS {code}" for code in taxonomy.AWS),
        *(f"libpq: {words}" for words in taxonomy.LIBPQ_TRANSIENT),
        *(f"object store: {kind}" for kind in taxonomy.OBJECT_STORE),
        *(f"WebSocket close code {code}" for code in taxonomy.WEBSOCKET),
        *(f"errno {name}" for name, _ in taxonomy.ERRNO.values()),
        *(f"message {words!r}" for words in taxonomy.MESSAGES),
        *(f"resilience.{name}" for name in taxonomy.TYPES["resilience"]),
    }
    by_any_code = {sign for sign in SIGNS if sign.startswith(("SQLSTATE", "MySQL"))}
    assert set(SIGNS) - by_any_code <= told
