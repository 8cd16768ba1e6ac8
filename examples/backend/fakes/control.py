"""The HTTP side that all fakes have: answers that go wrong, and a control interface to say how.

Anybody may control a fake, so it listens on loopback only:

    POST   /_control/faults      {"next": 2, "status": 503}: how requests go wrong; see `faults.Fault`
    DELETE /_control/faults      all is well again
    GET    /_control/faults      how many requests went wrong, by kind
    GET    /_control/requests    how many requests have come, by what they were
    GET    /_control/subjects    the same for each thing that was asked for, a call or an object
"""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from examples.backend.fakes.faults import NONE, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.backend.fakes.faults import Faults

PIECES: Final = 20
"""In how many pieces a slow body comes."""
HANG_UP_BY_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, and for no seconds."""


class Server(ThreadingHTTPServer):
    """A fake's HTTP server: a thread for each connection.

    Args:
        port: Where it listens on 127.0.0.1; 0 takes any free port.
        handler: What answers.
        faults: What shall go wrong.
    """

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, handler: type[Handler], faults: Faults) -> None:
        self.faults = faults
        super().__init__(("127.0.0.1", port), handler)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def shutdown_request(self, request: Any) -> None:
        """Close the connection at once; the polite ending of the base class would spoil a reset."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hang up, which is their right; print what else goes wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests: `control` those to control the fake, `serve` all others."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise a body waits 40 ms for the client to acknowledge its headers

    def serve(self) -> None:
        """Answer the request in `command`, `path` and `headers`."""
        self.refuse(404, "Not found")

    def refuse(self, status: int, message: str, *, code: str | None = None, **headers: str | None) -> None:
        """Answer with an error in the form of whom the fake stands in for."""
        self.reply_json(status, {"code": code, "message": message}, **headers)

    def control(self, request: list[str], body: dict[str, Any]) -> object:
        """Do what a control request says; return the answer.

        Args:
            request: Its method, and the parts of its path after `/_control/`.
            body: What came with it.

        Raises:
            LookupError: There is no such request.
            TypeError, ValueError: It is not as it should be.
        """
        faults = self.server.faults
        match request:
            case ["POST", "faults"]:
                fault = Fault(**body)
                faults.add_fault(fault)
                return dataclasses.asdict(fault)
            case ["DELETE", "faults"]:
                faults.heal()
                return {}
            case ["GET", "faults"]:
                return faults.struck()
            case ["GET", "requests"]:
                return faults.requests()
            case ["GET", "subjects"]:
                return faults.requests_for()
            case _:
                raise LookupError(self.path)

    def _answer(self) -> None:
        if not self.path.startswith("/_control/"):
            self.serve()
            return
        try:
            body = json.loads(self.read_body() or b"{}")
            if not isinstance(body, dict):
                raise TypeError("a JSON object is expected")  # noqa: TRY301 - refused like any other
            answer = self.control([self.command, *self.path.split("/")[2:]], body)
        except LookupError:
            self.refuse(404, "Not found")
        except (TypeError, ValueError) as refusal:
            self.refuse(400, str(refusal))
        else:
            self.reply_json(200, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the base class's names

    def read_body(self) -> bytes:
        """Return the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply_json(self, status: int, body: object, **headers: str | None) -> None:
        """Answer with JSON."""
        self.reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})

    def reply(self, status: int, body: bytes, headers: Mapping[str, str | None], fault: Fault = NONE) -> None:
        """Answer, but for what the fault says; headers that are None are left out."""
        length = {"Content-Length": str(len(body) + fault.announce)}
        self.send_response(status)
        for name, value in {**length, **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault.cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault.trickle:
            self._write_slowly(body, 1, fault.trickle)
        elif fault.slow:
            self._write_slowly(body, len(body) // PIECES + 1, fault.slow / PIECES)
        else:
            self.wfile.write(body)

    def _write_slowly(self, body: bytes, size: int, pause: float) -> None:
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            time.sleep(pause)

    def suffer(self, fault: Fault) -> bool:
        """Keep silent, hang up or refuse, as the fault says; return whether an answer is still due."""
        time.sleep(fault.delay)
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, HANG_UP_BY_RESET)
            self.close_connection = True
            return False
        if fault.status is not None:
            headers = {"Retry_After": fault.retry_after, "Location": fault.location}
            self.refuse(fault.status, "As you wished", code=fault.code, **headers)
            return False
        return True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the backend's log is the interesting one."""
