"""The WSGI shell: Flask turns its request into ours, and our reply into its response. Nothing else.

Each request has its thread, in which its coroutine runs from beginning to end without ever suspending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flask

from examples.adapters.wsgi import ResilienceMiddleware
from examples.backend.api import ROUTES
from examples.backend.api.dispatch import answer
from examples.backend.api.http import PARAMETER, Incoming, body_of
from examples.backend.kit import drive
from examples.backend.serving.websocket_wsgi import SocketResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from examples.backend.api.http import Reply, Route
    from examples.backend.assembly import Backend


def create_app(backend: Backend) -> ResilienceMiddleware:
    """Return the backend as a WSGI application; whoever serves it starts and closes the backend."""
    app = flask.Flask("examples.backend", static_folder=None)
    app.config["PROPAGATE_EXCEPTIONS"] = True  # the adapter has an answer for every error
    app.config["MAX_CONTENT_LENGTH"] = backend.settings.max_body
    app.url_map.strict_slashes = True
    for route in ROUTES:
        path = PARAMETER.sub(r"<\1>", route.path)
        app.add_url_rule(
            path,
            route.name,
            endpoint(backend, route),
            methods=[route.method],
            provide_automatic_options=False,
        )
    app.add_url_rule("/api/live", "live_socket", live_socket(backend), websocket=True)
    development = backend.settings.environment == "development"
    return ResilienceMiddleware(app, development=development)


def endpoint(backend: Backend, route: Route) -> Callable[..., flask.Response]:
    """Return what answers this route under Flask."""

    def answered(**parameters: str) -> flask.Response:
        return response_of(drive(answer(backend, route, incoming_of(flask.request, parameters))))

    return answered


def live_socket(backend: Backend) -> Callable[[], SocketResponse]:
    """Return what serves the WebSockets under Flask."""

    def opened() -> SocketResponse:
        return SocketResponse(backend, incoming_of(flask.request, {}))

    return opened


def incoming_of(request: flask.Request, parameters: dict[str, str]) -> Incoming:
    """Return a request of Flask's as ours."""

    async def read() -> bytes:
        return request.get_data(cache=False)

    return Incoming(
        method=request.method,
        path=request.path,
        parameters=parameters,
        query=request.query_string.decode("latin-1"),
        headers=request.headers,
        cookies=request.cookies,
        peer=request.remote_addr,
        read=read,
    )


def response_of(reply: Reply) -> flask.Response:
    """Return our reply as a response of Flask's."""
    content: Any = reply.content
    body = pieces_of(content) if hasattr(content, "__aiter__") else body_of(content)
    response = flask.Response(body, reply.status, reply.headers, content_type=reply.media_type)
    for cookie in reply.cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


def pieces_of(content: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Return what an asynchronous iterator yields that never suspends; it is closed in the end."""
    try:
        while True:
            try:
                yield drive(anext_of(content))
            except StopAsyncIteration:
                return
    finally:
        close = getattr(content, "aclose", None)
        if close is not None:
            drive(close())


async def anext_of(content: AsyncIterator[bytes]) -> bytes:
    """Return the next piece; `drive` takes coroutines only, and this makes one of any awaitable."""
    return await anext(content)
