"""The library's errors, request ids and limits for any WSGI application.

Wrap it around everything else. The server's `start_response` is called with the first piece of the body,
so that whatever fails before is still answered properly; after it, a failure is logged and goes up to the
server, which ends the connection.

Flask answers exceptions itself: set `app.config["PROPAGATE_EXCEPTIONS"] = True`, and they arrive here.

WSGI knows no time: a read of the request's body blocks until the bytes are there. `body_timeout` ends it by
shutting the receiving side of the connection, where the server lets it be reached (gunicorn and werkzeug do).
With other servers it is looked at between two reads only, and the server's own limit has to end the read.
"""

from __future__ import annotations

from contextvars import copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from examples.adapters.exchange import CURRENT, LARGEST_BODY, Exchange, Settings
from examples.adapters.intake import LINGER, Intake
from examples.adapters.wsgi_input import Input
from resilience.clock import SYSTEM_CLOCK
from resilience.http import to_service_error
from resilience.http.propagation import CRITICALITY_HEADER, TIMEOUT_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import Context
    from types import TracebackType

    from examples.adapters.exchange import HeaderList, Mapper
    from resilience.clock import Clock
    from resilience.criticality import Criticality
    from resilience.http import ErrorResponse
    from resilience.http.headers import Style

    Environ = dict[str, Any]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
    Write = Callable[[bytes], object]
    StartResponse = Callable[..., Write]
    Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class ResilienceMiddleware:
    """Answers every error of `app` in the library's form.

    The request's id is in `environ["resilience.request_id"]`, in the header `X-Request-Id` both ways, and
    in `examples.adapters.request_id()`.

    Args:
        app: The application, with all its own middleware.
        development: Whether to show details and what is internal.
        mapper: What turns any exception into the error to answer with.
        style: Which rate-limit headers: `"x"`, `"ietf"` or `"both"`.
        clock: Where the wall time of the timestamps comes from, and how long a body took.
        max_body: Bytes that a request's body may have, else it is answered 413; None for any number.
        body_timeout: Seconds that are waited for a request's body, in all, else it is answered 408; None for
            as long as it takes.
        path_for_log: Returns a request's path as it may be logged: some have a secret in them.
        request_timeout: Seconds that a request may take, or less where `X-Request-Timeout` asks for less: the
            deadline of its context. One that comes with no time left is answered 504. None for no deadline.
        most_critical: The most that a request may claim to matter in `X-Criticality`, such as `"critical"`;
            None to believe none.
    """

    def __init__(
        self,
        app: Application,
        *,
        development: bool = False,
        mapper: Mapper = to_service_error,
        style: Style = "x",
        clock: Clock = SYSTEM_CLOCK,
        max_body: int | None = None,
        body_timeout: float | None = None,
        path_for_log: Callable[[str], str] = str,
        request_timeout: float | None = None,
        most_critical: Criticality | str | None = None,
    ) -> None:
        self._app = app
        self._settings = Settings(
            development,
            mapper,
            style,
            clock,
            max_body,
            body_timeout,
            path_for_log,
            request_timeout,
            most_critical,
        ).checked()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        exchange = Exchange(
            self._settings,
            environ["REQUEST_METHOD"],
            path.encode("latin-1", "replace"),
            environ.get("HTTP_ACCEPT"),
            environ.get("HTTP_X_REQUEST_ID"),
        )
        environ["HTTP_X_REQUEST_ID"] = environ["resilience.request_id"] = exchange.request_id
        context = copy_context()
        context.run(CURRENT.set, exchange)
        length = environ.get("CONTENT_LENGTH")
        intake = Intake([length] if length else [], self._settings.max_body, self._settings.body_timeout)
        environ["wsgi.input"] = source = Input(environ, intake, self._settings.clock)
        response = _Response(exchange, intake, source, context, start_response)
        try:
            context.run(self._settings.heeding, _propagated(environ))  # the context ends with the response
            response.require_body()
            chunks = context.run(self._app, environ, response.start)
        except Exception as exception:  # noqa: BLE001 - any failure has an answer
            return response.fail(exception)
        return response.body(chunks, environ.get("wsgi.file_wrapper"))


class _Response:
    """The response to one request, and the iterator over its body."""

    def __init__(
        self,
        exchange: Exchange,
        intake: Intake,
        source: Input,
        context: Context,
        start_response: StartResponse,
    ) -> None:
        self._exchange = exchange
        self._intake = intake
        self._source = source
        self._context = context
        self._start_response = start_response
        self._status = ""
        self._headers: HeaderList = []
        self._is_error = False
        self._held = bytearray()
        self._write: Write | None = None
        self._chunks: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())

    # --- what the application calls ---

    def start(self, status: str, headers: HeaderList, exc_info: ExcInfo | None = None) -> Write:
        """Take note of status and headers; the server gets them with the body."""
        if self._write is not None:  # too late for other headers: with exc_info, the server raises it
            return self._start_response(status, headers, exc_info)
        if self._status and exc_info is None:
            raise RuntimeError("start_response was called again without exc_info")
        self._status, self._headers = status, headers
        self._is_error = self._exchange.is_framework_error(int(status[:3]), headers)
        self._held.clear()
        return self._written

    def _written(self, chunk: bytes) -> None:
        if self._is_error:
            self._hold(chunk)
        else:
            self._sending()(chunk)

    def _hold(self, chunk: bytes) -> None:
        self._held += chunk[: LARGEST_BODY + 1 - len(self._held)]

    # --- what the server calls ---

    def body(self, chunks: Iterable[bytes], file_wrapper: Any) -> Iterable[bytes]:
        """Return the body for the server; what cannot fail on the way is handed through as it is."""
        is_file = isinstance(file_wrapper, type) and isinstance(chunks, file_wrapper)
        is_sound = bool(self._status) and not self._is_error and self._intake.refusal is None
        if is_sound and (is_file or isinstance(chunks, list | tuple)):
            self._sending()
            return chunks
        self._chunks = chunks
        self._iterator = self._pieces()
        return self

    def __iter__(self) -> Iterator[bytes]:
        """Return itself: there is one body, however often it is asked for."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece of the body."""
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        """Close the application's body, whether it was iterated over or not."""
        close = getattr(self._chunks, "close", None)
        if close is not None:
            self._context.run(close)

    def require_body(self) -> None:
        """Raise what is wrong with the request's body, if anything is known to be, and can still be told."""
        if self._intake.refusal is not None and self._write is None:
            raise self._intake.refusal

    def fail(self, exception: Exception) -> Iterable[bytes]:
        """Answer with the error that `exception` stands for, unless the response has started."""
        if self._write is not None:
            self._exchange.log_failure("failed when its response had started", exception)
            raise exception
        error = self._exchange.error_from(exception)
        pieces = self._respond(self._exchange.response_for(self._intake.refusal or error))
        return self._parting(pieces) if self._intake.is_arriving else pieces

    def _parting(self, pieces: list[bytes]) -> Iterator[bytes]:
        """Answer; when the server asks for more, it has sent that."""
        yield from pieces
        self._source.discard(LINGER)

    # --- the body ---

    def _pieces(self) -> Iterator[bytes]:
        try:
            for chunk in self._chunks:
                if self._is_error:
                    self._hold(chunk)
                elif chunk:
                    self._sending()
                    yield chunk
            yield from self._rest()
        except Exception as exception:  # noqa: BLE001 - any failure has an answer
            yield from self.fail(exception)

    def _rest(self) -> list[bytes]:
        self.require_body()
        if self._is_error:
            return self._respond(
                self._exchange.replacement(int(self._status[:3]), self._headers, bytes(self._held))
            )
        self._sending()
        return []

    def _sending(self) -> Write:
        """Have the server begin the response, unless it has."""
        if self._write is None:
            self.require_body()
            if not self._status:
                raise RuntimeError("the application returned without calling start_response")
            headers = self._exchange.with_own_headers(int(self._status[:3]), self._headers)
            self._write = self._start_response(self._status, headers)
        return self._write

    def _respond(self, response: ErrorResponse) -> list[bytes]:
        status = f"{response.status} {_phrase(response.status)}"
        self._write = self._start_response(status, response.headers)
        return [response.body] if response.body else []


def _propagated(environ: Environ) -> list[tuple[str, str]]:
    """Return the headers by which a caller says how long it waits, and how much the request matters."""
    names = (TIMEOUT_HEADER, CRITICALITY_HEADER)
    told = ((name, environ.get(f"HTTP_{name.upper().replace('-', '_')}")) for name in names)
    return [(name, value) for name, value in told if value is not None]


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
