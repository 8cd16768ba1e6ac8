"""A request's body on its way in: how long it may be, and how long it may take.

Rules:
    - What its length says is believed for refusing only: a body that is declared too long is refused before
      any of it is read, and one that turns out too long as soon as it does, whatever was declared.
    - Time counts while the application waits for the body, not while it does something else in between.
    - After a refusal for its size, what still arrives is thrown away for a moment: a connection that is
      closed on a client while it sends takes the answer with it. Then the connection ends.
    - A refusal is final. Whatever the application makes of it, the client gets the refusal, as long as no
      response has started.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from resilience.errors import ErrorCode, ServiceError
from resilience.http import code_for_status

if TYPE_CHECKING:
    from collections.abc import Iterable

LINGER: Final = 1.0
"""Seconds that a client which is told that its body is too large may go on sending it."""

_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_TOO_SLOW: Final = code_for_status(408)
_TOO_LARGE: Final = code_for_status(413)


class Intake:
    """What is known about the body of one request; it belongs to that request only.

    Args:
        lengths: What the headers declare, unchecked: one length, or none.
        max_body: Bytes that the body may have; None for any number.
        body_timeout: Seconds that the application waits for the body, in all; None for as long as it takes.
    """

    __slots__ = ("declared", "is_complete", "left", "max_body", "received", "refusal")

    def __init__(self, lengths: Iterable[str], max_body: int | None, body_timeout: float | None) -> None:
        self.max_body = max_body
        self.left = body_timeout
        """Seconds that the application may still wait."""
        self.declared: int | None = None
        """Bytes, as the headers have it."""
        self.received = 0
        self.is_complete = False
        self.refusal: ServiceError | None = None
        """What the client is told about its body, once something is wrong with it."""
        for length in set(lengths):
            if self.declared is not None or not _LENGTH.fullmatch(length):
                self.refuse(ErrorCode.BAD_REQUEST, "The Content-Length is malformed")
                break
            self.declared = int(length)
        if max_body is not None and (self.declared or 0) > max_body:
            self.refuse(_TOO_LARGE)

    def refuse(self, code: ErrorCode, message: str | None = None) -> ServiceError:
        """Note why the body is refused, and return what to raise; the first reason counts."""
        self.refusal = self.refusal or ServiceError(message, code)
        return self.refusal

    def take(self, size: int) -> None:
        """Count a piece of the body.

        Raises:
            ServiceError: The body is longer than it may be.
        """
        self.received += size
        if self.max_body is not None and self.received > self.max_body:
            raise self.refuse(_TOO_LARGE)
        if self.declared is not None and self.received > self.declared:
            raise self.refuse(ErrorCode.BAD_REQUEST, "The body is longer than its Content-Length")

    def end(self) -> None:
        """Note that nothing more comes.

        Raises:
            ServiceError: Something is missing.
        """
        self.is_complete = True
        if self.received < (self.declared or 0):
            raise self.refuse(ErrorCode.BAD_REQUEST, "The body is shorter than its Content-Length")

    @property
    def is_arriving(self) -> bool:
        """Whether a body that is too large may still be on its way."""
        return self.refusal is not None and self.refusal.code == _TOO_LARGE and not self.is_complete

    def spend(self, seconds: float) -> None:
        """Count time that the application waited for a piece."""
        if self.left is not None:
            self.left -= seconds

    def expire(self) -> ServiceError:
        """Note that the body took too long, and return what to raise."""
        return self.refuse(_TOO_SLOW)
