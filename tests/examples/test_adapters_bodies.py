"""Requests' bodies through the adapters: how long they may be and may take, and what lies about it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
from wsgiref.util import setup_testing_defaults

import pytest
from fastapi import FastAPI
from flask import Flask, request

from examples.adapters import asgi, wsgi
from examples.adapters.wsgi_input import CONNECTIONS
from resilience import ServiceError, not_found_error
from resilience.testing import FakeClock

# --- ASGI ----------------------------------------------------------------------------------------


class Client:
    """A client, and the server between: what it sends piece by piece, and what it gets."""

    def __init__(self, *pieces, declared=None, then="stay", **scope):
        self.pieces = list(pieces)
        self.then = then
        self.taken = 0
        self.sent = []
        lengths = [declared] if isinstance(declared, str | int) else declared or []
        headers = [(b"content-length", str(length).encode()) for length in lengths]
        self.scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, **scope}

    async def receive(self):
        if self.pieces:
            piece = self.pieces.pop(0)
            if isinstance(piece, float):
                await asyncio.sleep(piece)
                piece = self.pieces.pop(0)
            self.taken += len(piece)
            more = bool(self.pieces) or self.then != "end"
            return {"type": "http.request", "body": piece, "more_body": more}
        if self.then == "leave":
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        return None

    async def send(self, message):
        self.sent.append(message)

    async def talk(self, app, **bounds):
        await asgi.ResilienceMiddleware(app, **bounds)(self.scope, self.receive, self.send)
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def error(self):
        return json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))

    @property
    def is_closed(self):
        return (b"connection", b"close") in self.sent[0]["headers"]


async def reading(scope, receive, send):
    """Read the body to its end, then say how long it was."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def never(scope, receive, send):
    raise AssertionError("the application must not see this")


async def stubborn(scope, receive, send):
    """Do as frameworks do: make an answer of its own of whatever goes wrong with the body."""
    try:
        await reading(scope, receive, send)
    except Exception as error:
        await send({"type": "http.response.start", "status": 400, "headers": []})
        await send({"type": "http.response.body", "body": b"There was an error parsing the body"})
        raise KeyError from error


async def quiet(scope, receive, send):
    """Swallow what goes wrong with the body, and be well."""
    try:
        await reading(scope, receive, send)
    except ServiceError:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})


@pytest.mark.parametrize("size", [0, 9, 10])
async def test_a_body_within_bounds_passes(size):
    client = Client(b"x" * size, declared=size, then="end")
    assert (await client.talk(reading, max_body=10, body_timeout=9.0)).status == 200
    assert client.sent[1]["body"] == str(size).encode()
    assert not client.is_closed


async def test_without_bounds_there_are_none():
    client = await Client(*[b"x" * 1000] * 1000, then="end").talk(reading)
    assert client.sent[1]["body"] == b"1000000"


async def test_a_body_that_says_it_is_too_long_is_not_read():
    client = await Client(declared=11, then="leave").talk(never, max_body=10)
    assert (client.status, client.error["code"]) == (413, "CONTENT_TOO_LARGE")
    assert client.is_closed


@pytest.mark.parametrize("app", [reading, stubborn, quiet])
async def test_a_body_that_turns_out_too_long_is_read_no_further(app):
    client = Client(b"12345", b"67890", b"1", b"not given to the application", then="leave")
    seen = []

    async def counting(scope, receive, send):
        async def counted():
            message = await receive()
            seen.append(message)
            return message

        await app(scope, counted, send)

    await client.talk(counting, max_body=10)
    assert (client.status, client.error["code"]) == (413, "CONTENT_TOO_LARGE")
    assert client.is_closed
    assert len(seen) == 2
    assert client.pieces == []  # thrown away, so that the client gets to read the answer


async def test_the_answer_is_there_before_the_rest_is_thrown_away():
    client = Client(declared=11, then="stay")
    client.pieces = [b"x"] * 3
    talking = asyncio.create_task(client.talk(never, max_body=10))
    await asyncio.sleep(0)
    assert client.sent[1]["more_body"] is True
    assert client.error["code"] == "CONTENT_TOO_LARGE"
    talking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talking


async def test_who_goes_on_sending_is_left_after_a_moment(monkeypatch):
    monkeypatch.setattr(asgi, "LINGER", 0.01)
    client = await Client(declared=11, then="stay").talk(never, max_body=10)
    assert client.sent[-1] == {"type": "http.response.body", "body": b""}


@pytest.mark.parametrize(
    "declared", ["-1", "+1", "1.0", "0x10", "", " 1", "1 ", "1_0", "\u0661", "9" * 19, "a", ["1", "2"]]
)
async def test_a_malformed_length_is_refused(declared):
    client = await Client(b"1", declared=declared, then="end").talk(never)
    assert (client.status, client.error["code"]) == (400, "BAD_REQUEST")


async def test_a_length_that_is_said_twice_is_one():
    assert (await Client(b"1", declared=["1", "1"], then="end").talk(reading)).status == 200


@pytest.mark.parametrize(("pieces", "words"), [([b"123", b""], "shorter"), ([b"123", b"456"], "longer")])
async def test_a_length_that_lies_is_refused(pieces, words):
    client = await Client(*pieces, declared=5, then="end").talk(stubborn)
    assert client.status == 400
    assert words in client.error["error"]


@pytest.mark.parametrize("app", [reading, stubborn, quiet])
async def test_a_body_that_takes_too_long_is_refused(app):
    client = await Client(b"1", declared=5).talk(app, body_timeout=0.01)
    assert (client.status, client.error["code"]) == (408, "REQUEST_TIMEOUT")
    assert client.is_closed


async def test_a_byte_now_and_then_does_not_begin_the_time_anew():
    pieces = [part for _ in range(100) for part in (0.01, b"x")]
    client = await Client(*pieces, declared=1000).talk(reading, body_timeout=0.05)
    assert client.status == 408
    assert client.taken < 10


async def test_what_the_application_does_meanwhile_costs_nothing():
    clock = FakeClock()

    async def slow(scope, receive, send):
        async def slowly():
            clock.advance(60.0)
            return await receive()

        await reading(scope, slowly, send)

    client = await Client(b"1", b"2", b"3", then="end").talk(slow, body_timeout=9.0, clock=clock)
    assert client.status == 200


async def test_waiting_for_the_client_to_leave_has_no_end():
    left = []

    async def app(scope, receive, send):
        await reading(scope, receive, send)
        left.append(await receive())

    client = Client(b"1", 0.03, b"", declared=1, then="end")
    client.pieces = [b"1"]
    talking = asyncio.create_task(client.talk(app, body_timeout=0.01))
    await asyncio.sleep(0.03)
    assert not talking.done()
    client.then = "leave"
    talking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await talking
    assert (client.status, left) == (200, [])


async def test_a_timeout_that_is_not_ours_passes():
    async def failing():
        raise TimeoutError("the server's")

    client = Client()
    client.receive = failing
    await client.talk(reading, body_timeout=9.0)
    assert (client.status, client.error["code"]) == (504, "TIMEOUT")


async def test_a_refusal_after_the_start_ends_the_response(caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await reading(scope, receive, send)

    client = Client(b"x" * 11)
    with pytest.raises(ServiceError, match="too large"):
        await client.talk(app, max_body=10)
    assert client.status == 200
    assert "failed when its response had started" in caplog.text


async def test_a_bug_behind_a_refusal_is_still_logged(caplog):
    await Client(b"1", declared=5).talk(stubborn, body_timeout=0.01)
    assert "KeyError" in caplog.text


async def test_an_http_2_connection_is_not_the_request_s_to_close():
    client = await Client(declared=11, then="leave", http_version="2").talk(never, max_body=10)
    assert client.status == 413
    assert not client.is_closed


async def test_fastapi_s_own_answer_gives_way():
    """It makes 400 of anything that is raised while it reads JSON."""
    app = FastAPI()

    @app.post("/")
    def post(body: dict) -> None: ...

    scope = {"headers": [(b"content-type", b"application/json")], "query_string": b""}
    client = await Client(b'{"a": "' + b"x" * 20, then="leave", **scope).talk(app, max_body=10)
    assert client.status == 413


@pytest.mark.parametrize("adapter", [asgi, wsgi])
@pytest.mark.parametrize(
    "bounds",
    [{"max_body": -1}, {"max_body": 1.5}, {"max_body": True}, {"body_timeout": 0}, {"body_timeout": "1"}],
)
def test_bounds_that_cannot_be_kept_are_refused(adapter, bounds):
    with pytest.raises((TypeError, ValueError), match=next(iter(bounds))):
        adapter.ResilienceMiddleware(None, **bounds)


# --- WSGI ----------------------------------------------------------------------------------------


def talk(app, stream=b"", declared=None, *, terminated=False, connection=None, **bounds):
    """Return status and error, or body, of an answer to a request with such a body."""
    environ = {"wsgi.input": io.BytesIO(stream) if isinstance(stream, bytes) else stream}
    environ |= {"REQUEST_METHOD": "POST", "wsgi.input_terminated": terminated}
    if declared is not None:
        environ["CONTENT_LENGTH"] = str(declared)
    if connection is not None:
        environ[CONNECTIONS[0]] = connection
    setup_testing_defaults(environ)
    answers = []
    written = []

    def start_response(*answer):
        answers.append(answer)
        return written.append

    chunks = wsgi.ResilienceMiddleware(app, **bounds)(environ, start_response)
    body = b"".join([*written, *chunks])
    if hasattr(chunks, "close"):
        chunks.close()
    ((status, _),) = answers
    return int(status[:3]), json.loads(body) if body.startswith(b"{") else body


def wsgi_reading(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


def wsgi_never(environ, start_response):
    raise AssertionError("the application must not see this")


def wsgi_quiet(environ, start_response):
    try:
        return wsgi_reading(environ, start_response)
    except ServiceError:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"fine"]


def wsgi_stubborn(environ, start_response):
    try:
        return wsgi_reading(environ, start_response)
    except ServiceError:
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return iter([b"There was an error parsing the body"])


def wsgi_lazy(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield environ["wsgi.input"].read()


def wsgi_writing(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except ServiceError:
        start_response("200 OK", [("Content-Type", "text/plain")])(b"fine")
    return []


def wsgi_failing(environ, start_response):
    try:
        return wsgi_reading(environ, start_response)
    except ServiceError as error:
        raise KeyError from error


APPS = [wsgi_failing, wsgi_reading, wsgi_quiet, wsgi_stubborn, wsgi_lazy, wsgi_writing]


@pytest.mark.parametrize("size", [0, 9, 10])
def test_wsgi_a_body_within_bounds_passes(size):
    body = b"x" * size
    assert talk(wsgi_reading, body, size, max_body=10, body_timeout=9.0) == (200, body)
    assert talk(wsgi_lazy, body, terminated=True, max_body=10, body_timeout=9.0) == (200, body)


def test_wsgi_without_bounds_there_are_none():
    body = b"x" * 1_000_000
    assert talk(wsgi_reading, body, len(body)) == (200, body)
    assert talk(wsgi_reading, body, terminated=True) == (200, body)


def test_wsgi_the_body_ends_where_its_length_says():
    assert talk(wsgi_reading, b"12345 and the next request", 5) == (200, b"12345")
    assert talk(wsgi_reading, b"might block for ever") == (200, b"")


def test_wsgi_a_body_that_says_it_is_too_long_is_not_read():
    status, error = talk(wsgi_never, b"x" * 11, 11, max_body=10)
    assert (status, error["code"]) == (413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize("app", APPS)
def test_wsgi_a_body_that_turns_out_too_long_is_read_no_further(app):
    stream = io.BytesIO(b"x" * 1000)
    status, error = talk(app, stream, terminated=True, max_body=10)
    assert (status, error["code"]) == (413, "CONTENT_TOO_LARGE")
    assert stream.tell() == 11


@pytest.mark.parametrize("declared", ["-1", "+1", "1.0", "\u0661", "9" * 19, "a"])
def test_wsgi_a_malformed_length_is_refused(declared):
    status, error = talk(wsgi_never, b"1", declared)
    assert (status, error["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("app", APPS)
def test_wsgi_a_body_that_breaks_off_is_refused(app):
    status, error = talk(app, b"123", 5)
    assert status == 400
    assert "shorter" in error["error"]


@pytest.mark.parametrize("app", APPS)
def test_wsgi_a_body_that_cannot_be_read_is_the_client_s_fault(app):
    class Stream:
        def read(self, size):
            raise OSError("Invalid chunk header")

    status, error = talk(app, Stream(), terminated=True)
    assert (status, error["code"]) == (400, "BAD_REQUEST")
    assert "chunk" not in error["error"]


def test_wsgi_all_ways_of_reading():
    def app(environ, start_response):
        stream = environ["wsgi.input"]
        start_response("200 OK", [("Content-Type", "text/plain")])
        read = [stream.readline(), stream.readline(2), stream.read(0), stream.read(3), stream.readline(99)]
        read += [next(iter(stream)), *stream.readlines(1)]
        assert stream.read() == stream.readline() == b""
        assert stream.readlines() == list(stream) == []
        return [b"|".join(read)]

    lines = b"one\ntwo\nthree\nfour\nfive\nsix"
    whole = b"one\n|tw||o\nt|hree\n|four\n|five\n|six"
    assert talk(app, lines, len(lines)) == (200, whole)
    assert talk(app, lines, terminated=True, max_body=100) == (200, whole)


def test_wsgi_a_line_too_is_bounded():
    def app(environ, start_response):
        environ["wsgi.input"].readline()

    assert talk(app, b"x" * 100, terminated=True, max_body=10)[0] == 413


def test_wsgi_a_server_that_gives_less_than_it_is_asked_for():
    class Stream(io.BytesIO):
        def read(self, size):
            return super().read(min(size, 2))

    assert talk(wsgi_reading, Stream(b"12345"), 5) == (200, b"12345")


@pytest.fixture
def wire():
    """Both ends of a connection: the server's, and the client's."""
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


@pytest.mark.parametrize("app", APPS)
def test_wsgi_a_body_that_takes_too_long_is_refused(app, wire):
    server, client = wire
    client.sendall(b"12")
    with server.makefile("rb") as stream:
        status, error = talk(app, stream, 5, connection=server, body_timeout=0.02)
    assert (status, error["code"]) == (408, "REQUEST_TIMEOUT")
    assert server.recv(1) == b""  # so whoever keeps the connection alive finds that it has ended


def test_wsgi_a_byte_now_and_then_does_not_begin_the_time_anew(wire):
    server, client = wire
    given = []

    def drip():
        with contextlib.suppress(BrokenPipeError):  # the server has had enough
            while not stopped.wait(0.01):
                given.append(client.send(b"x"))

    stopped = threading.Event()
    dripping = threading.Thread(target=drip)
    dripping.start()
    with server.makefile("rb") as stream:
        status, _ = talk(wsgi_reading, stream, 1000, connection=server, body_timeout=0.05)
    stopped.set()
    dripping.join()
    assert status == 408
    assert len(given) < 50


def test_wsgi_a_read_that_fails_when_its_time_is_over_is_too_late(wire):
    class Stream:
        """gunicorn's chunked reader: the end of the connection is an error to it."""

        def read(self, size):
            assert wire[0].recv(size) == b""
            raise OSError("no more data")

    assert talk(wsgi_reading, Stream(), terminated=True, connection=wire[0], body_timeout=0.02)[0] == 408


def test_wsgi_what_is_too_large_is_thrown_away_once_the_answer_is_there(wire):
    server, client = wire
    with server.makefile("rb") as stream:
        environ = {"wsgi.input": stream, "CONTENT_LENGTH": "11", CONNECTIONS[1]: server}
        setup_testing_defaults(environ)
        chunks = iter(wsgi.ResilienceMiddleware(wsgi_never, max_body=10)(environ, lambda *_: None))
        assert json.loads(next(chunks))["code"] == "CONTENT_TOO_LARGE"
        client.sendall(b"x" * 11 + b"the next request")
        assert list(chunks) == []
        assert stream.read(8) == b"the next"


@pytest.mark.parametrize("piece", [b"", b"x"])
def test_wsgi_who_goes_on_sending_is_left_after_a_moment(wire, monkeypatch, piece):
    monkeypatch.setattr(wsgi, "LINGER", 0.01)
    server, client = wire
    client.sendall(piece)
    with server.makefile("rb") as stream:
        assert talk(wsgi_never, stream, 11, connection=server, max_body=10)[0] == 413
    assert server.recv(1) == b""


def test_wsgi_a_body_that_cannot_be_thrown_away_either_is_left(wire):
    class Stream:
        def read(self, size):
            raise OSError("Invalid chunk header")

    assert talk(wsgi_never, Stream(), 11, connection=wire[0], max_body=10)[0] == 413


def test_wsgi_a_connection_that_is_gone_does_not_hold_the_alarm_up(wire):
    server, _ = wire

    class Stream:
        def read(self, size):
            server.recv(size)
            server.close()
            return b""

    server.shutdown(socket.SHUT_RD)
    assert talk(wsgi_reading, Stream(), 5, connection=server, body_timeout=9.0)[0] == 400


def test_wsgi_in_time_the_connection_lives_on(wire):
    server, client = wire
    client.sendall(b"12345and the next request")
    with server.makefile("rb") as stream:
        assert talk(wsgi_reading, stream, 5, connection=server, body_timeout=9.0) == (200, b"12345")
        assert stream.peek(3).startswith(b"and")
        client.sendall(b"!")


def test_wsgi_where_the_server_hides_the_connection_time_is_looked_at_between_reads():
    clock = FakeClock()

    class Slow(io.BytesIO):
        def read(self, size):
            clock.advance(6.0)
            return super().read(1)

    assert talk(wsgi_reading, Slow(b"12345"), 5, body_timeout=9.0, clock=clock)[0] == 408
    assert talk(wsgi_reading, Slow(b"1"), 1, body_timeout=9.0, clock=clock) == (200, b"1")


def test_wsgi_what_the_application_does_meanwhile_costs_nothing():
    clock = FakeClock()

    def app(environ, start_response):
        clock.advance(60.0)
        first = environ["wsgi.input"].read(1)
        clock.advance(60.0)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [first + environ["wsgi.input"].read()]

    assert talk(app, b"12345", 5, body_timeout=9.0, clock=clock) == (200, b"12345")


def test_wsgi_a_refusal_after_the_start_ends_the_response(caplog):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        environ["wsgi.input"].read()

    with pytest.raises(ServiceError, match="too large"):
        talk(app, b"x" * 20, terminated=True, max_body=10)
    assert "failed when its response had started" in caplog.text


def test_wsgi_what_is_refused_is_closed_too():
    class Pieces(list):
        closed = 0

        def close(self):
            self.closed += 1

    pieces = Pieces([b"fine"])

    def app(environ, start_response):
        with pytest.raises(ServiceError, match="shorter"):
            environ["wsgi.input"].read()
        with pytest.raises(ServiceError, match="shorter"):
            environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces

    assert talk(app, b"123", 5)[0] == 400
    assert pieces.closed == 1


def test_wsgi_flask_s_own_answer_gives_way():
    app = Flask(__name__)
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.post("/")
    def post():
        return str(len(request.get_data()))

    assert talk(app, b"x" * 11, terminated=True, max_body=10)[0] == 413
    assert talk(app, b"x" * 10, 10, max_body=10) == (200, b"10")
    assert talk(app, b"x" * 9, 10, max_body=10)[0] == 400


async def test_an_error_of_the_application_s_own_is_as_before():
    async def app(scope, receive, send):
        raise not_found_error("User")

    assert (await Client(declared=5).talk(app, max_body=10, body_timeout=1.0)).status == 404
