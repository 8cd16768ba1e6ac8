"""The adapters under every framework, on real servers: the same is expected of all.

What a framework does otherwise stands in `EXCEPTIONS`, each with its reason, and nowhere else.
"""

from __future__ import annotations

import contextlib
import gc
import http.client
import logging.handlers
import queue
from typing import NamedTuple

import pytest

from resilience.http import is_request_id
from tests.examples.frameworks.common import BOUNDS, PIECES
from tests.examples.frameworks.serving import (  # noqa: F401 - fixtures
    FRAMEWORKS,
    ON_ASGI,
    asgi_server,
    everything_from,
    wsgi_server,
)


class Expected(NamedTuple):
    method: str
    path: str
    status: int
    code: str
    message: str | None = None
    """None: the framework's own words, whatever they are."""


EXPECTED = {
    "the library's own error": Expected("GET", "/missing", 404, "RESOURCE_NOT_FOUND", "User not found"),
    "a bug": Expected("GET", "/boom", 500, "INTERNAL_ERROR", "Something went wrong on our side"),
    "an error in a task group": Expected("GET", "/grouped", 404, "RESOURCE_NOT_FOUND", "User not found"),
    "a limit": Expected(
        "GET", "/limited", 429, "RATE_LIMIT_EXCEEDED", "Too many requests, please try again later"
    ),
    "the framework's exception": Expected("GET", "/teapot", 401, "UNAUTHORIZED", "Who are you?"),
    "an unknown path": Expected("GET", "/nonexistent", 404, "NOT_FOUND"),
    "a wrong method": Expected("PUT", "/ok", 405, "METHOD_NOT_ALLOWED"),
    "a query that is no number": Expected("GET", "/number", 400, "BAD_REQUEST"),
    "malformed JSON": Expected("POST", "/json", 400, "BAD_REQUEST"),
}

VALIDATION = {"status": 422, "code": "VALIDATION_ERROR"}
IN_HTML = {"message": "Please log in first"}
EXCEPTIONS = {
    # FastAPI calls both a failed validation, and answers that with 422.
    ("fastapi", "a query that is no number"): VALIDATION,
    ("fastapi", "malformed JSON"): VALIDATION,
    # Flask and Quart say it in a page of HTML, which nobody should take apart.
    ("flask", "the framework's exception"): IN_HTML,
    ("quart", "the framework's exception"): IN_HTML,
}
GO_BY_CONTENT_LENGTH = {"falcon", "django-wsgi"}
"""To them a chunked body is empty: they are for servers behind a proxy that makes one piece of it."""

# Django's ASGI handler leaves its temporary file to the garbage collector when a body is refused half-way.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def what_django_leaves():
    yield
    gc.collect()


@pytest.fixture
def written():
    """What the adapters log, whatever thread they do it in."""
    handler = logging.handlers.QueueHandler(queue.SimpleQueue())
    logger = logging.getLogger("resilience.http")
    logger.addHandler(handler)
    yield handler.queue
    logger.removeHandler(handler)


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return request.param


@pytest.fixture
def ask(framework, request):
    """Return what sends a request to the framework's application."""
    server = request.getfixturevalue("asgi_server" if framework in ON_ASGI else "wsgi_server")

    def asking(method, path, *arguments, **options):
        return server.ask(framework, method, path, *arguments, **options)

    asking.server = server
    return asking


JSON = {"Content-Type": "application/json"}


def test_a_good_answer_carries_the_id_and_the_limits(ask):
    answer = ask("GET", "/ok", headers={"X-Request-Id": "web-1"})
    assert (answer.status, answer.json) == (200, {"id": "web-1"})
    assert answer.header("x-request-id") == "web-1"
    assert (answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")) == ("6", "3")
    assert answer.header("retry-after") is None


def test_an_unsafe_id_is_replaced_everywhere(ask):
    answer = ask("GET", "/ok", headers={"X-Request-Id": "<script>"})
    assert is_request_id(answer.json["id"])
    assert answer.header("x-request-id") == answer.json["id"]


@pytest.mark.parametrize("what", EXPECTED)
def test_every_error_has_the_body(ask, framework, what):
    expected = EXPECTED[what]._replace(**EXCEPTIONS.get((framework, what), {}))
    body = b'{"n": ' if expected.method == "POST" else None
    answer = ask(expected.method, expected.path, body, JSON | {"X-Request-Id": "r1"})
    error = answer.json
    assert (answer.status, error["code"], error["requestId"]) == (expected.status, expected.code, "r1")
    assert error.keys() - {"fields"} == {"error", "code", "requestId", "timestamp"}
    assert error["error"] == (expected.message or error["error"])
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("x-request-id") == "r1"
    assert answer.header("cache-control") == "no-store"
    assert b"secret" not in answer.body


def test_what_a_framework_says_in_headers_is_kept(ask):
    assert (ask("GET", "/teapot").header("www-authenticate") or "").lower() == "basic"
    assert "GET" in ask("PUT", "/ok").header("allow")


def test_a_refusal_says_when_to_come_back(ask):
    answer = ask("GET", "/limited")
    assert (answer.header("retry-after"), answer.header("x-ratelimit-remaining")) == ("13", "0")


def test_the_problem_form_for_who_asks(ask):
    answer = ask("GET", "/nonexistent", headers={"Accept": "application/problem+json"})
    assert answer.header("content-type") == "application/problem+json"
    assert (answer.json["status"], answer.json["instance"]) == (404, "/nonexistent")


def test_head_has_no_body(ask):
    answer = ask("HEAD", "/nonexistent")
    assert (answer.status, answer.body) == (404, b"")
    assert is_request_id(answer.header("x-request-id"))


def test_a_stream_passes(ask):
    answer = ask("GET", "/stream")
    assert (answer.status, answer.body) == (200, b"".join(PIECES))
    assert answer.header("x-request-id")


def test_a_stream_that_fails_is_cut(ask):
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask("GET", "/torn")
    assert caught.value.partial == PIECES[0]


def test_a_bug_is_logged_with_its_id(ask, framework, written):
    """On ASGI, whose server runs in this process."""
    ask("GET", "/boom", headers={"X-Request-Id": "r1"})
    if framework in ON_ASGI:
        assert written.get_nowait().getMessage().startswith("request r1 failed: GET /boom")
    assert written.empty()


def test_json_passes(ask, framework):
    assert ask("POST", "/json", b'{"n": 1}', JSON).json == {"n": 1}
    if framework not in GO_BY_CONTENT_LENGTH:
        assert ask("POST", "/json", b'{"n": 2}', JSON, chunked=True).json == {"n": 2}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_passes_up_to_the_bound(ask, framework, chunked):
    if chunked and framework in GO_BY_CONTENT_LENGTH:
        assert ask("POST", "/raw", b"x", chunked=True).body == b"0"
        return
    size = BOUNDS["max_body"]
    assert ask("POST", "/raw", b"x" * size, chunked=chunked).body == str(size).encode()


@pytest.mark.parametrize("chunked", [False, True])
def test_fault_85_a_body_beyond_the_bound_is_413_under_every_framework(ask, framework, chunked):
    if chunked and framework in GO_BY_CONTENT_LENGTH:
        return  # it reads nothing of it, see above
    answer = ask("POST", "/raw", b"x" * (BOUNDS["max_body"] + 1), chunked=chunked)
    assert (answer.status, answer.json["code"]) == (413, "CONTENT_TOO_LARGE")


def test_fault_84_a_body_that_does_not_come_is_408_under_every_framework(ask, framework):
    head = "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: 9\r\n\r\n{"
    kinds = {"/json": "application/json", "/form": "application/x-www-form-urlencoded", "/raw": "text/plain"}
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(ask.server.connect()) for _ in kinds]
        for wire, (path, content_type) in zip(wires, kinds.items(), strict=True):
            wire.sendall((head % (path, framework, content_type)).encode())
        answers = [everything_from(wire) for wire in wires]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b'"code": "REQUEST_TIMEOUT"' in answer
        assert (
            framework not in ON_ASGI or b"connection: close" in answer
        )  # on WSGI it is closed without a word


def test_after_an_error_the_connection_serves_the_next(ask, framework):
    request = (
        b"GET /missing HTTP/1.1\r\nHost: ?\r\n\r\nGET /ok HTTP/1.1\r\nHost: ?\r\nConnection: close\r\n\r\n"
    )
    answer = ask.server.talk(framework, request)
    assert answer.count(b"HTTP/1.1 404 ") == answer.count(b"HTTP/1.1 200 ") == 1


def multipart(count):
    part = b'--b\r\nContent-Disposition: form-data; name="n%d"\r\n\r\n1\r\n'
    return b"".join(part % number for number in range(count)) + b"--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_a_form_passes(ask):
    assert ask("POST", "/form", multipart(3), FORM).body == b"3"


def test_fault_88_ten_thousand_parts_are_refused_by_every_framework(ask):
    """Each framework has a bound of its own, and a status of its own for it."""
    answer = ask("POST", "/form", multipart(10_000), FORM)
    assert answer.status in {400, 413}
    assert answer.json.keys() >= {"error", "code", "requestId"}
