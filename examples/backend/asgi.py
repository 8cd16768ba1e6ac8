"""The ASGI shell: FastAPI turns its request into ours, and our reply into its response. Nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import WebSocketRoute

from examples.adapters.asgi import ResilienceMiddleware
from examples.backend.api import ROUTES
from examples.backend.api.dispatch import answer
from examples.backend.api.http import Incoming, body_of
from examples.backend.serving.websocket_asgi import live_socket
from resilience import service_unavailable_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    from examples.backend.api.http import Reply, Route
    from examples.backend.assembly import Backend


def create_app(backend: Backend) -> ResilienceMiddleware:
    """Return the backend as an ASGI application; it starts and closes the backend with its lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await backend.start()
        try:
            yield
        finally:
            await backend.close()

    app = FastAPI(
        title="Example backend",
        lifespan=lifespan,
        max_body_size=backend.settings.max_body,
        openapi_url=None,
    )
    for route in ROUTES:
        app.add_route(route.path, endpoint(backend, route), [route.method], route.name)
    app.router.routes.append(WebSocketRoute("/api/live", live_socket(backend)))
    development = backend.settings.environment == "development"
    return ResilienceMiddleware(Interruptible(app, backend), development=development)


def endpoint(backend: Backend, route: Route) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers this route under Starlette."""

    async def answered(request: Request) -> Response:
        return response_of(await answer(backend, route, incoming_of(request)))

    return answered


def incoming_of(request: Request) -> Incoming:
    """Return a request of Starlette's as ours."""
    return Incoming(
        method=request.method,
        path=request.url.path,
        parameters=request.path_params,
        query=request.url.query,
        headers=request.headers,
        cookies=request.cookies,
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
    """A body that is closed in the end, also where the client left before it had begun."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body, and close it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:
                await close()


class Interruptible:
    """Has a request that is cut off by the end of the process answered: 503, come back in a moment.

    uvicorn cancels what still runs when its grace is over, and would make a bare 500 of it.
    """

    def __init__(self, app: FastAPI, backend: Backend) -> None:
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
