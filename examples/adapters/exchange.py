"""One request and its answer: what the ASGI and the WSGI wrapper have in common.

Rules:
    - Every error is answered in the library's form, whether the application raised it or a framework
      wrote it. What a framework did not write by itself is left alone: an error with a media type of its
      own, such as `application/health+json`, or with the library's body already.
    - An answer that stands in for a framework's keeps its headers (`Allow`, `WWW-Authenticate`,
      `Retry-After`, `Set-Cookie`, CORS, …) but those that described its body.
    - What went wrong inside is logged, once, with the request's id; the client gets the id only.
"""

from __future__ import annotations

import logging
import traceback
import zlib
from contextlib import ExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from resilience import checks, http
from resilience.clock import SYSTEM_CLOCK
from resilience.criticality import Criticality
from resilience.http.headers import limit_headers
from resilience.http.propagation import criticality_from, deadline_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience import Decision
    from resilience.clock import Clock
    from resilience.errors import ServiceError
    from resilience.http.headers import Headers, Style

    HeaderList = list[tuple[str, str]]
    Mapper = Callable[[Exception], ServiceError]

_log: Final = logging.getLogger("resilience.http")

LARGEST_BODY: Final = 64 * 1024
"""Bytes of a framework's own error body that are read for its message; the rest is dropped."""

_GZIP_OR_DEFLATE: Final = 32 + zlib.MAX_WBITS
"""Has zlib find out by itself which of the two it reads."""

_FRAMEWORK_TYPES: Final = frozenset({"", "text/plain", "text/html", "application/json"})
_ABOUT_THE_BODY: Final = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "etag",
        "expires",
        "last-modified",
        "transfer-encoding",
    }
)

CURRENT: Final[ContextVar[Exchange | None]] = ContextVar("resilience_exchange", default=None)


def request_id() -> str | None:
    """Return the id of the request that this code runs for; None outside of any."""
    exchange = CURRENT.get()
    return None if exchange is None else exchange.request_id


def note(decision: Decision) -> None:
    """Have the figures of a limiter's decision sent with the answer to the present request, if any."""
    exchange = CURRENT.get()
    if exchange is not None:
        exchange.decisions.append(decision)


class Settings(NamedTuple):
    """How errors are answered, what a request's body may be, and what its caller may ask for."""

    development: bool = False
    """Whether to show details and what is internal."""
    mapper: Mapper = http.to_service_error
    """What turns any exception into the error to answer with."""
    style: Style = "x"
    """Which rate-limit headers: `"x"`, `"ietf"` or `"both"`."""
    clock: Clock = SYSTEM_CLOCK
    """Where the wall time of the timestamps comes from, and how long a body took."""
    max_body: int | None = None
    """Bytes that a request's body may have."""
    body_timeout: float | None = None
    """Seconds that are waited for a request's body, in all."""
    path_for_log: Callable[[str], str] = str
    """Returns a path as it may be logged: some have a secret in them."""
    request_timeout: float | None = None
    """Seconds that a request may take, at most."""
    most_critical: Criticality | str | None = None
    """The most that a request may claim to matter."""

    def checked(self) -> Settings:
        """Return the settings, if the bounds are ones that can be kept."""
        if self.max_body is not None:
            checks.count("max_body", self.max_body, least=0)
        if self.body_timeout is not None:
            checks.number("body_timeout", self.body_timeout, above=0)
        if self.request_timeout is not None:
            checks.number("request_timeout", self.request_timeout, above=0)
        if self.most_critical is not None:
            Criticality.of(self.most_critical)
        return self

    def heeding(self, headers: Headers, *, timed: bool = True) -> ExitStack:
        """Begin a block with the deadline and the criticality that a request asks for, as far as they count.

        Args:
            headers: The request's.
            timed: Whether it is one that has to end.

        Raises:
            DeadlineExceeded: Its caller has no time left.
        """
        with ExitStack() as block:
            if timed and self.request_timeout is not None:
                block.enter_context(deadline_from(headers, self.request_timeout, clock=self.clock))
            if self.most_critical is not None:
                block.enter_context(criticality_from(headers, most=self.most_critical))
            return block.pop_all()


class Exchange:
    """One request and what is known about its answer; it belongs to that request only.

    Args:
        settings: How errors are answered, and what the request's body may be.
        method: The request's method.
        path: Its path, decoded, as bytes.
        accept: Its `Accept` header; several lines joined by commas.
        proposed_id: The request id that the client sent, unchecked.
    """

    __slots__ = ("_accept", "_method", "_path", "decisions", "request_id", "settings")

    def __init__(
        self, settings: Settings, method: str, path: bytes, accept: str | None, proposed_id: str | None
    ) -> None:
        self.request_id = http.request_id(proposed_id)
        self.decisions: list[Decision] = []
        self.settings = settings
        self._method = method
        self._path = path
        self._accept = accept

    @property
    def bodiless(self) -> bool:
        """Whether an answer has headers only."""
        return self._method == "HEAD"

    def error_from(self, exception: Exception) -> ServiceError:
        """Return the error to answer with; log what is not the client's doing."""
        error = self.settings.mapper(exception)
        if error.status == 500:  # noqa: PLR2004 - Internal Server Error
            self.log_failure("failed", exception if error is exception else error.__cause__ or exception)
        elif error.status > 500:  # noqa: PLR2004 - a dependency's failure, a deadline
            cause = error.__cause__ or error
            self._log(logging.WARNING, f"answered {error.status}: {http.one_line(repr(cause))}")
        return error

    def response_for(self, error: ServiceError) -> http.ErrorResponse:
        """Return the response that tells `error`."""
        settings = self.settings
        response = http.error_response(
            error,
            request_id=self.request_id,
            accept=self._accept,
            instance=quote(self._path),
            development=settings.development,
            decisions=self.decisions,
            style=settings.style,
            clock=settings.clock,
        )
        if not self.bodiless:
            return response
        headers = [header for header in response.headers if header[0] != "Content-Length"]
        return http.ErrorResponse(response.status, headers, b"")

    def is_framework_error(self, status: int, headers: HeaderList) -> bool:
        """Return whether a response is an error that a framework may have written by itself."""
        if status < 400:  # noqa: PLR2004 - no error
            return False
        media_type = next((value for name, value in headers if name.lower() == "content-type"), "")
        return media_type.partition(";")[0].strip().lower() in _FRAMEWORK_TYPES

    def replacement(self, status: int, headers: HeaderList, body: bytes) -> http.ErrorResponse:
        """Return what to send in place of a framework's own error response."""
        readable = _decompressed(headers, body)
        if http.is_error_body(readable):
            return http.ErrorResponse(status, self.with_own_headers(status, headers), body)
        response = self.response_for(http.parse_error(status, headers, readable, clock=self.settings.clock))
        ours = {name.lower() for name, _ in response.headers}
        kept = [
            (name, value)
            for name, value in headers
            if name.lower() not in ours and name.lower() not in _ABOUT_THE_BODY
        ]
        return response._replace(headers=[*response.headers, *kept])

    def with_own_headers(self, status: int, headers: HeaderList) -> HeaderList:
        """Return the headers of a response that passes, with the request id and the rate limits added."""
        limits = limit_headers(status, self.decisions, self.settings.style, self.settings.clock)
        present = {name.lower() for name, _ in headers}
        return [
            *((name, value) for name, value in headers if name.lower() != "x-request-id"),
            *((name, value) for name, value in limits.items() if name.lower() not in present),
            ("X-Request-Id", self.request_id),
        ]

    def log_failure(self, what: str, exception: BaseException) -> None:
        """Log what was not the client's doing, with its traceback."""
        self._log(logging.ERROR, what, exception)

    def _log(self, level: int, what: str, exception: BaseException | None = None) -> None:
        """Log one line, and the traceback below it such that no line of it can pass for another record."""
        if not _log.isEnabledFor(level):
            return
        path = http.one_line(self.settings.path_for_log(self._path.decode("utf-8", "replace")))
        message = f"request {self.request_id} {what}: {http.one_line(self._method)} {path}"
        exc_info = None if exception is None else (type(exception), exception, exception.__traceback__)
        record = _log.makeRecord(_log.name, level, __file__, 0, message, (), exc_info)
        if exception is not None:
            lines = "".join(traceback.format_exception(exception)).splitlines()
            record.exc_text = "\n".join(f"  | {http.one_line(line)}" for line in lines)
        _log.handle(record)


def _decompressed(headers: HeaderList, body: bytes) -> bytes:
    """Return a body as it was before an inner middleware compressed it; nothing if it cannot be read.

    No more is unpacked than an error has use for, however much a few bytes may stand for.
    """
    coding = next((value for name, value in headers if name.lower() == "content-encoding"), "").lower()
    if coding in {"", "identity"}:
        return body
    try:
        return zlib.decompressobj(_GZIP_OR_DEFLATE).decompress(body, LARGEST_BODY + 1)
    except zlib.error:
        return b""
