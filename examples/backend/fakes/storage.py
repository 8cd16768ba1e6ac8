"""An S3 store on loopback: moto behind a proxy that checks signatures, and fails when told to.

    python -m examples.backend.fakes.storage --port 9000

moto keeps buckets and objects in memory, multipart uploads, metadata and all, but it believes whoever comes
and never fails. The proxy in front refuses what S3 would (see `sigv4`) and goes wrong as `faults` says.
Requests are counted by their method, and what they are about is the object's key. The kinds of faults:

    slow-down unavailable internal-error    503 SlowDown, 503 ServiceUnavailable, 500 InternalError
    rate                                    403 RequestRateLimitExceeded
    skew lockout                            403 RequestTimeTooSkewed, 403 AuthenticationLockout
    reset hang                              no answer, at once or after a minute
    late-error late-reset                   the same as internal-error and reset, but the object is stored
    torn slow wrong-length                  bodies that break off, drag on, or end before they should

Control requests, beside those in `control`:

    GET    /_control/objects      what is stored: {key: {"size", "sha256"}}
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

from moto.server import ThreadedMotoServer

from examples.backend.fakes import control, sigv4
from examples.backend.fakes.faults import Faults
from examples.backend.fakes.process import options_of, wait_for_the_end

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "slow-down": {"status": 503, "code": "SlowDown"},
    "unavailable": {"status": 503, "code": "ServiceUnavailable"},
    "internal-error": {"status": 500, "code": "InternalError"},
    "rate": {"status": 403, "code": "RequestRateLimitExceeded"},
    "skew": {"status": 403, "code": "RequestTimeTooSkewed"},
    "lockout": {"status": 403, "code": "AuthenticationLockout"},
    "reset": {"reset": True},
    "hang": {"delay": 60.0, "reset": True},
    "late-error": {"on": "PUT", "late": True, "status": 500, "code": "InternalError"},
    "late-reset": {"on": "PUT", "late": True, "reset": True},
    "torn": {"on": "GET", "cut": True},
    "slow": {"on": "GET", "slow": 1.0},
    "wrong-length": {"on": "GET", "announce": 1000},
}
OURS: Final = {"connection", "content-length", "date", "server", "transfer-encoding"}
"""Headers of an answer that the proxy says itself."""
SIGNED: Final = {"Authorization": "AWS4-HMAC-SHA256 Credential=fake/20260101/us-east-1/s3/aws4_request"}
"""What moto wants to see before it opens an object; it does not look closer."""
OK: Final = 200
NAMESPACE: Final = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Store(control.Server):
    """The proxy, and moto behind it.

    Args:
        port: Where it listens; 0 takes any free port.
        key: The access key.
        secret: Its secret.
        bucket: Made at the start.
    """

    def __init__(self, port: int, *, key: str, secret: str, bucket: str) -> None:
        super().__init__(port, Handler, Faults(KINDS))
        self.key = key
        self.secret = secret
        self.bucket = bucket
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self._digests: dict[tuple[str, str], str] = {}
        self._ask("PUT", f"/{bucket}")

    def forward(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Have moto answer; return status, headers and body."""
        connection = http.client.HTTPConnection(*self._moto.get_host_and_port())
        try:
            # The client's Host goes on: by it, moto tells buckets in paths from buckets in host names.
            connection.request(method, target, body, {"Content-Length": str(len(body)), **headers})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _ask(self, method: str, target: str) -> bytes:
        """Have moto do something for the fake itself; return the body of its answer."""
        status, _, body = self.forward(method, target, SIGNED, b"")
        if status != OK:
            raise RuntimeError(f"moto answers {method} {target} with {status}: {body.decode()}")
        return body

    def objects(self) -> dict[str, dict[str, Any]]:
        """Return what is stored, by key."""
        found: dict[str, dict[str, Any]] = {}
        more: str | None = ""
        while more is not None:
            page = f"/{self.bucket}?list-type=2" + (f"&continuation-token={quote(more)}" if more else "")
            listing = ET.fromstring(self._ask("GET", page))  # noqa: S314 - moto's
            for entry in listing.iter(f"{NAMESPACE}Contents"):
                key, etag = entry.findtext(f"{NAMESPACE}Key", ""), entry.findtext(f"{NAMESPACE}ETag", "")
                size = int(entry.findtext(f"{NAMESPACE}Size", "0"))
                found[key] = {"size": size, "sha256": self._digest(key, etag)}
            more = listing.findtext(f"{NAMESPACE}NextContinuationToken")
        return found

    def _digest(self, key: str, etag: str) -> str:
        if (key, etag) not in self._digests:
            body = self._ask("GET", f"/{self.bucket}/{quote(key)}")
            self._digests[key, etag] = hashlib.sha256(body).hexdigest()
        return self._digests[key, etag]


class Handler(control.Handler):
    """Answers one connection's requests."""

    server: Store

    def serve(self) -> None:
        """Pass a request on to moto, if it is signed and no fault is in the way."""
        body = self.read_body()
        key = unquote(self.path.partition("?")[0].removeprefix(f"/{self.server.bucket}").removeprefix("/"))
        fault = self.server.faults.begin(self.command, key)
        if not fault.late and not self.suffer(fault):
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        known = {"key": self.server.key, "secret": self.server.secret}
        try:
            sigv4.check(self.command, self.path, headers, body, **known, now=time.time())
        except sigv4.RefusedError as refusal:
            self.refuse(refusal.status, str(refusal), code=refusal.code)
            return
        status, answered, content = self.server.forward(self.command, self.path, headers, body)
        if fault.late and not self.suffer(fault):
            return
        kept = {name: value for name, value in answered.items() if name.lower() not in OURS}
        if self.command == "HEAD":
            kept["Content-Length"] = answered.get("Content-Length", "0")
        self.reply(status, content, kept, fault)

    def refuse(self, status: int, message: str, *, code: str | None = None, **headers: str | None) -> None:
        """Answer with an error as S3 writes it."""
        error = ET.Element("Error")
        for name, text in {"Code": code or str(status), "Message": message, "Resource": self.path}.items():
            ET.SubElement(error, name).text = text
        body = ET.tostring(error, "utf-8", xml_declaration=True)
        self.reply(status, body, {"Content-Type": "application/xml", **headers})

    def control(self, request: list[str], body: dict[str, Any]) -> object:
        """Tell what is stored, beside what every fake does."""
        if request == ["GET", "objects"]:
            return self.server.objects()
        return super().control(request, body)


def main() -> None:
    """Serve until somebody ends it, or until standard input closes if it shall not outlive its parent."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend.fakes.storage", description=__doc__)
    parser.add_argument("--key", default="demo-key")
    parser.add_argument("--secret", default="demo-secret")
    parser.add_argument("--bucket", default="recordings")
    options = options_of(parser)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto's server would tell each request
    store = Store(options.port, key=options.key, secret=options.secret, bucket=options.bucket)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    print(store.address, flush=True)  # noqa: T201 - whoever started it waits for this line
    wait_for_the_end(with_parent=options.with_parent)


if __name__ == "__main__":
    main()
