"""A telephony provider that speaks the real one's shapes, and fails when told to.

    python -m examples.backend.fakes.telephony --port 8001

Every id of 32 hexadecimal digits that begins with `c0ffee` is a call that was recorded; any other is unknown.
Its recording is a tone, always the same for the same id. Both need HTTP Basic, key and token:

    GET    /v1/Accounts/{account}/Calls/{call_sid}.json    the details of a call, as strings
    GET    /recordings/{call_sid}.wav                      its recording

Anybody may control it, so it listens on loopback only:

    POST   /_control/faults              {"next": 2, "status": 503}: how the next requests go wrong; see Fault
    DELETE /_control/faults              all is well again
    PUT    /_control/calls/{call_sid}    {"RecordingUrl": null, "Status": "in-progress"}: changes its details
    GET    /_control/requests            how many requests have come, by kind
"""

from __future__ import annotations

import argparse
import array
import base64
import hmac
import io
import json
import math
import re
import sys
import threading
import time
import wave
import zlib
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

SAMPLE_RATE: Final = 8000
CALL_PATH: Final = re.compile(r"/v1/Accounts/(?P<account>\w+)/Calls/(?P<sid>\w+)\.json(\?.*)?")
RECORDING_PATH: Final = re.compile(r"/recordings/(?P<sid>\w+)\.wav")
CONTROLLED_CALL_PATH: Final = re.compile(r"/_control/calls/(?P<sid>\w+)")


@dataclass(kw_only=True)
class Fault:
    """How requests go wrong. Each field is a key of the control request."""

    next: int | None = None
    """How many requests it concerns; None for all until the faults are deleted."""
    on: str = "any"
    """Which: `calls`, `recordings`, or `any`."""
    status: int | None = None
    """Answer with this status, 503 say."""
    retry_after: str | None = None
    """And with this Retry-After."""
    location: str | None = None
    """And with this Location."""
    delay: float = 0.0
    """Keep silent for so many seconds first."""
    cut: bool = False
    """Announce the whole body, send half of it, and hang up."""
    trickle: float = 0.0
    """Send the body byte by byte, with so many seconds between them."""
    content_type: str | None = None
    """Say that the recording is of this type."""


class Provider:
    """What the provider knows and counts. Any number of threads may use it."""

    def __init__(self, account: str, key: str, token: str) -> None:
        self.account = account
        self.authorization = "Basic " + base64.b64encode(f"{key}:{token}".encode()).decode()
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._changed_calls: dict[str, dict[str, Any]] = {}
        self._requests: Counter[str] = Counter()

    def add_fault(self, fault: Fault) -> None:
        """Let requests go wrong; faults take effect in the order they were added."""
        with self._lock:
            self._faults.append(fault)

    def heal(self) -> None:
        """Let all requests go well again."""
        with self._lock:
            self._faults.clear()

    def change_call(self, sid: str, details: dict[str, Any]) -> None:
        """Answer with these details of the call from now on, in place of its usual ones."""
        with self._lock:
            self._changed_calls.setdefault(sid, {}).update(details)

    def requests(self) -> dict[str, int]:
        """Return how many requests have come, by kind."""
        with self._lock:
            return dict(self._requests)

    def begin(self, kind: str) -> Fault:
        """Count a request of this kind, and return how it shall go wrong, which is often not at all."""
        with self._lock:
            self._requests[kind] += 1
            for fault in self._faults:
                if fault.on in {kind, "any"}:
                    if fault.next is not None:
                        fault.next -= 1
                        if not fault.next:
                            self._faults.remove(fault)
                    return fault
            return Fault()

    def call(self, sid: str, address: str) -> dict[str, Any] | None:
        """Return the details of a call as the provider writes them; None if there is none."""
        if not re.fullmatch(r"c0ffee[0-9a-f]{26}", sid):
            return None
        seconds = seconds_of(sid)
        details = {
            "Sid": sid,
            "ParentCallSid": None,
            "DateCreated": "2025-01-15 16:00:00",
            "DateUpdated": "2025-01-15 16:05:00",
            "AccountSid": self.account,
            "To": "08030752400",
            "From": "09900112233",
            "PhoneNumberSid": "08030752400",
            "Status": "completed",
            "StartTime": "2025-01-15 16:00:00",
            "EndTime": f"2025-01-15 16:00:{seconds:02}",
            "Duration": str(seconds),
            "Price": "1.500",
            "Direction": "inbound",
            "AnsweredBy": "human",
            "RecordingUrl": f"{address}/recordings/{sid}.wav",
            "Details": {"ConversationDuration": str(seconds), "Legs": []},
        }
        with self._lock:
            return details | self._changed_calls.get(sid, {})


def seconds_of(sid: str) -> int:
    """Return how long the call lasted: 2 to 5 seconds."""
    return 2 + zlib.crc32(sid.encode()) % 4


def recording_of(sid: str) -> bytes:
    """Return the call's recording: a tone as a WAV file, always the same for the same call."""
    period = 8 + zlib.crc32(sid.encode()) % 32
    wavelength = array.array("h", (round(9000 * math.sin(2 * math.pi * i / period)) for i in range(period)))
    if sys.byteorder == "big":
        wavelength.byteswap()
    samples = SAMPLE_RATE * seconds_of(sid)
    sound = (wavelength * (samples // period + 1))[:samples]
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(sound.tobytes())
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """The provider's HTTP server: a thread for each connection."""

    daemon_threads = True

    def __init__(self, port: int, provider: Provider) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hang up, which is their right; print what else goes wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the API, and the count of requests."""
        if match := CALL_PATH.fullmatch(self.path):
            self._answer_call(match["account"], match["sid"])
        elif match := RECORDING_PATH.fullmatch(self.path):
            self._answer_recording(match["sid"])
        elif self.path == "/_control/requests":
            self._send_json(200, self.server.provider.requests())
        else:
            self._send_rest_exception(404, "Not found")

    def do_POST(self) -> None:
        """Take a fault."""
        if self.path != "/_control/faults":
            self._send_rest_exception(404, "Not found")
            return
        try:
            fault = Fault(**self._read_json())
        except (TypeError, ValueError) as refusal:
            self._send_rest_exception(400, str(refusal))
            return
        self.server.provider.add_fault(fault)
        self._send_json(200, vars(fault))

    def do_PUT(self) -> None:
        """Change a call."""
        match = CONTROLLED_CALL_PATH.fullmatch(self.path)
        if not match:
            self._send_rest_exception(404, "Not found")
            return
        try:
            details = self._read_json()
        except (TypeError, ValueError) as refusal:
            self._send_rest_exception(400, str(refusal))
            return
        self.server.provider.change_call(match["sid"], details)
        self._send_json(200, details)

    def do_DELETE(self) -> None:
        """Forget the faults."""
        if self.path == "/_control/faults":
            self.server.provider.heal()
            self._send_json(200, {})
        else:
            self._send_rest_exception(404, "Not found")

    def _answer_call(self, account: str, sid: str) -> None:
        fault = self.server.provider.begin("calls")
        if not self._may_go_on(fault):
            return
        call = self.server.provider.call(sid, self.server.address)
        if call is None or account != self.server.provider.account:
            self._send_rest_exception(404, f"The requested resource {sid} was not found")
        else:
            self._send(200, "application/json", json.dumps({"Call": call}).encode(), fault)

    def _answer_recording(self, sid: str) -> None:
        fault = self.server.provider.begin("recordings")
        if not self._may_go_on(fault):
            return
        if self.server.provider.call(sid, self.server.address) is None:
            self._send_rest_exception(404, "No such recording")
        else:
            self._send(200, fault.content_type or "audio/x-wav", recording_of(sid), fault)

    def _may_go_on(self, fault: Fault) -> bool:
        """Keep silent or refuse, as the fault says; return whether there is an answer still to be given."""
        time.sleep(fault.delay)
        if fault.status is not None:
            headers = {"Retry-After": fault.retry_after, "Location": fault.location}
            given = {name: value for name, value in headers.items() if value is not None}
            self._send_rest_exception(fault.status, "As you wished", given)
            return False
        authorization = self.headers.get("Authorization", "")
        if not hmac.compare_digest(authorization.encode(), self.server.provider.authorization.encode()):
            self._send_rest_exception(401, "Authenticate")
            return False
        return True

    def _read_json(self) -> dict[str, Any]:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if not isinstance(body, dict):
            raise TypeError("a JSON object is expected")
        return body

    def _send_rest_exception(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        error = {"RestException": {"Status": status, "Message": message, "Code": 10_000 + status}}
        self._send_json(status, error, headers)

    def _send_json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(body).encode(), Fault(), headers)

    def _send(
        self, status: int, content_type: str, body: bytes, fault: Fault, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if fault.cut:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif fault.trickle:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(fault.trickle)
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: the backend's log is the interesting one."""


def main() -> None:
    """Serve until somebody ends it, or until standard input closes if it shall not outlive its parent."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend.fakes.telephony", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--account", default="demo")
    parser.add_argument("--key", default="demo-key")
    parser.add_argument("--token", default="demo-token")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    options = parser.parse_args()
    server = Server(options.port, Provider(options.account, options.key, options.token))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.address, flush=True)  # noqa: T201 - whoever started it waits for this line
    try:
        if options.with_parent:
            sys.stdin.buffer.read()
        else:
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    server.shutdown()


if __name__ == "__main__":
    main()
