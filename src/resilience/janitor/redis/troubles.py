"""What redis-py's errors mean for a session store, and what to tell people."""

from __future__ import annotations

from typing import Final

from redis import exceptions as redis_errors

from resilience.stores import StoreUnavailable

_RETRY_AFTER: Final = 1.0  # seconds until it is worth asking again, as far as anybody can tell

_HELP: Final[tuple[tuple[type[Exception], bool, str], ...]] = (
    (redis_errors.AuthenticationError, False, "check the user and the password in the URL"),
    (redis_errors.NoPermissionError, False, "let this user run scripts, and read and write the store's keys"),
    (redis_errors.ReadOnlyError, True, "it is a replica: give the URL of the primary"),
    (redis_errors.OutOfMemoryError, True, "it is full: let it have more memory, or keep fewer sessions"),
    (redis_errors.BusyLoadingError, True, "it is still reading its data"),
    (redis_errors.TimeoutError, True, "it did not answer in time"),
    (redis_errors.MaxConnectionsError, True, "all connections are in use"),
    (redis_errors.ConnectionError, True, "it cannot be reached, or the connection was lost"),
    (redis_errors.MovedError, False, "it is one node of a Cluster: give a client that knows the Cluster"),
)
"""The kind of error, whether it may pass by itself, and what to say; the first that fits."""

_WRONG_TYPE: Final = "a key of the store belongs to somebody else: choose another prefix"


def unavailable(name: str, error: Exception) -> StoreUnavailable:
    """Return the error that says why the sessions in the server `name` are unavailable."""
    passes, help_ = False, ""
    for kind, may_pass, words in _HELP:
        if isinstance(error, kind):
            passes, help_ = may_pass, f"; {words}"
            break
    else:
        if "WRONGTYPE" in str(error):  # Redis 6 puts the name of the script before it
            help_ = f"; {_WRONG_TYPE}"
    return StoreUnavailable(
        f"the sessions in {name} are unavailable: {error}{help_}",
        retry_after=_RETRY_AFTER if passes else None,
    )
