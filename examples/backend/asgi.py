"""The ASGI shell: FastAPI turns its request into ours, and our reply into its response. Nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from examples.adapters.asgi import ResilienceMiddleware
from examples.backend.api import PATHS
from examples.backend.api.dispatch import answer_at
from examples.backend.api.http import Incoming, body_of
from examples.backend.api.standing import StandingHeaders
from examples.backend.api.webhooks import path_for_log
from examples.backend.serving.websocket_asgi import live_socket
from resilience import ErrorCode, ServiceError, service_unavailable_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from examples.backend.api.http import Reply
    from examples.backend.api.http import Route as OurRoute
    from examples.backend.assembly import Backend


def create_app(backend: Backend) -> ASGIApp:
    """Return the backend as an ASGI application; whoever serves it starts and closes the backend."""
    settings = backend.settings
    app = FastAPI(title="Example backend", openapi_url=None, redirect_slashes=False)
    for path, routes in PATHS.items():
        app.router.routes.append(Route(path, Endpoint(backend, routes)))
    app.router.routes.append(WebSocketRoute("/api/live", live_socket(backend)))
    app.router.default = nowhere
    answering = ResilienceMiddleware(
        Interruptible(app, backend),
        development=settings.environment == "development",
        max_body=settings.max_body,
        body_timeout=settings.body_timeout,
        path_for_log=path_for_log,
    )
    return WithStandingHeaders(answering, StandingHeaders(settings))


class Endpoint:
    """Answers the requests to one path; Starlette leaves all methods to it."""

    def __init__(self, backend: Backend, routes: Mapping[str, OurRoute]) -> None:
        self._backend = backend
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        reply = await answer_at(self._backend, self._routes, incoming_of(request))
        await response_of(reply)(scope, receive, send)


async def nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answer a request to a path that nobody has."""
    raise ServiceError(code=ErrorCode.NOT_FOUND)


def incoming_of(request: Request) -> Incoming:
    """Return a request of Starlette's as ours."""
    return Incoming(
        method=request.method,
        path=request.scope["path"],
        parameters=request.path_params,
        query=request.scope["query_string"].decode("latin-1"),
        headers=request.headers,
        peer=request.client.host if request.client else None,
        read=request.body,
    )


def response_of(reply: Reply) -> Response:
    """Return our reply as a response of Starlette's."""
    response: Response
    if hasattr(reply.content, "__aiter__"):
        response = Stream(reply.content, reply.status, reply.headers, reply.media_type)
    else:
        response = Response(body_of(reply.content), reply.status, reply.headers, reply.media_type)
    for cookie in reply.cookies:
        response.headers.append("Set-Cookie", cookie)
    return response


class Stream(StreamingResponse):
    """A response in pieces; their source is closed in the end, also if the client left before the first."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            source: Any = self.body_iterator
            with anyio.CancelScope(shield=True):
                await source.aclose()


class Interruptible:
    """Has a request that is cut off by the end of the process answered: 503, come back in a moment.

    uvicorn cancels what still runs when its grace is over, and would make a bare 500 of it.
    """

    def __init__(self, app: ASGIApp, backend: Backend) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._backend.draining:
                raise
            raise service_unavailable_error("The service", retry_after=1.0) from None


class WithStandingHeaders:
    """Adds to each response the headers that all have."""

    def __init__(self, app: ASGIApp, standing: StandingHeaders) -> None:
        self._app = app
        self._standing = standing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                names = (name.decode("latin-1").lower() for name, _ in message["headers"])
                missing = self._standing.missing(message["status"], names)
                added = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in missing]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
