"""What gunicorn's threads are spared: clients that do not read, and requests that never end."""

from __future__ import annotations

import errno
import socket
import threading

import pytest

from examples.backend.api.standing import StandingHeaders
from examples.backend.serving import threads
from examples.backend.serving.threads import Patient, Requests
from examples.backend.settings import Settings

PATIENCE = 10.0
STANDING = StandingHeaders(Settings())


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    patient = Patient(fileno=ours.detach())
    theirs.settimeout(PATIENCE)
    with patient, theirs:
        yield patient, theirs


def test_a_client_that_does_not_read_is_as_good_as_gone(pair, monkeypatch):
    monkeypatch.setattr(threads, "PATIENCE", 0.05)
    patient, _ = pair
    patient.setblocking(True)
    with pytest.raises(ConnectionResetError, match="does not read"):
        patient.sendall(b" " * 10_000_000)


def test_a_client_that_reads_gets_everything(pair):
    patient, theirs = pair
    patient.setblocking(True)
    received = bytearray()

    def read():
        while len(received) < 1_000_000:
            received.extend(theirs.recv(65536))

    reading = threading.Thread(target=read)
    reading.start()
    patient.sendall(b" " * 1_000_000)
    reading.join(PATIENCE)
    assert len(received) == 1_000_000
    patient.setblocking(False)
    with pytest.raises(BlockingIOError):
        patient.recv(1)


def environ_of(connection, method="GET"):
    return {"REQUEST_METHOD": method, "gunicorn.socket": connection, "resilience.request_id": "r1"}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_that_has_no_answer_is_given_one_when_the_end_has_come(pair, method):
    patient, theirs = pair
    begun, may_end = threading.Event(), threading.Event()
    told = []

    def app(_environ, start_response):
        begun.set()
        assert may_end.wait(PATIENCE)
        start_response("200 OK", [])
        return []

    def start_response(*args):
        told.append(args)
        patient.sendall(b"too late")

    requests = Requests(app, STANDING)
    failures = []

    def serve():
        try:
            requests(environ_of(patient, method), start_response)
        except OSError as error:
            failures.append(error.errno)

    thread = threading.Thread(target=serve)
    thread.start()
    assert begun.wait(PATIENCE)
    requests.cut_off()
    may_end.set()
    thread.join(PATIENCE)
    received = b""
    while piece := theirs.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    for line in (
        b"Retry-After: 1",
        b"X-Request-Id: r1",
        b"Connection: close",
        b"X-Content-Type-Options: nosniff",
    ):
        assert line in head.split(b"\r\n")
    assert (b'"SERVICE_UNAVAILABLE"' in body) == (method == "GET")
    assert failures == [errno.EPIPE]


def test_a_request_whose_answer_has_begun_is_left_alone(pair):
    patient, theirs = pair

    def app(_environ, start_response):
        start_response("200 OK", [])
        return []

    requests = Requests(app, STANDING)
    requests(environ_of(patient), lambda *_: None)
    requests.cut_off()
    patient.sendall(b"the rest")
    assert theirs.recv(100) == b"the rest"
