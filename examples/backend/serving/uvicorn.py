"""uvicorn in one process or several, ending in our order.

What it is given here that it does not have by itself:

- a time in which a request's headers must have arrived, so that nobody holds a connection by sending them a
  byte at a time (bodies have theirs in the adapter);
- the library's form for errors of the protocol, which are answered before any application is asked;
- exit code 0 at SIGTERM: by itself it raises the signal anew when it has shut down, and dies of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from examples.backend.api.live import HEARTBEAT, LONGEST_MESSAGE
from examples.backend.api.standing import StandingHeaders
from examples.backend.asgi import create_app
from examples.backend.kit import AsyncKit
from examples.backend.serving.lifetime import (
    CLOSING,
    GRACE,
    HEAD_TIMEOUT,
    KEEP_ALIVE,
    LARGEST_HEAD,
    end_within,
    started,
)
from examples.backend.serving.refusals import refusal
from examples.backend.serving.supervisor import Supervisor

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType

    from examples.backend.assembly import Backend
    from examples.backend.settings import Settings

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
PIECE: Final = 4096
"""Bytes that are parsed at a time while a head is awaited: so one that is too large is noticed in time."""


def serve(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end.

    Raises:
        NotStartedError: The backend cannot start.
    """
    if workers == 1:
        asyncio.run(serve_here(settings, listener))
        return
    work = partial(serve_for, os.getpid(), settings, listener)
    Supervisor(work, workers, patience=settings.drain_notice + GRACE + CLOSING).run()


def serve_for(
    supervisor: int, settings: Settings, listener: socket.socket, has_started: Callable[[], None]
) -> None:
    """Serve until told to end, or until the supervising process is gone."""
    asyncio.run(serve_here(settings, listener, supervisor, has_started))


async def serve_here(
    settings: Settings,
    listener: socket.socket,
    supervisor: int | None = None,
    has_started: Callable[[], None] = lambda: None,
) -> None:
    """Serve in this process."""
    backend = await started(settings, AsyncKit())
    has_started()
    config = Config(
        create_app(backend),
        http=Protocol,
        lifespan="off",  # we say what cannot start, and close when the last request has ended
        log_config=None,
        access_log=False,
        backlog=BACKLOG,
        proxy_headers=False,  # `resilience.http.client_address` trusts proxies by their network
        server_header=False,
        h11_max_incomplete_event_size=LARGEST_HEAD,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        ws_ping_interval=HEARTBEAT,
        ws_ping_timeout=HEARTBEAT,
        ws_max_size=LONGEST_MESSAGE,
        ws_per_message_deflate=False,  # short messages, and no bombs
    )
    config.standing = StandingHeaders(settings)
    await Server(config, backend, supervisor).serve([listener])


class Config(uvicorn.Config):
    """What uvicorn is told, and what a connection has to know besides."""

    standing: StandingHeaders


class Server(uvicorn.Server):
    """A server that ends in our order."""

    def __init__(self, config: uvicorn.Config, backend: Backend, supervisor: int | None) -> None:
        super().__init__(config)
        self._backend = backend
        self._supervisor = supervisor
        self._told_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to end; a second Ctrl-C does not wait for what runs."""
        if self._told_at is not None:
            self.force_exit = self.should_exit = self.should_exit or sig == signal.SIGINT
            return
        self._begin_to_end()

    async def on_tick(self, counter: int) -> bool:
        """Stop accepting once the load balancers had their notice; uvicorn asks ten times a second."""
        if self._told_at is None and self._supervisor not in {None, os.getppid()}:
            self._begin_to_end()
        if self._told_at is not None:
            noticed = time.monotonic() - self._told_at >= self._backend.settings.drain_notice
            self.should_exit = self.should_exit or noticed
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, hang up on those who listen, let the rest finish, and close the backend."""
        begun_at = time.monotonic()
        for server in self.servers:
            server.close()
        with contextlib.suppress(TimeoutError):  # uvicorn itself closes who does not let go
            async with asyncio.timeout(GRACE / 2):
                await self._backend.hang_up()  # uvicorn waits for every connection, so this comes before
        left = max(0.0, begun_at + GRACE - time.monotonic())
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # it takes a float
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled, and about to say so to their clients
            await asyncio.wait(self.server_state.tasks, timeout=CLOSING / 2)
        await self._backend.close()

    def _begin_to_end(self) -> None:
        self._told_at = time.monotonic()
        self._backend.drain()
        end_within(self._backend.settings.drain_notice + GRACE + CLOSING)


class Protocol(H11Protocol):
    """A connection whose requests must arrive in time, and which is told in our form what is wrong."""

    _late: asyncio.TimerHandle | None = None
    _has_begun = False
    """Whether anything has ever arrived."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)  # type: ignore[arg-type]  # a stream's
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what has arrived; a head in small pieces, so that its limit holds however it comes."""
        self._has_begun = True
        rest = memoryview(data)
        while rest and self.is_at_head and not self.transport.is_closing():
            super().data_received(bytes(rest[:PIECE]))
            rest = rest[PIECE:]
        if rest and not self.transport.is_closing():
            super().data_received(bytes(rest))
        if not self.is_at_head:
            self._stop_waiting()
        elif self._late is None:
            self._await_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over."""
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature, and its words
        """Say what is wrong with the request, in our form."""
        error = sys.exception()
        self._refuse(error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400)

    @property
    def is_at_head(self) -> bool:
        """Whether the next request's head is awaited, or is arriving."""
        return self.conn.their_state is h11.IDLE

    def _await_head(self) -> None:
        self._late = self.loop.call_later(HEAD_TIMEOUT, self._time_is_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _time_is_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._has_begun:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """Answer, unless an answer has begun; then close."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            response = refusal(status, cast("Config", self.config).standing)
            headers: list[Any] = response.headers
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=response.body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
