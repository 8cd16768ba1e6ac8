"""The ASGI and the WSGI wrapper, around real frameworks and around applications at their worst."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import tracemalloc
from typing import NamedTuple
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import httpx
import pydantic
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket  # noqa: TC002 - read at run time
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route, WebSocketRoute

from examples.adapters import asgi, note, request_id, wsgi
from resilience import http
from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    authentication_error,
    not_found_error,
    service_unavailable_error,
)
from resilience.http import ErrorMapper

ALLOWED = Decision.of(True, Quota(6, per=900.0), "login", remaining=3, reset_after=42.0)
REFUSED = Decision.of(False, Quota(6, per=900.0), "login", remaining=0, reset_after=60.0, retry_after=12.1)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) <= 1, values
        return values[0] if values else None


# --- ASGI: a real framework ----------------------------------------------------------------------


class User(pydantic.BaseModel):
    email: str
    age: int


def fastapi_app() -> FastAPI:  # noqa: C901 - a flat list of routes
    app = FastAPI()
    app.add_middleware(CORSMiddleware, allow_origins=["https://ui.example"])

    @app.get("/ok")
    def ok(request: Request) -> dict:
        note(ALLOWED)
        return {
            "state": request.state.request_id,
            "header": request.headers["x-request-id"],
            "context": request_id(),
        }

    @app.post("/users")
    def users(user: User) -> None: ...

    @app.get("/boom")
    async def boom() -> None:
        raise KeyError("/srv/secret")

    @app.get("/missing")
    def missing() -> None:
        raise not_found_error("User")

    @app.get("/grouped")
    async def grouped() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(missing))

    @app.get("/teapot")
    def teapot() -> None:
        headers = {"WWW-Authenticate": "Basic", "ETag": "x", "Cache-Control": "public"}
        raise HTTPException(401, "Who are you?", headers)

    @app.get("/limited")
    def limited() -> None:
        raise RateLimitedError(REFUSED)

    @app.get("/open")
    def open_breaker() -> None:
        note(ALLOWED)
        raise CircuitOpenError("storage-eu-7", 4.2)

    @app.get("/cookies")
    def cookies() -> JSONResponse:
        response = JSONResponse({"detail": "Logged out"}, 403)
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    @app.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"status": "fail"}, 503, media_type="application/health+json")

    @app.get("/own")
    def own() -> JSONResponse:
        return JSONResponse(http.error_body(not_found_error("Own"), request_id="own"), 404)

    @app.get("/internal")
    def internal() -> JSONResponse:
        return JSONResponse({"detail": "db-7 is down"}, 500)

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"a", b"b"]))

    @app.get("/file")
    def file() -> FileResponse:
        return FileResponse(__file__)

    @app.get("/background")
    def background(tasks: BackgroundTasks) -> dict:
        tasks.add_task(lambda: 1 / 0)
        return {}

    @app.get("/background-error")
    def background_error(tasks: BackgroundTasks) -> JSONResponse:
        tasks.add_task(lambda: 1 / 0)
        return JSONResponse({"detail": "No"}, 409, background=tasks)

    @app.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text() + (request_id() or ""))
        await socket.close()

    @app.websocket("/ws/refused")
    async def refused(socket: WebSocket) -> None:
        raise authentication_error("Please login first")

    return app


APP = asgi.ResilienceMiddleware(fastapi_app())


async def fetch(app, path, method="GET", **options) -> Answer:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        response = await client.request(method, path, **options)
    return Answer(response.status_code, response.headers.multi_items(), response.content)


async def test_a_good_answer_carries_the_id_and_the_limits():
    answer = await fetch(APP, "/ok", headers={"X-Request-Id": "web-1"})
    assert answer.json == {"state": "web-1", "header": "web-1", "context": "web-1"}
    assert answer.header("x-request-id") == "web-1"
    assert (answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")) == ("6", "3")
    assert answer.header("retry-after") is None


@pytest.mark.parametrize("proposed", ["a b", "x" * 65, "<script>"])
async def test_an_unsafe_id_is_replaced_everywhere(proposed):
    answer = await fetch(APP, "/ok", headers={"X-Request-Id": proposed})
    assert len(set(answer.json.values())) == 1
    assert answer.header("x-request-id") == answer.json["context"]
    assert http.is_request_id(answer.json["context"])


async def test_two_ids_are_none():
    answer = await fetch(APP, "/ok", headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")])
    assert len(answer.json["header"]) == 32


async def test_requests_at_the_same_time_keep_their_ids():
    ids = [f"r{number}" for number in range(20)]
    answers = await asyncio.gather(*(fetch(APP, "/ok", headers={"X-Request-Id": one}) for one in ids))
    assert [answer.json["context"] for answer in answers] == ids
    assert request_id() is None
    note(ALLOWED)  # outside of a request there is nobody to tell


async def test_outside_there_is_no_id_after_a_failure_either():
    await fetch(APP, "/missing")
    assert request_id() is None


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/nonexistent", 404, "NOT_FOUND", "Not Found"),
        ("PUT", "/ok", 405, "METHOD_NOT_ALLOWED", "Method Not Allowed"),
        ("POST", "/users", 422, "VALIDATION_ERROR", "The input is invalid"),
        ("GET", "/boom", 500, "INTERNAL_ERROR", "Something went wrong on our side"),
        ("GET", "/internal", 500, "INTERNAL_ERROR", "Something went wrong on our side"),
        ("GET", "/missing", 404, "RESOURCE_NOT_FOUND", "User not found"),
        ("GET", "/grouped", 404, "RESOURCE_NOT_FOUND", "User not found"),
        ("GET", "/teapot", 401, "UNAUTHORIZED", "Who are you?"),
        ("GET", "/cookies", 403, "FORBIDDEN", "Logged out"),
        ("GET", "/limited", 429, "RATE_LIMIT_EXCEEDED", "Too many requests, please try again later"),
        (
            "GET",
            "/open",
            503,
            "SERVICE_UNAVAILABLE",
            "The service is unavailable, please try again later",
        ),
    ],
)
async def test_every_error_has_the_body(method, path, status, code, message):
    answer = await fetch(APP, path, method, headers={"X-Request-Id": "r1"})
    assert answer.status == status
    body = answer.json
    assert (body["error"], body["code"], body["requestId"]) == (message, code, "r1")
    assert body.keys() - {"fields"} == {"error", "code", "requestId", "timestamp"}
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("x-request-id") == "r1"
    assert answer.header("cache-control") == "no-store"


async def test_validation_says_which_field():
    answer = await fetch(APP, "/users", "POST", json={"email": "a@b.example"})
    assert answer.json["fields"] == {"age": "Field required"}


async def test_the_headers_of_a_framework_s_answer_are_kept():
    assert (await fetch(APP, "/ok", "PUT")).header("allow") == "GET"
    answer = await fetch(APP, "/teapot", headers={"Origin": "https://ui.example"})
    assert answer.header("www-authenticate") == "Basic"
    assert answer.header("access-control-allow-origin") == "https://ui.example"
    assert answer.header("etag") is None
    cookies = [value for name, value in (await fetch(APP, "/cookies")).headers if name == "set-cookie"]
    assert len(cookies) == 2


async def test_limits_and_waits():
    answer = await fetch(APP, "/limited")
    assert (answer.header("retry-after"), answer.header("x-ratelimit-remaining")) == ("13", "0")
    answer = await fetch(APP, "/open")
    assert (answer.header("retry-after"), answer.header("x-ratelimit-remaining")) == ("5", "3")


async def test_what_an_application_means_is_left_alone():
    answer = await fetch(APP, "/health")
    assert (answer.status, answer.json) == (503, {"status": "fail"})
    assert answer.header("x-request-id")
    answer = await fetch(APP, "/own")
    assert (answer.json["error"], answer.json["requestId"]) == ("Own not found", "own")


async def test_the_problem_form_for_who_asks():
    answer = await fetch(APP, "/nöne", headers={"Accept": "application/problem+json"})
    assert answer.header("content-type") == "application/problem+json"
    assert (answer.json["status"], answer.json["instance"]) == (404, "/n%C3%B6ne")


@pytest.mark.parametrize("path", ["/nonexistent", "/boom", "/missing", "/own"])
async def test_head_has_no_body(path):
    answer = await fetch(asgi.ResilienceMiddleware(starlette_app()), path, "HEAD")
    assert answer.status >= 400
    assert answer.body == b""
    assert answer.header("content-length") is None
    assert answer.header("x-request-id")


def starlette_app() -> Starlette:
    def missing(request):
        raise not_found_error("User")

    def boom(request):
        raise KeyError("secret")

    def limited(request):
        raise RateLimitedError(REFUSED)

    return Starlette(routes=[Route("/missing", missing), Route("/boom", boom), Route("/limited", limited)])


async def test_development_shows_what_happened():
    answer = await fetch(asgi.ResilienceMiddleware(fastapi_app(), development=True), "/boom")
    assert answer.json["details"]["exception"] == "KeyError: '/srv/secret'"


async def test_an_application_s_own_mapper():
    mapper = ErrorMapper({KeyError: ErrorCode.STATE_CONFLICT})
    answer = await fetch(asgi.ResilienceMiddleware(fastapi_app(), mapper=mapper), "/boom")
    assert (answer.status, answer.json["code"]) == (409, "STATE_CONFLICT")


@pytest.mark.parametrize("path", ["/missing", "/boom", "/nonexistent", "/limited"])
async def test_around_it_cors_reaches_every_error(path):
    app = CORSMiddleware(asgi.ResilienceMiddleware(starlette_app()), allow_origins=["https://ui.example"])
    answer = await fetch(app, path, headers={"Origin": "https://ui.example"})
    assert answer.header("access-control-allow-origin") == "https://ui.example"
    assert answer.json["requestId"] == answer.header("x-request-id")


@pytest.mark.parametrize("path", ["/missing", "/boom", "/nonexistent", "/limited"])
async def test_inside_the_application_s_middleware_too_it_is_one(path, caplog):
    app = starlette_app()
    app.add_middleware(asgi.ResilienceMiddleware)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(CORSMiddleware, allow_origins=["https://ui.example"])
    answer = await fetch(asgi.ResilienceMiddleware(app), path, headers={"Origin": "https://ui.example"})
    assert answer.header("access-control-allow-origin") == "https://ui.example"
    assert answer.json["requestId"] == answer.header("x-request-id")
    assert answer.header("retry-after") == ("13" if path == "/limited" else None)
    assert len([record for record in caplog.records if record.name == "resilience.http"]) == (path == "/boom")


async def test_what_was_compressed_on_the_way_is_read():
    app = fastapi_app()
    app.add_middleware(GZipMiddleware, minimum_size=1)
    answer = await fetch(asgi.ResilienceMiddleware(app), "/users", "POST", json={"email": "a"})
    assert answer.json["fields"] == {"age": "Field required"}
    assert answer.header("content-encoding") is None
    own = await fetch(asgi.ResilienceMiddleware(app), "/own")
    assert own.json["error"] == "Own not found"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity"])
async def test_what_says_that_it_is_compressed_may_lie(coding):
    headers = {"content-type": "text/plain", "content-encoding": coding}
    sent = await drive(sending(start(409, **headers), body(b"No")))
    message = "No" if coding == "identity" else "This conflicts with the present state"
    assert json.loads(sent[1]["body"])["error"] == message


async def test_a_compressed_bomb_is_not_unpacked():
    bomb = gzip.compress(b"a" * 10_000_000)
    headers = {"content-type": "text/plain", "content-encoding": "gzip"}
    tracemalloc.start()
    sent = await drive(sending(start(409, **headers), body(bomb)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert json.loads(sent[1]["body"])["error"] == "This conflicts with the present state"
    assert peak < 1_000_000


async def test_only_a_429_tells_how_long_limiters_ask_to_wait():
    async def app(scope, receive, send):
        note(REFUSED)
        status = int(scope["path"][1:])
        if status == 404:
            raise not_found_error("User")
        await send(start(status))
        await send(body(b""))

    app = asgi.ResilienceMiddleware(app)
    for status, wait in ((200, None), (404, None), (409, None), (429, "13")):
        answer = await fetch(app, f"/{status}")
        assert (answer.status, answer.header("retry-after")) == (status, wait)
        assert answer.header("x-ratelimit-remaining") == "0"


async def test_the_draft_s_headers():
    answer = await fetch(asgi.ResilienceMiddleware(fastapi_app(), style="ietf"), "/limited")
    assert answer.header("ratelimit") == '"login";r=0;t=60'
    assert answer.header("x-ratelimit-limit") is None


@pytest.mark.parametrize("path", ["/background", "/background-error"])
async def test_a_failing_background_task_does_not_touch_the_answer_nor_the_connection(path, caplog):
    answers = await drive(asgi.ResilienceMiddleware(fastapi_app()), path)
    assert [message["type"] for message in answers] == ["http.response.start", "http.response.body"]
    assert answers[0]["status"] in {200, 409}
    assert "failed after its response: GET" in caplog.text


# --- ASGI: by hand -------------------------------------------------------------------------------


async def drive(app, path="/", *, kind="http", raises=None, incoming=(), more=False, **scope):
    """Return what `app` sends to the server."""
    sent = []
    waiting = [{"type": "http.request", "more_body": more}, *incoming]

    async def receive():
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
        **scope,
    }
    if kind == "websocket":
        waiting = [{"type": "websocket.connect"}, *incoming]
    if raises is None:
        await app(scope, receive, send)
    else:
        with pytest.raises(raises):
            await app(scope, receive, send)
    return sent


def sending(*messages, then=None):
    """Return an application that reads once, sends the messages and perhaps fails."""

    async def app(scope, receive, send):
        await receive()
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return asgi.ResilienceMiddleware(app)


def start(status, **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


def body(content, more=False):
    return {"type": "http.response.body", "body": content, "more_body": more}


async def test_a_stream_passes_piece_by_piece():
    pieces = [body(b"a", more=True), body(b"b", more=True), body(b"")]
    sent = await drive(sending(start(200), *pieces))
    assert sent[1:] == pieces


async def test_headers_may_be_missing_and_limits_of_the_application_win():
    async def app(scope, receive, send):
        note(ALLOWED)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    (started, _) = await drive(asgi.ResilienceMiddleware(app))
    assert started["status"] == 200
    assert (b"x-ratelimit-remaining", b"3") in started["headers"]

    async def own(scope, receive, send):
        note(ALLOWED)
        await send(start(200, x_ratelimit_remaining="99", x_request_id="forged"))
        await send(body(b""))

    (started, _) = await drive(asgi.ResilienceMiddleware(own))
    headers = [
        header for header in started["headers"] if header[0] in {b"x-ratelimit-remaining", b"x-request-id"}
    ]
    assert headers[0] == (b"x-ratelimit-remaining", b"99")
    assert len(headers) == 2
    assert headers[1][1] != b"forged"


async def test_a_failure_after_the_start_goes_to_the_server(caplog):
    sent = await drive(sending(start(200), body(b"a", more=True), then=KeyError("x")), raises=KeyError)
    assert sent[1:] == [body(b"a", more=True)]
    assert "failed when its response had started" in caplog.text


async def test_the_last_word_before_the_start_counts():
    sent = await drive(sending(start(500), body(b"Internal Server Error"), then=not_found_error("User")))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 404


async def test_a_500_that_is_meant_is_sent_when_the_application_returns():
    sent = await drive(sending(start(500), body(b"a", more=True), body(b"b")))
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["code"] == "INTERNAL_ERROR"


async def test_an_error_in_pieces_is_read_whole():
    sent = await drive(sending(start(409), body(b'{"detail":', more=True), body(b'"Taken"}')))
    assert json.loads(sent[1]["body"])["error"] == "Taken"
    assert len(sent) == 2


async def test_an_endless_error_is_cut():
    pieces = [body(b"x" * 10_000, more=True)] * 20
    sent = await drive(sending(start(409), *pieces, then=KeyError("x")))
    assert len(sent) == 2
    assert json.loads(sent[1]["body"])["error"] == ErrorCode.CONFLICT.title


async def test_an_error_as_a_file_and_trailers_are_replaced():
    trailers = {"type": "http.response.trailers", "headers": []}
    sent = await drive(sending(start(404), {"type": "http.response.pathsend", "path": "/x"}, trailers))
    assert json.loads(sent[1]["body"])["code"] == "NOT_FOUND"
    sent = await drive(sending(start(404), trailers, body(b"")))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def test_no_answer_at_all_is_an_internal_error(caplog):
    sent = await drive(sending())
    assert sent[0]["status"] == 500
    assert "returned without a response" in caplog.text


async def test_an_error_that_never_ends_is_sent_when_the_application_returns():
    sent = await drive(sending(start(404), body(b"Not Found", more=True)))
    assert json.loads(sent[1]["body"])["error"] == "Not Found"


async def test_a_client_that_is_gone_gets_nothing():
    async def app(scope, receive, send):
        await receive()
        message = await receive()
        raise ConnectionError(message["type"])

    gone = [{"type": "http.disconnect"}]
    assert await drive(asgi.ResilienceMiddleware(app), incoming=gone) == []


async def test_a_client_that_leaves_is_no_failure(caplog):
    async def upload(request):
        await request.body()

    async def chat(socket):
        await socket.accept()
        await socket.receive_text()

    app = asgi.ResilienceMiddleware(Starlette(routes=[Route("/", upload), WebSocketRoute("/ws", chat)]))
    assert await drive(app, incoming=[{"type": "http.disconnect"}], method="GET", more=True) == []
    left = [{"type": "websocket.disconnect", "code": 1001}]
    accepted = await drive(app, "/ws", kind="websocket", incoming=left)
    assert [message["type"] for message in accepted] == ["websocket.accept"]

    async def quiet(scope, receive, send):
        await receive()
        await receive()

    assert await drive(asgi.ResilienceMiddleware(quiet), incoming=[{"type": "http.disconnect"}]) == []
    assert not caplog.records


async def test_a_failure_after_the_client_has_left_is_logged_and_goes_no_further(caplog):
    async def app(scope, receive, send):
        await receive()
        await receive()
        raise KeyError("a bug")

    assert await drive(asgi.ResilienceMiddleware(app), incoming=[{"type": "http.disconnect"}]) == []
    assert "KeyError: 'a bug'" in caplog.text


async def test_cancellation_passes():
    assert await drive(sending(then=asyncio.CancelledError()), raises=asyncio.CancelledError) == []
    assert request_id() is None


async def test_what_is_neither_http_nor_a_websocket_passes():
    seen = []

    async def app(*connection):
        seen.append(connection)

    scope, receive, send = {"type": "lifespan"}, object(), object()
    await asgi.ResilienceMiddleware(app)(scope, receive, send)
    assert seen == [(scope, receive, send)]


# --- WebSockets ----------------------------------------------------------------------------------


async def test_a_websocket_passes():
    text = [{"type": "websocket.receive", "text": "hello "}]
    sent = await drive(
        APP, "/ws", kind="websocket", incoming=text, headers=[(b"x-request-id", b"r1")], subprotocols=[]
    )
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "hello r1"


async def test_a_refused_websocket_is_closed_before_it_opens():
    sent = await drive(APP, "/ws/refused", kind="websocket")
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "UNAUTHORIZED"}]


async def test_a_refused_websocket_gets_the_error_where_the_server_can_send_it():
    sent = await drive(APP, "/ws/refused", kind="websocket", extensions={"websocket.http.response": {}})
    assert [message["type"] for message in sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert sent[0]["status"] == 401
    assert json.loads(sent[1]["body"])["error"] == "Please login first"


ACCEPT = {"type": "websocket.accept"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (not_found_error(), 1008),
        (KeyError("x"), 1011),
        (service_unavailable_error("Storage"), 1013),
        (TimeoutError(), 1011),
    ],
)
async def test_a_failing_websocket_is_closed_with_the_code_for_it(error, code):
    sent = await drive(
        sending(ACCEPT, then=error), kind="websocket", extensions={"websocket.http.response": {}}
    )
    assert [message["type"] for message in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == code


@pytest.mark.parametrize(
    "last",
    [
        [{"type": "websocket.close", "code": 1000}],
        [
            {"type": "websocket.http.response.start", "status": 403, "headers": []},
            {"type": "websocket.http.response.body", "body": b""},
        ],
    ],
)
async def test_a_closed_websocket_is_not_closed_again(last):
    assert await drive(sending(*last, then=KeyError("x")), kind="websocket") == last
    half = last[:-1]
    if half:
        assert await drive(sending(*half, then=KeyError("x")), kind="websocket", raises=KeyError) == half


async def test_a_websocket_whose_client_is_gone_is_not_closed():
    async def app(scope, receive, send):
        await receive()
        await receive()
        raise RuntimeError("gone")

    gone = [{"type": "websocket.disconnect"}]
    app = asgi.ResilienceMiddleware(app)
    assert await drive(app, kind="websocket", incoming=gone) == []


async def test_a_websocket_that_just_returns_is_the_server_s_affair():
    assert await drive(sending(), kind="websocket") == []


# --- the log -------------------------------------------------------------------------------------


async def test_an_internal_error_is_logged_once_with_its_id(caplog):
    await fetch(APP, "/boom", headers={"X-Request-Id": "r1"})
    (record,) = [record for record in caplog.records if record.name == "resilience.http"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "request r1 failed: GET /boom"
    assert record.exc_info[0] is KeyError
    assert record.exc_text.splitlines()[-1] == "  | KeyError: '/srv/secret'"


async def test_a_dependency_s_failure_is_a_warning_and_a_client_s_is_none(caplog):
    await fetch(APP, "/open", headers={"X-Request-Id": "r1"})
    await fetch(APP, "/missing")
    await fetch(APP, "/nonexistent")
    (record,) = [record for record in caplog.records if record.name == "resilience.http"]
    assert record.levelno == logging.WARNING
    assert "answered 503: CircuitOpenError('storage-eu-7', 4.2)" in record.getMessage()


async def test_a_rule_that_fails_is_logged_with_what_it_failed_on(caplog):
    mapper = ErrorMapper({KeyError: lambda error: error.no_such_attribute})
    answer = await fetch(asgi.ResilienceMiddleware(fastapi_app(), mapper=mapper), "/boom")
    assert answer.json["code"] == "INTERNAL_ERROR"
    assert "KeyError: '/srv/secret'" in caplog.text
    assert "AttributeError: 'KeyError' object has no attribute 'no_such_attribute'" in caplog.text


async def test_a_log_that_is_off_costs_no_traceback(caplog):
    caplog.set_level(logging.CRITICAL, "resilience.http")
    await fetch(APP, "/boom")
    assert not [record for record in caplog.records if record.name == "resilience.http"]


# --- WSGI ----------------------------------------------------------------------------------------


def call(app, path="/", method="GET", *, check=True, read=True, raises=None, **environ) -> Answer:
    """Return what a server gets from `app`, held to the standard."""
    environ = {
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        "QUERY_STRING": "",
        "SCRIPT_NAME": "",
        **environ,
    }
    setup_testing_defaults(environ)
    calls: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status, headers, exc_info=None):
        if exc_info is not None and calls:
            raise exc_info[1]
        calls.append((status, headers))
        return written.append

    app = validator(app) if check else app
    chunks = app(environ, start_response)
    try:
        if raises is None:
            written.extend(chunks if read else ())
        else:
            with pytest.raises(raises):
                written.extend(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    if not read:
        return Answer(0, [], b"")
    ((status, headers),) = calls
    return Answer(int(status[:3]), headers, b"".join(written))


class Body:
    """A body that notices whether it was closed."""

    def __init__(self, *pieces):
        self.pieces = iter(pieces)
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        piece = next(self.pieces)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self):
        self.closed += 1


def answering(status="200 OK", pieces=(b"hello",), *headers, content_type="text/plain"):
    def app(environ, start_response):
        start_response(status, [("Content-Type", content_type), *headers])
        return pieces

    return wsgi.ResilienceMiddleware(app)


def raising(error):
    def app(environ, start_response):
        raise error

    return wsgi.ResilienceMiddleware(app)


def test_wsgi_a_good_answer_carries_the_id_and_the_limits():
    def app(environ, start_response):
        note(ALLOWED)
        start_response("200 OK", [("Content-Type", "text/plain")])
        assert environ["resilience.request_id"] == environ["HTTP_X_REQUEST_ID"] == request_id()
        return [b"hello"]

    answer = call(wsgi.ResilienceMiddleware(app), HTTP_X_REQUEST_ID="web-1")
    assert (answer.status, answer.body, answer.header("x-request-id")) == (200, b"hello", "web-1")
    assert answer.header("x-ratelimit-remaining") == "3"
    assert request_id() is None


@pytest.mark.parametrize("pieces", [[b"a", b"b"], (b"a", b"b"), Body(b"a", b"", b"b")])
def test_wsgi_a_good_body_passes(pieces):
    assert call(answering(pieces=pieces)).body == b"ab"


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_wsgi_the_application_too_sees_a_server_by_the_standard(status):
    app = validator(answering(status, Body(b"a", b"b"))._app)
    assert call(wsgi.ResilienceMiddleware(app)).status == int(status[:3])


def test_wsgi_what_cannot_fail_is_handed_through(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    with (tmp_path / "file").open("rb") as file:
        pieces = FileWrapper(file)
        app = answering(pieces=pieces)
        environ = {"wsgi.file_wrapper": FileWrapper}
        setup_testing_defaults(environ)
        assert app(environ, lambda *_: None) is pieces
    pieces = [b"a"]
    setup_testing_defaults(environ := {})
    assert answering(pieces=pieces)(environ, lambda *_: None) is pieces


def test_wsgi_a_body_is_made_as_it_is_read_and_closed_in_its_context():
    seen = []

    def app(environ, start_response):
        try:
            start_response("200 OK", [("Content-Type", "text/plain")])
            for piece in (b"a", b"b"):
                seen.append(request_id())
                yield piece
        finally:
            seen.append(request_id())

    setup_testing_defaults(environ := {"HTTP_X_REQUEST_ID": "r1"})
    chunks = wsgi.ResilienceMiddleware(app)(environ, lambda *_: None)
    assert seen == []
    assert next(iter(chunks)) == b"a"
    assert seen == ["r1"]
    chunks.close()
    assert seen == ["r1", "r1"]
    assert request_id() is None


def test_wsgi_a_body_may_be_asked_for_an_iterator_again():
    setup_testing_defaults(environ := {})
    started = []
    chunks = answering("404 Not Found", Body(b"Not Found"))(environ, lambda *call: started.append(call))
    first = next(iter(chunks))
    assert json.loads(first)["code"] == "NOT_FOUND"
    assert list(chunks) == []
    assert len(started) == 1


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
@pytest.mark.parametrize("read", [True, False])
def test_wsgi_the_application_s_body_is_closed_once(status, read):
    pieces = Body(b"a", b"b")
    call(answering(status, pieces), read=read, check=read)
    assert pieces.closed == 1


@pytest.mark.parametrize(
    ("app", "status", "code", "message"),
    [
        (answering("404 Not Found", [b"Not Found"]), 404, "NOT_FOUND", "Not Found"),
        (
            answering("404 NOT FOUND", [b"<!doctype html>"], content_type="text/html; charset=utf-8"),
            404,
            "NOT_FOUND",
            "Not found",
        ),
        (
            answering("500 Oops", [b"db-7 is down"]),
            500,
            "INTERNAL_ERROR",
            "Something went wrong on our side",
        ),
        (raising(not_found_error("User")), 404, "RESOURCE_NOT_FOUND", "User not found"),
        (raising(KeyError("secret")), 500, "INTERNAL_ERROR", "Something went wrong on our side"),
        (answering(pieces=Body(not_found_error("User"))), 404, "RESOURCE_NOT_FOUND", "User not found"),
        (answering(pieces=Body(b"", not_found_error("User"))), 404, "RESOURCE_NOT_FOUND", "User not found"),
        (
            answering("404 Not Found", Body(b"a", not_found_error("User"))),
            404,
            "RESOURCE_NOT_FOUND",
            "User not found",
        ),
        (raising(ServiceError("x", status=499)), 499, "INTERNAL_ERROR", ErrorCode.INTERNAL_ERROR.title),
    ],
)
def test_wsgi_every_error_has_the_body(app, status, code, message):
    answer = call(app, HTTP_X_REQUEST_ID="r1")
    assert answer.status == status
    body = answer.json
    assert (body["error"], body["code"], body["requestId"]) == (message, code, "r1")
    assert body.keys() == {"error", "code", "requestId", "timestamp"}
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("x-request-id") == "r1"


def test_wsgi_the_headers_of_a_framework_s_answer_are_kept():
    answer = call(answering("405 Method Not Allowed", [b""], ("Allow", "GET"), ("Content-Length", "0")))
    assert (answer.header("allow"), answer.json["code"]) == ("GET", "METHOD_NOT_ALLOWED")


def test_wsgi_what_an_application_means_is_left_alone():
    answer = call(answering("503 Down", [b'{"status": "fail"}'], content_type="application/health+json"))
    assert answer.json == {"status": "fail"}
    own = http.error_response(not_found_error("Own"), request_id="own").body
    answer = call(answering("404 Not Found", [own], content_type="application/json"))
    assert answer.body == own


def test_wsgi_limits_and_waits():
    answer = call(raising(RateLimitedError(REFUSED)))
    assert (answer.status, answer.header("retry-after")) == (429, "13")


@pytest.mark.parametrize(("status", "wait"), [("200 OK", None), ("429 Too Many Requests", "13")])
def test_wsgi_only_a_429_tells_how_long_limiters_ask_to_wait(status, wait):
    def app(environ, start_response):
        note(REFUSED)
        start_response(status, [("Content-Type", "application/x-own")])
        return [b"x"]

    answer = call(wsgi.ResilienceMiddleware(app))
    assert (answer.header("retry-after"), answer.header("x-ratelimit-remaining")) == (wait, "0")


def test_wsgi_what_was_compressed_on_the_way_is_read():
    packed = gzip.compress(b'{"detail": "No"}')
    app = answering("409 Conflict", (packed,), ("Content-Encoding", "gzip"), content_type="application/json")
    answer = call(app)
    assert answer.json["error"] == "No"
    assert answer.header("content-encoding") is None


def test_wsgi_the_problem_form_for_who_asks():
    answer = call(
        raising(not_found_error()),
        "/n\xc3\xb6ne",
        HTTP_ACCEPT="application/problem+json",
        SCRIPT_NAME="/app",
    )
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["instance"] == "/app/n%C3%B6ne"


@pytest.mark.parametrize(
    "app", [raising(not_found_error()), answering("404 Not Found", [b""]), answering("200 OK", [])]
)
def test_wsgi_head_has_no_body(app):
    answer = call(app, method="HEAD")
    assert answer.body == b""
    assert answer.header("x-request-id")


def test_wsgi_development_and_mapper_and_style():
    app = wsgi.ResilienceMiddleware(
        raising(KeyError("secret"))._app,
        development=True,
        mapper=ErrorMapper({KeyError: ErrorCode.CONFLICT}),
        style="ietf",
    )
    answer = call(app)
    assert answer.status == 409
    assert answer.json["details"]["exception"] == "KeyError: 'secret'"


def test_wsgi_a_failure_after_the_start_goes_to_the_server(caplog):
    answer = call(answering(pieces=Body(b"a", KeyError("x"))), raises=KeyError)
    assert answer.body == b"a"
    assert "failed when its response had started" in caplog.text


def test_wsgi_start_response_may_come_late():
    def app(environ, start_response):
        yield b""
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        yield b"Not Found"

    assert call(wsgi.ResilienceMiddleware(app), check=False).json["code"] == "NOT_FOUND"


@pytest.mark.parametrize("pieces", [[], [b"a"], Body(b"a")])
def test_wsgi_start_response_may_not_come_at_all(pieces, caplog):
    answer = call(wsgi.ResilienceMiddleware(lambda environ, start_response: pieces), check=False)
    assert answer.status == 500
    assert "without calling start_response" in caplog.text


def test_wsgi_a_second_start_needs_exc_info():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        start_response("200 OK", [("Content-Type", "text/plain")])

    assert call(wsgi.ResilienceMiddleware(app), check=False).status == 500


def test_wsgi_exc_info_replaces_what_was_not_sent():
    def app(environ, start_response):
        start_response("404 Not Found", [("Content-Type", "text/plain")])(b"gone")
        try:
            raise KeyError("x")
        except KeyError as error:
            start_response(
                "409 Conflict",
                [("Content-Type", "text/plain")],
                (KeyError, error, error.__traceback__),
            )
        return [b"Taken"]

    answer = call(wsgi.ResilienceMiddleware(app), check=False)
    assert (answer.status, answer.json["error"]) == (409, "Taken")


def test_wsgi_exc_info_after_the_start_is_raised_by_the_server():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"a"
        try:
            raise KeyError("x")
        except KeyError as error:
            start_response("500 Oops", [], (KeyError, error, error.__traceback__))

    assert call(wsgi.ResilienceMiddleware(app), check=False, raises=KeyError).body == b"a"


def test_wsgi_the_old_write_still_writes():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"a")
        return [b"b"]

    assert call(wsgi.ResilienceMiddleware(app)).body == b"ab"


def test_wsgi_a_failure_after_a_write_goes_to_the_server():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])(b"a")
        raise KeyError("x")

    setup_testing_defaults(environ := {})
    with pytest.raises(KeyError):
        wsgi.ResilienceMiddleware(app)(environ, lambda *_: lambda _: None)


def test_wsgi_an_endless_error_is_cut():
    pieces = Body(*[b"x" * 10_000] * 20)
    answer = call(answering("409 Conflict", pieces))
    assert answer.json["error"] == ErrorCode.CONFLICT.title


def test_wsgi_what_is_not_an_exception_passes():
    with pytest.raises(KeyboardInterrupt):
        call(raising(KeyboardInterrupt()), check=False)
