"""`wsgi.input` within bounds: what an application reads a request's body from."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from resilience.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from examples.adapters.intake import Intake
    from resilience.clock import Clock

CONNECTIONS: Final = ("gunicorn.socket", "werkzeug.socket")
"""Where servers let the connection be reached."""

_PIECE: Final = 256 * 1024
"""Bytes that are asked for at once: some servers set aside as much as they are asked for."""
_ENDLESS: Final = 2**63 - 1


class Input:
    """The body of one request, as far as it may go.

    It ends where its length says, also where the server's own would block. A body of no stated length is
    empty, unless the server says that it ends by itself (`wsgi.input_terminated`).
    """

    def __init__(self, environ: dict[str, Any], intake: Intake, clock: Clock) -> None:
        self._stream = environ["wsgi.input"]
        self._intake = intake
        self._clock = clock
        self._connection = next((environ[name] for name in CONNECTIONS if name in environ), None)
        self._most = _ENDLESS if environ.get("wsgi.input_terminated") else 0
        if intake.declared is not None:
            self._most = intake.declared
        elif intake.max_body is not None:
            self._most = min(self._most, intake.max_body + 1)  # one more tells that it is too long

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, fewer only at the end; all that is left if no number is given."""
        pieces: list[bytes] = []
        missing = self._allowed(size)
        while missing and (piece := self._take(self._stream.read, min(missing, _PIECE))):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line, or so many bytes of it."""
        allowed = self._allowed(size)
        return self._take(self._stream.readline, allowed) if allowed else b""

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Return the lines that are left, whatever `hint` says, which PEP 3333 allows."""
        del hint
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        """Iterate over the lines that are left."""
        return iter(self.readline, b"")

    def discard(self, seconds: float) -> None:
        """Throw away what still arrives of a body that is refused; who goes on for longer is cut off.

        Servers do it too, for the next request's sake, but keep a thread with it for as long as they like.
        """
        if self._connection is None or self._intake.is_complete:
            return
        with contextlib.suppress(Exception), _Alarm(self._connection, seconds, self._clock):
            missing = (self._intake.declared or _ENDLESS) - self._intake.received
            while missing > 0 and (piece := self._stream.read(min(missing, _PIECE))):
                missing -= len(piece)

    def _allowed(self, size: int | None) -> int:
        left = self._most - self._intake.received
        return left if size is None or size < 0 else min(size, left)

    def _take(self, read: Callable[[int], bytes], size: int) -> bytes:
        """Read from the server, and count it."""
        intake = self._intake
        if intake.refusal is not None:
            raise intake.refusal
        if intake.is_complete:
            return b""
        piece = self._read_in_time(read, size)
        intake.take(len(piece))
        if not piece or intake.received == intake.declared:
            intake.end()
        return piece

    def _read_in_time(self, read: Callable[[int], bytes], size: int) -> bytes:
        intake = self._intake
        if intake.left is not None and intake.left <= 0:
            raise intake.expire()
        alarm = None
        if intake.left is not None and self._connection is not None:
            alarm = _Alarm(self._connection, intake.left, self._clock)
        guard: AbstractContextManager[object] = alarm or contextlib.nullcontext()
        began = self._clock.now()
        try:
            with guard:
                piece = read(size)
        except Exception as error:
            if alarm is not None and alarm.rang:
                raise intake.expire() from error
            # Servers say so, each by exceptions of its own, that a chunk is malformed or the client gone.
            raise intake.refuse(ErrorCode.BAD_REQUEST, "The body does not come to its end") from error
        finally:
            intake.spend(self._clock.now() - began)
        if alarm is not None and alarm.rang:
            raise intake.expire()
        return piece


class _Alarm:
    """Ends a read that takes too long: nothing more is received, and the read finds the body at its end.

    A thread for each read is what WSGI leaves: a timeout of the socket would start anew with every byte.
    """

    def __init__(self, connection: socket.socket, seconds: float, clock: Clock) -> None:
        self.rang = False
        self._connection = connection
        self._seconds = seconds
        self._clock = clock
        self._is_read = threading.Event()
        self._lock = threading.Lock()
        """It rings during the read or not at all: afterwards the connection may serve another request."""

    def __enter__(self) -> None:
        threading.Thread(target=self._watch, name="body-timeout", daemon=True).start()

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._is_read.set()

    def _watch(self) -> None:
        self._clock.wait(self._is_read, self._seconds)
        with self._lock:
            if self._is_read.is_set():
                return
            self.rang = True
            with contextlib.suppress(OSError):  # it is gone already
                # Not the method of an SSLSocket, which would have the answer sent in the clear.
                socket.socket.shutdown(self._connection, socket.SHUT_RD)
