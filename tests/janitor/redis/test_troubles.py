from __future__ import annotations

import pytest
from redis import exceptions as redis_errors

from resilience.janitor.redis.troubles import unavailable


@pytest.mark.parametrize(
    ("error", "words", "retry_after"),
    [
        (redis_errors.AuthenticationError("no"), "check the user and the password", None),
        (redis_errors.NoPermissionError("no"), "let this user run scripts", None),
        (redis_errors.ReadOnlyError("no"), "URL of the primary", 1.0),
        (redis_errors.OutOfMemoryError("no"), "it is full", 1.0),
        (redis_errors.BusyLoadingError("no"), "still reading", 1.0),
        (redis_errors.TimeoutError("no"), "did not answer in time", 1.0),
        (redis_errors.MaxConnectionsError("no"), "all connections are in use", 1.0),
        (redis_errors.ConnectionError("no"), "cannot be reached", 1.0),
        (redis_errors.MovedError("3999 127.0.0.1:6381"), "knows the Cluster", None),
        (
            redis_errors.ResponseError("Error running script: WRONGTYPE Operation against a key"),
            "choose another prefix",
            None,
        ),
    ],
)
def test_an_error_says_what_to_do(error, words, retry_after):
    raised = unavailable("db:6379", error)

    assert words in str(raised)
    assert str(raised).startswith(f"the sessions in db:6379 are unavailable: {error}; ")
    assert (raised.status, raised.retry_after) == (503, retry_after)


def test_an_error_that_nobody_knows_speaks_for_itself():
    raised = unavailable("db:6379", redis_errors.ResponseError("ERR odd"))

    assert str(raised) == "the sessions in db:6379 are unavailable: ERR odd"
