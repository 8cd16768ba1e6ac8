"""The WebSocket of live updates under ASGI: two tasks for each, one that tells and one that listens.

The server pings, measures messages, and closes what does not answer: see `uvicorn.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from starlette.websockets import WebSocketDisconnect

from examples.backend.api.http import Incoming
from examples.backend.api.live import greeting_of, message_of, open_socket
from examples.backend.domain.live import GONE, UNWANTED
from examples.backend.ports.live import TaskMailbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.websockets import WebSocket

    from examples.backend.assembly import Backend
    from examples.backend.domain.live import Subscription

FLUSH_WITHIN: Final = 1.0
"""Seconds for a message that is being sent, and then for the close."""
FOR_EVER: Final = 3600.0
TICKET: Final = re.compile(r"(?<=[?&]ticket=)[^&\s]+")


def live_socket(backend: Backend) -> Callable[[WebSocket], Awaitable[None]]:
    """Return what serves the WebSockets."""
    logging.getLogger("uvicorn.error").addFilter(is_fit_for_the_log)

    async def serve(websocket: WebSocket) -> None:
        mailbox = TaskMailbox()
        try:
            with await open_socket(backend, incoming_of(websocket), mailbox) as subscription:
                await websocket.accept()
                await converse(websocket, subscription, mailbox)
        finally:
            mailbox.served()

    return serve


def incoming_of(websocket: WebSocket) -> Incoming:
    """Return a WebSocket's opening request as ours."""

    async def read() -> bytes:
        return b""

    return Incoming(
        method="GET",
        path=websocket.url.path,
        parameters={},
        query=websocket.url.query,
        headers=websocket.headers,
        peer=websocket.client.host if websocket.client else None,
        read=read,
    )


def is_fit_for_the_log(record: logging.LogRecord) -> bool:
    """Take tickets out of what uvicorn logs. Drop what it says of each refusal: that it was a mistake."""
    if isinstance(record.args, tuple):
        record.args = tuple(TICKET.sub("…", arg) if isinstance(arg, str) else arg for arg in record.args)
    return "without completing handshake" not in record.msg


async def converse(websocket: WebSocket, subscription: Subscription, mailbox: TaskMailbox) -> None:
    """Tell what happens until the connection is to be closed, by whoever wants that; then close it."""
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(tell(websocket, subscription, mailbox))
        listening = tasks.create_task(listen(websocket, mailbox))
        ending = await mailbox.wait_for_ending()
        await asyncio.wait([telling], timeout=FLUSH_WITHIN)
        telling.cancel()
        listening.cancel()
    if ending is not GONE:
        # The client may leave at this very moment, or not read what it is sent.
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(FLUSH_WITHIN):
                await websocket.close(*ending)


async def tell(websocket: WebSocket, subscription: Subscription, mailbox: TaskMailbox) -> None:
    """Send what happens, one message after the other."""
    try:
        await websocket.send_text(greeting_of(subscription))
        while mailbox.ending is None:
            while (event := subscription.take()) is not None:
                await websocket.send_text(message_of(event))
            await mailbox.wait(FOR_EVER)
    except WebSocketDisconnect:
        mailbox.end(GONE)


async def listen(websocket: WebSocket, mailbox: TaskMailbox) -> None:
    """Wait for the client to leave. It has nothing to say."""
    message: dict[str, Any] = dict(await websocket.receive())
    mailbox.end(GONE if message["type"] == "websocket.disconnect" else UNWANTED)
