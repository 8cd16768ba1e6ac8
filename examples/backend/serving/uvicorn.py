"""uvicorn, ending in our order: readiness says no, sockets are closed, nothing new is accepted, what runs is
finished.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Final

import uvicorn

from examples.backend.api.live import HEARTBEAT, LONGEST_MESSAGE
from examples.backend.asgi import create_app
from examples.backend.assembly import Backend
from examples.backend.kit import AsyncKit

if TYPE_CHECKING:
    import socket
    from types import FrameType

    from examples.backend.settings import Settings

GRACE: Final = 3
"""Whole seconds that running requests get to end after SIGTERM."""
BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""


class Server(uvicorn.Server):
    """A server that handles signals in its own way.

    uvicorn raises the signal anew when it has shut down, and the process would die of it instead of
    returning 0.
    """

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend
        self._told_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to end; a second Ctrl-C does not wait for what runs."""
        if self._told_at is not None and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
            return
        self._told_at = time.monotonic()
        self._backend.drain()

    async def on_tick(self, counter: int) -> bool:
        """Stop accepting once the load balancers had their notice; uvicorn asks ten times a second."""
        if self._told_at is not None:
            noticed = time.monotonic() - self._told_at >= self._backend.settings.drain_notice
            self.should_exit = self.should_exit or noticed
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, hang up on those who listen, and let the rest finish."""
        for server in self.servers:
            server.close()
        await self._backend.hang_up()  # uvicorn waits for every connection before the application's own end
        await super().shutdown(sockets)


def serve(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end."""
    if workers == 1:
        serve_one(settings, listener)
        return
    raise NotImplementedError


def serve_one(settings: Settings, listener: socket.socket) -> None:
    """Serve in this process."""
    backend = Backend(settings, AsyncKit())
    config = uvicorn.Config(
        create_app(backend),
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        proxy_headers=False,  # `resilience.http.client_address` trusts proxies by their network
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        ws_ping_interval=HEARTBEAT,
        ws_ping_timeout=HEARTBEAT,
        ws_max_size=LONGEST_MESSAGE,
        ws_per_message_deflate=False,  # short messages, and no bombs
    )
    asyncio.run(Server(config, backend).serve([listener]))
