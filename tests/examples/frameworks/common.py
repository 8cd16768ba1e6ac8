"""What every framework's application shares: the decisions it notes, and what it promises.

Each module `on_<framework>.py` is the same small application, written as that framework's users would write
it, wrapped once. These are its routes:

    GET  /ok         answers {"id": request_id()}, and notes ALLOWED
    GET  /missing    raises the library's own error
    GET  /limited    raises the limiter's
    GET  /boom       fails with what nobody expected
    GET  /grouped    fails inside a task group
    GET  /teapot     raises the framework's own HTTP exception: 401, "Who are you?", WWW-Authenticate
    GET  /number     asks for a number in the query, the framework's way
    GET  /stream     answers three pieces
    GET  /torn       answers one piece and fails
    POST /json       reads JSON the framework's way, and returns it
    POST /form       reads a form the framework's way, and returns the number of its fields
    POST /raw        reads the raw body, and returns its length
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience._core.quota import Decision, Quota
from resilience.errors import RateLimitedError, not_found_error

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED = Decision.of(True, Quota(6, per=900.0), "login", remaining=3, reset_after=42.0)
REFUSED = Decision.of(False, Quota(6, per=900.0), "login", remaining=0, reset_after=60.0, retry_after=12.1)

BOUNDS = {"max_body": 2_000_000, "body_timeout": 0.5}
"""Bytes, and seconds. Forms of ten thousand parts fit, so that the frameworks have their say."""

PIECES = (b"one ", b"two ", b"three")


def missing() -> None:
    raise not_found_error("User")


def limited() -> None:
    raise RateLimitedError(REFUSED)


def boom() -> None:
    raise KeyError("/srv/secret")


def grouped() -> None:
    """Fail as code without an event loop can: with the group itself."""
    raise ExceptionGroup("tasks", [not_found_error("User")])


def pieces() -> Iterator[bytes]:
    yield from PIECES


def torn() -> Iterator[bytes]:
    yield PIECES[0]
    boom()
