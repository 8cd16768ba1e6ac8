"""The fault catalogue's lines on what clients send: bodies that are slow, too long, lying, or poisoned.

What servers and frameworks make of them is tried on real servers; what JSON may be, on the reader of the
example backend behind both adapters. More of line 84, 85 and 88 stands in `tests/examples/frameworks`, for
all frameworks.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tracemalloc
from wsgiref.util import setup_testing_defaults

import pytest

from examples.adapters import asgi, wsgi
from examples.backend.api.strict_json import MAX_DEPTH, parse
from resilience import ServiceError
from tests.examples.frameworks.serving import asgi_server, everything_from, wsgi_server  # noqa: F401 - fixtures

POST = b"POST /raw HTTP/1.1\r\nHost: ?\r\nConnection: close\r\n"
GET = b"GET /ok HTTP/1.1\r\nHost: ?\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=["starlette", "flask"])
def ask(request):
    """Return what sends raw bytes to one framework's server, and the number of clients that it can bear."""
    on_asgi = request.param == "starlette"
    server = request.getfixturevalue("asgi_server" if on_asgi else "wsgi_server")

    def asking(raw):
        return server.talk(request.param, raw)

    asking.server = server
    asking.host = request.param.encode()
    asking.crowd = 1000 if on_asgi else 32  # on threads: twice as many as there are
    return asking


# --- 84: slow bodies -----------------------------------------------------------------------------


def test_fault_84_slow_clients_are_let_go_at_the_deadline_while_others_are_served(ask):
    head = POST.replace(b"?", ask.host) + b"Content-Length: 1000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        crowd = []
        for _ in range(ask.crowd):
            wire = stack.enter_context(ask.server.connect())
            wire.sendall(head + b"x")
            crowd.append(wire)
        served = [ask(GET) for _ in range(5)]
        for wire in crowd:
            with contextlib.suppress(ConnectionError):
                wire.sendall(b"x")  # one byte more does not begin the time anew
        answers = [everything_from(wire) for wire in crowd]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in served)
    assert {answer[:13] for answer in answers} == {b"HTTP/1.1 408 "}


# --- 85: long bodies, and what lies about them ---------------------------------------------------

TOO_LARGE = b"HTTP/1.1 413 "
BAD = b"HTTP/1.1 400 "


@pytest.mark.parametrize(
    ("rest", "statuses"),
    [
        (b"Content-Length: 2000001\r\n\r\n", {TOO_LARGE}),
        (b"Content-Length: 99999999999999999999\r\n\r\n", {TOO_LARGE, BAD}),
        (b"Content-Length: -1\r\n\r\n", {BAD}),
        (b"Content-Length: 1e3\r\n\r\n", {BAD}),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456", {BAD}),
        (b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", {BAD}),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345678\r\n0\r\n\r\n", {BAD}),
        (b"Transfer-Encoding: chunked\r\n\r\n1E8481\r\n" + b"x" * 2_000_001 + b"\r\n0\r\n\r\n", {TOO_LARGE}),
    ],
)
def test_fault_85_a_body_that_is_too_long_or_lies_is_refused_by_server_or_adapter(ask, rest, statuses):
    answer = ask(POST + rest)
    assert answer[:13] in statuses


def test_fault_85_who_leaves_in_the_middle_of_a_body_takes_nobody_along(ask):
    with ask.server.connect() as wire:
        wire.sendall(POST.replace(b"?", ask.host) + b"Content-Length: 1000\r\n\r\nx")
    assert ask(GET).startswith(b"HTTP/1.1 200 ")


def test_fault_85_no_more_than_the_bound_is_taken_in():
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            assert 0 <= size <= 1001, "this would be kept in memory"
            self.given += size
            return b"x" * size

    def app(environ, start_response):
        environ["wsgi.input"].read()

    endless = Endless()
    status, _ = over_wsgi(app, endless, terminated=True, max_body=1000)
    assert (status, endless.given) == (413, 1001)


async def test_fault_85_nor_on_asgi():
    given = []

    async def app(scope, receive, send):
        while True:
            given.append(await receive())

    async def pieces():
        while True:
            yield b"x" * 100

    status, _ = await over_asgi(app, pieces(), max_body=1000)
    assert (status, len(given)) == (413, 10)


# --- JSON behind both adapters -------------------------------------------------------------------


async def over_asgi(app, pieces, **bounds):
    """Return status and body of the answer to a request whose body is these pieces."""
    sent = []
    left = 50  # of what goes on arriving while the answer is on its way

    async def receive():
        nonlocal left
        left -= 1
        if left < 0:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await asgi.ResilienceMiddleware(app, **bounds)(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def over_wsgi(app, stream, declared=None, *, terminated=False, **bounds):
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": stream, "wsgi.input_terminated": terminated}
    if declared is not None:
        environ["CONTENT_LENGTH"] = str(declared)
    setup_testing_defaults(environ)
    statuses = []
    chunks = wsgi.ResilienceMiddleware(app, **bounds)(environ, lambda status, *_: statuses.append(status))
    return int(statuses[0][:3]), b"".join(chunks)


async def answers_to(body):
    """Return what an application that reads JSON answers to `body`, on ASGI and on WSGI."""

    async def asgi_app(scope, receive, send):
        text = repr(parse((await receive())["body"])).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text})

    def wsgi_app(environ, start_response):
        text = repr(parse(environ["wsgi.input"].read())).encode()
        start_response("200 OK", [])
        return [text]

    async def pieces():
        yield body

    return [await over_asgi(asgi_app, pieces()), over_wsgi(wsgi_app, io.BytesIO(body), len(body))]


async def refusal_of(body):
    """Return why `body` is refused, which is the same on both."""
    errors = []
    for status, answer in await answers_to(body):
        error = json.loads(answer)
        assert (status, error["code"]) == (400, "VALIDATION_ERROR")
        errors.append(error["error"])
    assert len(set(errors)) == 1
    return errors[0]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b'[{"a":' * 50_000]
)
async def test_fault_86_a_hundred_thousand_levels_are_a_400(body):
    assert await refusal_of(body) == f"The JSON is more than {MAX_DEPTH} levels deep"


@pytest.mark.parametrize(
    "body",
    [
        b"NaN",
        b'{"n": Infinity}',
        b"[-Infinity]",
        b"1e400",
        b"[-1e400]",
        b"9" * 100_000,
        b"[-" + b"9" * 100_000 + b"]",
        b"9223372036854775808",
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "\\u0062": 1}}',
    ],
)
async def test_fault_87_numbers_that_are_none_and_names_that_come_twice_are_a_400(body):
    """400 and not 422: the house answers all validation so."""
    assert "The JSON" in await refusal_of(body)


async def test_fault_87_a_bool_stays_one_for_the_schema_to_tell_from_a_number():
    assert [answer for _, answer in await answers_to(b"[true, 1]")] == [b"[True, 1]"] * 2
    assert [type(value) for value in parse(b"[true, 1, 1.0]")] == [bool, int, float]


@pytest.mark.parametrize(
    "body",
    [
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'"\\ud800"',
        b"a=1&b=2",
        b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' * 10_000 + b"--b--\r\n",
        b"<a/>",
        b"\x00" * 1000,
    ],
)
async def test_fault_88_what_is_not_json_in_utf8_is_a_400(body):
    assert await refusal_of(body)


async def test_fault_88_a_compressed_bomb_is_not_unpacked():
    bomb = gzip.compress(b"[" * 50_000_000)
    tracemalloc.start()
    assert "not UTF-8" in await refusal_of(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_reader_s_error_holds_nothing_of_the_body():
    with pytest.raises(ServiceError) as caught:
        parse(b'{"password": "secret" "')
    assert "secret" not in repr(caught.value)
