"""The WebSocket of live updates under WSGI: one thread for each, on gunicorn's threads.

WSGI has no WebSockets. But a response may say 101, and gunicorn lends the application its socket: then what
follows is ours. The protocol is wsproto's. flask-sock, which stands on it too, does not do here: it sends
without looking whether all was sent, from several threads without a lock; its `close` does not wake the
handler; and it ends a request by a StopIteration, which whatever is around the application takes for a bug.

One thread does everything: it waits for the client, for what is to be told, and for the time of the next
ping. Whoever wants the connection closed says so to the mailbox, and so never touches the socket.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import selectors
import socket
from typing import TYPE_CHECKING, Any, Final

import flask
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, generate_accept_token

from examples.backend.api.live import HEARTBEAT, LONGEST_MESSAGE, greeting_of, message_of, open_socket
from examples.backend.domain.live import GONE, TOO_LONG, UNWANTED, Ending
from examples.backend.kit import drive
from examples.backend.ports.live import ThreadMailbox
from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wsproto.events import Event

    from examples.backend.api.http import Incoming
    from examples.backend.assembly import Backend
    from examples.backend.domain.live import Subscription
    from resilience.clock import Clock

SILENT: Final = Ending(1011, "no answer to a ping")
CLOSE_WITHIN: Final = 1.0
"""Seconds for the client to answer a close."""
RECEIVE: Final = 4096
"""Bytes that are read at a time."""
ENOUGH: Final = 16 * 1024
"""Bytes that wait to be sent, above which nothing more is read: who pings, reads the answers first."""
KEY_BYTES: Final = 16


class SocketResponse(flask.Response):
    """The response to a WebSocket's opening request: the whole conversation."""

    def __init__(self, backend: Backend, incoming: Incoming) -> None:
        super().__init__()
        self._backend = backend
        self._incoming = incoming

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Accept the WebSocket, and serve it to its end."""
        accept = accept_of(environ)
        mailbox = ThreadMailbox()
        try:
            with drive(open_socket(self._backend, self._incoming, mailbox)) as subscription:
                headers = [
                    ("Upgrade", "websocket"),
                    ("Connection", "Upgrade"),
                    ("Sec-WebSocket-Accept", accept),
                ]
                write = start_response("101 Switching Protocols", headers)
                write(b"")  # nothing, but it sends the headers
                Conversation(environ["gunicorn.socket"], subscription, mailbox).run()
        finally:
            mailbox.served()
        return []


def accept_of(environ: dict[str, Any]) -> str:
    """Return what accepts an opening request (RFC 6455, section 4.2.1).

    Raises:
        ServiceError: It is none.
    """
    key: str = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key or environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13" or "gunicorn.socket" not in environ:
        raise ServiceError("This WebSocket cannot be opened", ErrorCode.BAD_REQUEST)
    return generate_accept_token(key.encode()).decode()


class Conversation:
    """A WebSocket that was accepted, to its end.

    Args:
        connection: The socket; closed in the end, as far as the client sees.
        subscription: What is told.
        mailbox: The subscription's.
        heartbeat: Seconds from one ping to the next, and to its answer at the latest.
        clock: Tells the time.
    """

    def __init__(
        self,
        connection: socket.socket,
        subscription: Subscription,
        mailbox: ThreadMailbox,
        *,
        heartbeat: float = HEARTBEAT,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._socket = connection
        self._subscription = subscription
        self._mailbox = mailbox
        self._heartbeat = heartbeat
        self._clock = clock
        self._protocol = Connection(ConnectionType.SERVER)
        self._unsent = bytearray()
        self._received = 0  # bytes of the client's message so far
        self._ping_at = clock.now() + heartbeat
        self._is_waiting_for_pong = False
        self._close_by: float | None = None
        self._is_over = False

    def run(self) -> None:
        """Tell what happens until the connection is to be closed, by whoever wants that; then close it."""
        self._socket.setblocking(False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._socket, selectors.EVENT_READ)
                selector.register(self._mailbox, selectors.EVENT_READ)
                self._say(TextMessage(greeting_of(self._subscription)))
                while not self._is_over:
                    self._wait(selector)
                    self._tell()
                    self._keep_alive()
                    self._close()
        except OSError:  # the client's connection is lost
            self._mailbox.end(GONE)
        finally:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Wait until there is something to do, and do what concerns the client."""
        interest = selectors.EVENT_READ if len(self._unsent) < ENOUGH else 0
        selector.modify(self._socket, interest | (selectors.EVENT_WRITE if self._unsent else 0))
        due = self._ping_at if self._close_by is None else self._close_by
        for key, ready in selector.select(max(0.0, due - self._clock.now())):
            if key.fileobj is self._mailbox:
                self._mailbox.hush()
            elif ready & selectors.EVENT_READ:
                self._read()
        self._flush()

    def _read(self) -> None:
        received = self._socket.recv(RECEIVE)
        if not received:
            self._is_over = True
            self._mailbox.end(GONE)
            return
        if self._protocol.state is ConnectionState.CLOSED:
            return  # what comes after a close means nothing
        self._protocol.receive_data(received)
        for event in self._protocol.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case TextMessage() | BytesMessage():
                self._received += len(event.data)
                if self._received > LONGEST_MESSAGE:
                    self._mailbox.end(TOO_LONG)
                elif event.message_finished:
                    self._mailbox.end(UNWANTED)
            case Ping():
                self._say(event.response())
            case Pong():
                self._is_waiting_for_pong = False
            case CloseConnection():
                if self._close_by is None:
                    self._say(event.response())
                    self._close_by = self._clock.now() + CLOSE_WITHIN
                self._mailbox.end(GONE)
            case _:  # there are no others once it is open
                pass

    def _tell(self) -> None:
        """Send what happened, as far as the client reads it."""
        while not self._unsent and (event := self._subscription.take()) is not None:
            self._say(TextMessage(message_of(event)))
            self._flush()

    def _keep_alive(self) -> None:
        now = self._clock.now()
        if now < self._ping_at or self._close_by is not None:
            return
        if self._is_waiting_for_pong:
            self._mailbox.end(SILENT)
            return
        self._is_waiting_for_pong = True
        self._ping_at = now + self._heartbeat
        self._say(Ping())
        self._flush()

    def _close(self) -> None:
        """Begin to close if that is wanted; end if both sides are done, or time is up."""
        ending = self._mailbox.ending
        if self._close_by is None and ending is not None and not self._is_over:
            self._say(CloseConnection(*ending))
            self._close_by = self._clock.now() + CLOSE_WITHIN
            self._flush()
        if self._close_by is not None:
            answered = self._protocol.state is ConnectionState.CLOSED and not self._unsent
            self._is_over = self._is_over or answered or self._clock.now() >= self._close_by

    def _say(self, event: Event) -> None:
        with contextlib.suppress(LocalProtocolError):  # nothing can be said after a close
            self._unsent += self._protocol.send(event)

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
