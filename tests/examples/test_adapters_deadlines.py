"""What both adapters make of a caller's deadline and of how much he says that his request matters."""

from __future__ import annotations

import json
from wsgiref.util import setup_testing_defaults

import httpx
import pytest

from examples.adapters import asgi, wsgi
from resilience import current_criticality, remaining
from resilience.testing import FakeClock


def seen():
    """Return what the application sees of both."""
    return json.dumps([remaining(), current_criticality().name.lower()]).encode()


async def ask_asgi(headers, **options):
    """Return the status, and what the application saw or the code of the error."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": seen()})

    transport = httpx.ASGITransport(asgi.ResilienceMiddleware(app, clock=FakeClock(), **options))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/", headers=headers)
    told = response.json()
    return response.status_code, told if response.status_code == 200 else told["code"]


async def ask_wsgi(headers, **options):
    """Return the same of the other adapter, whose application sees it while its body is read."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        yield seen()

    transport = httpx.WSGITransport(wsgi.ResilienceMiddleware(app, clock=FakeClock(), **options))
    with httpx.Client(transport=transport, base_url="http://test") as client:
        response = client.get("/", headers=headers)  # noqa: ASYNC212 - it goes to no network
    told = response.json()
    return response.status_code, told if response.status_code == 200 else told["code"]


both = pytest.mark.parametrize("ask", [ask_asgi, ask_wsgi])
ASKING = {"X-Request-Timeout": "1.5", "X-Criticality": "sheddable"}


@both
async def test_unless_told_to_they_heed_nothing(ask):
    assert await ask(ASKING) == (200, [None, "critical"])


@both
@pytest.mark.parametrize(
    ("asked", "left"),
    [({}, 30.0), (ASKING, 1.5), ({"X-Request-Timeout": "60"}, 30.0), ({"X-Request-Timeout": "?"}, 30.0)],
)
async def test_a_request_has_the_time_that_its_caller_gives_it_and_no_more_than_the_server_does(
    ask, asked, left
):
    assert await ask(asked, request_timeout=30.0) == (200, [left, "critical"])
    assert remaining() is None


@both
async def test_a_request_whose_caller_has_gone_is_answered_504(ask):
    assert await ask({"X-Request-Timeout": "0.000"}, request_timeout=30.0) == (504, "TIMEOUT")


@both
@pytest.mark.parametrize(("claimed", "level"), [("sheddable", "sheddable"), ("critical_plus", "critical")])
async def test_a_request_matters_as_much_as_its_caller_says_and_no_more_than_the_server_admits(
    ask, claimed, level
):
    assert await ask({"X-Criticality": claimed}, most_critical="critical") == (200, [None, level])
    assert current_criticality().name == "CRITICAL"


@pytest.mark.parametrize("middleware", [asgi.ResilienceMiddleware, wsgi.ResilienceMiddleware])
@pytest.mark.parametrize(
    "options", [{"request_timeout": 0}, {"request_timeout": "9"}, {"most_critical": "very"}]
)
def test_bounds_that_cannot_be_kept_are_refused_at_once(middleware, options):
    with pytest.raises((TypeError, ValueError)):
        middleware(None, **options)


async def test_a_websocket_has_no_deadline_but_matters():
    told = []

    async def app(scope, receive, send):
        told.append((remaining(), current_criticality().name))
        await send({"type": "websocket.close", "code": 1000})

    async def nothing(*_):
        return {"type": "websocket.connect"}

    pairs = [(name.lower().encode(), value.encode()) for name, value in ASKING.items()]
    scope = {"type": "websocket", "path": "/", "headers": pairs}
    await asgi.ResilienceMiddleware(app, request_timeout=30.0, most_critical="critical")(
        scope, nothing, nothing
    )

    assert told == [(None, "SHEDDABLE")]


def test_one_request_leaves_nothing_to_the_next_on_its_thread():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [seen()]

    wrapped = wsgi.ResilienceMiddleware(
        app, clock=FakeClock(), request_timeout=30.0, most_critical="critical"
    )
    answers = []
    for headers in ({"HTTP_X_REQUEST_TIMEOUT": "1.5", "HTTP_X_CRITICALITY": "sheddable"}, {}):
        setup_testing_defaults(environ := {**headers})
        answers.append(b"".join(wrapped(environ, lambda *_: lambda _: None)))

    assert answers == [b'[1.5, "sheddable"]', b'[30.0, "critical"]']
    assert remaining() is None
