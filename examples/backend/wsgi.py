"""The WSGI shell: Flask turns its request into ours, and our reply into its response. Nothing else.

Each request has its thread, in which its coroutine runs from beginning to end without ever suspending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import flask
from werkzeug.exceptions import NotFound
from werkzeug.routing import Rule

from examples.adapters.wsgi import ResilienceMiddleware
from examples.backend.api import PATHS
from examples.backend.api.dispatch import answer_at
from examples.backend.api.http import PARAMETER, Incoming, body_of
from examples.backend.api.standing import StandingHeaders
from examples.backend.api.webhooks import path_for_log
from examples.backend.kit import drive
from examples.backend.serving.websocket_wsgi import SocketResponse
from resilience import ErrorCode, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from examples.backend.api.http import Reply, Route
    from examples.backend.assembly import Backend

    WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def create_app(backend: Backend) -> WSGIApp:
    """Return the backend as a WSGI application; whoever serves it starts and closes the backend."""
    settings = backend.settings
    app = flask.Flask("examples.backend", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True  # the adapter has an answer for every error
    app.url_map.merge_slashes = False
    for path, routes in PATHS.items():
        # A rule of werkzeug's without methods leaves all of them to us; one of Flask's would have GET only.
        app.url_map.add(Rule(PARAMETER.sub(r"<\1>", path), endpoint=path))
        app.view_functions[path] = endpoint(backend, routes)
    app.add_url_rule("/api/live", "live_socket", live_socket(backend), websocket=True)
    app.register_error_handler(NotFound, nowhere)
    answering = ResilienceMiddleware(
        app,
        development=settings.environment == "development",
        max_body=settings.max_body,
        body_timeout=settings.body_timeout,
        path_for_log=path_for_log,
    )
    return WithStandingHeaders(answering, StandingHeaders(settings))


def endpoint(backend: Backend, routes: Mapping[str, Route]) -> Callable[..., flask.Response]:
    """Return what answers the requests to one path under Flask."""

    def answered(**parameters: str) -> flask.Response:
        return response_of(drive(answer_at(backend, routes, incoming_of(flask.request, parameters))))

    return answered


def live_socket(backend: Backend) -> Callable[[], SocketResponse]:
    """Return what serves the WebSockets under Flask."""

    def opened() -> SocketResponse:
        return SocketResponse(backend, incoming_of(flask.request, {}))

    return opened


def nowhere(_error: NotFound) -> flask.Response:
    """Answer a request to a path that nobody has."""
    raise ServiceError(code=ErrorCode.NOT_FOUND)


def incoming_of(request: flask.Request, parameters: dict[str, str]) -> Incoming:
    """Return a request of Flask's as ours."""

    async def read() -> bytes:
        return request.get_data(cache=False)

    return Incoming(
        method=request.environ["REQUEST_METHOD"],  # werkzeug would have it in capitals
        path=request.environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace"),  # as it was sent
        parameters=parameters,
        query=request.query_string.decode("latin-1"),
        headers=request.headers,
        peer=request.remote_addr,
        read=read,
    )


def response_of(reply: Reply) -> flask.Response:
    """Return our reply as a response of Flask's."""
    content: Any = reply.content
    body = Pieces(content) if hasattr(content, "__aiter__") else body_of(content)
    response = OurResponse(body, reply.status, reply.headers, content_type=reply.media_type)
    for cookie in reply.cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


class OurResponse(flask.Response):
    """A response that is of no type unless it is told one."""

    default_mimetype = None


class Pieces:
    """What an asynchronous iterator yields that never suspends, as a body that the server closes in the end.

    No generator: one that was never begun is closed without a word to what it would have iterated over.
    """

    def __init__(self, content: Any) -> None:
        self._content = content

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        try:
            return drive(anext_of(self._content))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Close the source, whether all, some or none of it was sent."""
        drive(self._content.aclose())


async def anext_of(content: AsyncIterator[bytes]) -> bytes:
    """Return the next piece; `drive` takes coroutines only, and this makes one of any awaitable."""
    return await anext(content)


class WithStandingHeaders:
    """Adds to each response the headers that all have."""

    def __init__(self, app: WSGIApp, standing: StandingHeaders) -> None:
        self._app = app
        self._standing = standing

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            names = (name.lower() for name, _ in headers)
            missing = self._standing.missing(int(status[:3]), names)
            return start_response(status, [*headers, *missing], *exc_info)

        return self._app(environ, start)
