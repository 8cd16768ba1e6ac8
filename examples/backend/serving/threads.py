"""A process of gunicorn's that serves: one thread that accepts, and others that answer.

gunicorn's own threaded worker gives a thread to whoever connects, reads a request's headers there without
any limit of time, and waits in its only accepting thread, for up to two seconds each, for clients to close.
A few dozen slow clients stop it altogether. So requests are collected by the accepting thread here, which
waits for nobody (see `arrival.py`), and connections are parted with there in the same way. A thread is taken
for what is there already, and given back when the answer is written, or is not read in time.

Nor does WSGI have a way to cut a request off. What still runs when grace is over is answered by the main
thread instead, as far as nothing of its answer has been sent: 503, come back in a moment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import signal
import socket
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import gunicorn.arbiter
import gunicorn.http.errors
import gunicorn.http.wsgi
from gunicorn.workers.gthread import TConn, ThreadWorker

from examples.backend.kit import drive
from examples.backend.serving.arrival import Arrival
from examples.backend.serving.lifetime import (
    CLOSING,
    GRACE,
    HEAD_TIMEOUT,
    KEEP_ALIVE,
    LARGEST_HEAD,
    NotStartedError,
    end_within,
)
from examples.backend.serving.refusals import last_answer, refusal
from resilience import service_unavailable_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from examples.backend.api.standing import StandingHeaders
    from resilience.http import ErrorResponse

logger: Final = logging.getLogger("backend.serving")

LINGER: Final = 1.0
"""Seconds in which a client may close after its last answer; one that still sends would lose it otherwise."""
PATIENCE: Final = 20.0
"""Seconds for a client to read a piece of an answer, some 64 KiB at most."""
LOOK_EVERY: Final = 0.5
"""Seconds between two looks at whose time is up; a tenth once the end has begun."""
RECEIVE: Final = 64 * 1024
"""Bytes that are read at a time."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
REPLACEMENT_PAUSE: Final = 2.0
"""Seconds before a process that could not be replaced is tried again."""

STATUSES: Final = {
    gunicorn.http.errors.LimitRequestHeaders: 431,
    gunicorn.http.errors.LimitRequestLine: 431,
    gunicorn.http.errors.UnsupportedTransferCoding: 501,
    gunicorn.http.errors.ExpectationFailed: 417,
}
"""What is answered to a request that cannot be read; 400 to any other."""


class Patient(socket.socket):
    """A connection on which a thread does not wait for ever: not for a client that does not read."""

    def setblocking(self, flag: bool) -> None:
        """Block, but not for ever; or do not block."""
        self.settimeout(PATIENCE if flag else 0.0)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send everything; a client that does not take it in time is as good as gone."""
        try:
            super().sendall(data, flags)
        except TimeoutError:
            raise OSError(errno.ECONNRESET, "the client does not read its answer") from None


class Connection(TConn):  # type: ignore[misc]  # gunicorn has no types
    """A connection, and what the accepting thread is waiting for on it."""

    arrival: Arrival
    due: float
    """When it is not waited for any more."""
    is_parting = False
    """Whether its last answer is sent."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A process that serves: one thread that accepts, collects and parts; others that answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: set[Connection] = set()
        self._told_at: float | None = None
        self._look_at = 0.0

    # --- beginning and ending --------------------------------------------------------------------

    def load_wsgi(self) -> None:
        """Make the backend.

        A first process that cannot start ends the server. One that is to replace another is tried again, so
        the others go on to serve.
        """
        gunicorn.http.wsgi.Response.default_headers = _without_server(
            gunicorn.http.wsgi.Response.default_headers
        )
        self.cfg.set("graceful_timeout", GRACE)
        try:
            super().load_wsgi()
        except NotStartedError as error:
            print(error, file=sys.stderr, flush=True)  # noqa: T201 - to whoever starts it
            if self.age <= self.cfg.workers:
                sys.exit(gunicorn.arbiter.Arbiter.WORKER_BOOT_ERROR)
            time.sleep(REPLACEMENT_PAUSE)
            sys.exit(1)

    def init_signals(self) -> None:
        """Have Ctrl-C end this process as SIGTERM does; who sits at the terminal sends it to all of them."""
        super().init_signals()
        signal.signal(signal.SIGINT, self.handle_exit)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's signature
        """Begin to end."""
        if self._told_at is None:
            self._told_at = time.monotonic()
            notice = self.app.settings.drain_notice
            end_within(notice + GRACE + CLOSING)
            if self.app.backend is None:
                sys.exit(0)
            self.app.backend.drain()
            self.method_queue.defer(lambda: None)  # wakes the accepting thread

    def run(self) -> None:
        """Serve until told to end, and end."""
        super().run()
        self.app.requests.cut_off()
        drive(self.app.backend.close())

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for what comes next, and look whether it is time to stop accepting."""
        now = time.monotonic()
        if self._told_at is not None and self.alive and now - self._told_at >= self.app.settings.drain_notice:
            self._stop_accepting()
        super().wait_for_and_dispatch_events(min(timeout, LOOK_EVERY if self._told_at is None else 0.1))

    def _stop_accepting(self) -> None:
        self.alive = False
        hanging_up = partial(drive, self.app.backend.hang_up())
        threading.Thread(target=hanging_up, name="hanging up", daemon=True).start()

    # --- collecting requests, in the accepting thread --------------------------------------------

    def accept(self, listener: Any) -> None:
        """Accept a connection, and wait for its request."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNABORTED}:
                raise
            return
        self.nr_conns += 1
        connection = Connection(self.cfg, Patient(fileno=client.detach()), address, listener.getsockname())
        self._collect(connection, HEAD_TIMEOUT)

    def finish_request(self, conn: Connection, fs: Any) -> None:
        """Wait for the next request of a connection that has been answered, or part with it."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._part(conn)
            return
        self._collect(conn, KEEP_ALIVE if self.alive else LINGER, conn.parser.unreader.take_buffered())

    def _collect(self, connection: Connection, patience: float, begun: bytes = b"") -> None:
        """Wait for a request, of which this has arrived already."""
        connection.arrival = Arrival(LARGEST_HEAD, self.app.settings.max_body)
        self._watch(connection, patience, self._receive)
        if begun:
            self._take(connection, begun)

    def _receive(self, connection: Connection, _: object) -> None:
        try:
            received = connection.sock.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:  # the client is gone
            received = b""
        if received:
            self._take(connection, received)
        else:
            self._close(connection)

    def _take(self, connection: Connection, received: bytes) -> None:
        arrival = connection.arrival
        if not arrival.bytes:
            connection.due = time.monotonic() + HEAD_TIMEOUT
        had_head = arrival.has_head
        must_encourage = arrival.take(received)
        if arrival.is_too_large:
            self._refuse(connection, 431)
        elif arrival.is_complete:
            self._hand_over(connection)
        elif arrival.has_head and not had_head:
            connection.due = time.monotonic() + self.app.settings.body_timeout
            if must_encourage:
                with contextlib.suppress(OSError):  # who does not hear it sends all the same, or is gone
                    connection.sock.send(CONTINUE)

    def _hand_over(self, connection: Connection) -> None:
        """Give a request that has arrived to a thread."""
        self._forget(connection)
        connection.sock.setblocking(True)
        connection.init()
        connection.data_ready = True
        connection.parser.unreader.unread(bytes(connection.arrival.bytes))
        self.enqueue_req(connection)

    def handle_request(self, req: Any, conn: Connection) -> Any:
        """Answer a request; the connection of one that is not read to its end cannot serve another."""
        if not conn.arrival.is_whole:
            req.force_close()
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        return bool(conn.arrival.is_whole and super()._keepalive_after(conn, keepalive))

    # --- parting, in the accepting thread --------------------------------------------------------

    def _refuse(self, connection: Connection, status: int) -> None:
        with contextlib.suppress(OSError):  # the client is gone, or reads nothing
            connection.sock.send(_encoded(refusal(status, self.app.standing)))
        self._forget(connection)
        self._part(connection)

    def _part(self, connection: Connection) -> None:
        """Say that nothing more comes, and let the client close: what it still sends is thrown away."""
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            self._close(connection)
            return
        connection.is_parting = True
        self._watch(connection, LINGER, self._discard)

    def _discard(self, connection: Connection, _: object) -> None:
        try:
            if connection.sock.recv(RECEIVE):
                return
        except BlockingIOError:
            return
        except OSError:  # the client is gone
            pass
        self._close(connection)

    def _watch(self, connection: Connection, patience: float, then: Callable[..., None]) -> None:
        connection.sock.setblocking(False)
        connection.due = time.monotonic() + patience
        self._waiting.add(connection)
        self.poller.register(connection.sock, selectors.EVENT_READ, partial(then, connection))

    def _forget(self, connection: Connection) -> None:
        if connection in self._waiting:
            self._waiting.discard(connection)
            self.poller.unregister(connection.sock)

    def _close(self, connection: Connection) -> None:
        self._forget(connection)
        self.nr_conns -= 1
        connection.close()

    def murder_pending(self) -> None:
        """Give up on those whose time is up; gunicorn asks whenever something has happened."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + (LOOK_EVERY if self.alive else 0.1)
        for connection in [each for each in self._waiting if each.due <= now]:
            if connection.is_parting or not connection.arrival.bytes:
                self._close(connection)
            else:
                self._refuse(connection, 408)

    def murder_keepalived(self, force: bool = False) -> None:
        """Close those that wait, if told to; there are none but those of `murder_pending`."""
        if force:
            for connection in list(self._waiting):
                self._close(connection)

    def _cap_keepalive(self, _deadline: float) -> None:
        """Have those that wait for a request send it at once: nobody else will."""
        deadline = time.monotonic() + LINGER
        for connection in self._waiting:
            connection.due = min(connection.due, deadline)

    # --- errors of the protocol ------------------------------------------------------------------

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:  # noqa: ARG002
        """Say what is wrong with the request, in our form."""
        status = STATUSES.get(type(exc), 400)
        if not isinstance(exc, gunicorn.http.errors.ParseException):
            logger.error("a request could not be handled", exc_info=exc)
            status = 500
        with contextlib.suppress(OSError):  # the client is gone
            client.sendall(_encoded(refusal(status, self.app.standing)))


class Requests:
    """An application, and the requests to it of whose answer nothing has been sent."""

    def __init__(self, app: Callable[..., Iterable[bytes]], standing: StandingHeaders) -> None:
        self._app = app
        self._standing = standing
        self._lock = threading.Lock()
        self._unanswered: dict[int, dict[str, Any]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        key = threading.get_ident()  # a thread has one request at a time

        def start(*args: Any) -> Any:
            with self._lock:  # if it was cut off, writing fails from here on: the connection is shut
                self._unanswered.pop(key, None)
            return start_response(*args)

        with self._lock:
            self._unanswered[key] = environ
        return self._app(environ, start)

    def cut_off(self) -> None:
        """Answer whoever still waits: the service is ending."""
        error = service_unavailable_error("The service", retry_after=1.0)
        with self._lock:
            for environ in self._unanswered.values():
                response = last_answer(
                    error,
                    self._standing,
                    own_id=environ.get("resilience.request_id"),
                    accept=environ.get("HTTP_ACCEPT"),
                )
                connection: socket.socket = environ["gunicorn.socket"]
                with contextlib.suppress(OSError):  # the client is gone, or reads nothing
                    connection.setblocking(False)
                    connection.send(_encoded(response, bodiless=environ["REQUEST_METHOD"] == "HEAD"))
                    connection.shutdown(socket.SHUT_RDWR)
            if self._unanswered:
                logger.warning("requests that were cut off: %d", len(self._unanswered))
            self._unanswered.clear()


def _encoded(response: ErrorResponse, *, bodiless: bool = False) -> bytes:
    """Return an answer as it is sent, after which the connection is closed."""
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in response.headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if bodiless else head + response.body


def _without_server(default_headers: Callable[[Any], list[str]]) -> Callable[[Any], list[str]]:
    """Return what gunicorn begins each answer with, but for its own name and version."""

    def without(response: Any) -> list[str]:
        return [header for header in default_headers(response) if not header.startswith("Server:")]

    return without
