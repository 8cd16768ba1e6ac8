"""Both shells, in this process: they answer alike, whatever they are asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import re
from unittest import mock

import pytest
from starlette.requests import ClientDisconnect

from examples.adapters.wsgi import ResilienceMiddleware
from examples.backend import asgi, wsgi
from examples.backend.api import PATHS, ROUTES
from examples.backend.api.http import Reply
from examples.backend.assembly import Backend
from examples.backend.domain.accounts import DEMO, Origin
from examples.backend.domain.codes import Purpose
from examples.backend.kit import AsyncKit, BlockingKit, drive
from examples.backend.settings import Settings
from tests.examples.accounts_house import HOME, PASSWORD

JSON = ("Content-Type", "application/json")
VARIES = re.compile(rb'"(requestId|timestamp|registration)": ?"[^"]*"')
SAME = (
    "allow",
    "cache-control",
    "content-length",
    "content-security-policy",
    "content-type",
    "location",
    "referrer-policy",
    "retry-after",
    "vary",
    "www-authenticate",
    "x-content-type-options",
)


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def like(self):
        """What must be the same under both shells."""
        headers = {name: value for name, value in self.headers.items() if name in SAME}
        return self.status, headers, VARIES.sub(rb'"\1": ""', self.body)


class Shells:
    """The backend under both, each with its own folder."""

    def __init__(self, folder, **settings):
        self._runner = asyncio.Runner()
        settings = Settings(telephony_url="http://127.0.0.1:9", webhook_tenants=("demo",), **settings)
        self._asgi = self._runner.run(self._start(dataclasses.replace(settings, var=folder / "asgi")))
        self._wsgi = Backend(dataclasses.replace(settings, var=folder / "wsgi"), BlockingKit())
        drive(self._wsgi.start())
        self._asgi_app = asgi.create_app(self._asgi)
        self._wsgi_app = wsgi.create_app(self._wsgi)

    async def _start(self, settings):
        backend = Backend(settings, AsyncKit())
        await backend.start()
        return backend

    def close(self):
        self._runner.run(self._asgi.close())
        self._runner.close()
        drive(self._wsgi.close())

    def ask(self, method, path, *headers, body=b""):
        """Return both answers. `path` is bytes, decoded as servers do, with its query behind a `?`."""
        path, _, query = path.partition(b"?")
        given = [*headers, ("Content-Length", str(len(body)))] if body else [*headers]
        return (
            self._runner.run(self._ask_asgi(method, path, query, given, body)),
            self._ask_wsgi(method, path, query, given, body),
        )

    async def _ask_asgi(self, method, path, query, headers, body):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "client": ("192.0.2.1", 1234),
            "server": ("127.0.0.1", 80),
        }
        received = [{"type": "http.request", "body": body, "more_body": False}]
        sent = []

        async def receive():
            return received.pop() if received else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await self._asgi_app(scope, receive, send)
        headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        lower = {name.lower(): value for name, value in headers.items()}
        return Answer(sent[0]["status"], lower, b"" if method == "HEAD" else content)

    def _ask_wsgi(self, method, path, query, headers, body):
        environ = environ_of(method, path, query, body)
        for name, value in headers:
            key = name.upper().replace("-", "_")
            environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        answer = Answer(0, {}, b"")

        def start_response(status, headers, exc_info=None):
            answer.status = int(status[:3])
            answer.headers = {name.lower(): value for name, value in headers}

        chunks = self._wsgi_app(environ, start_response)
        answer.body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        return answer


def environ_of(method, path, query=b"", body=b""):
    """Return what a WSGI server says of a request."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


@pytest.fixture(scope="module")
def shells(tmp_path_factory):
    shells = Shells(tmp_path_factory.mktemp("shells"))
    yield shells
    shells.close()


PATHS_TO_TRY = [
    b"/",
    b"",
    b"/api/auth/me",
    b"/api/auth/me/",
    b"//api/auth/me",
    b"/api//auth/me",
    b"/api/auth/./me",
    b"/api/auth/../auth/me",
    b"/API/auth/me",
    b"/api/auth/me\n",
    b"/api/auth/me\x00",
    b"/api/auth/me\xff",
    "/api/auth/m\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
    b"/api/recordings/a/b",
    b"/api/recordings/a\nb",
    b"/api/recordings/\x00",
    b"/api/recordings/" + b"a" * 65,
    b"/api/recordings/" + b"a" * 20_000,
    b"/api/recordings/..",
    b"/api/recordings/{call_sid}",
    b"/api/webhooks/%s/telephony",
    b"/health/live",
    b"/health/live?" + b"a=b&" * 10_000,
    b"/dashboard/../secret.key",
    b"/openapi.json",
]


@pytest.mark.parametrize("path", PATHS_TO_TRY, ids=lambda path: repr(path[:40]))
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_odd_paths_are_answered_alike(shells, method, path):
    one, other = shells.ask(method, path)
    assert one.like == other.like
    assert one.status < 500


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "PUT", "A" * 200])
def test_methods_that_a_path_has_not_are_told_which_it_has(shells, method, path):
    one, other = shells.ask(method, re.sub(r"{\w+}", "a", path).encode())
    assert one.like == other.like
    assert one.status == 405
    assert json.loads(one.body)["code"] == "METHOD_NOT_ALLOWED"
    allowed = one.headers["allow"].split(", ")
    assert allowed == sorted(allowed)
    assert set(allowed) - {"HEAD"} == PATHS[path].keys()
    assert ("HEAD" in allowed) == ("GET" in allowed)


BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 60_000,
    b'{"email": NaN}',
    b'{"email": 1e400}',
    b'{"email": "a", "email": "b"}',
    b'{"email": "\\ud800"}',
    b'{"email": true, "password": 1}',
    b'{"email": "a@example.com", "password": "x", "otherwise": 1}',
    b" " * 70_000,
]
TYPES = ["", "application/json", "application/json; charset=latin-1", "text/plain", "multipart/form-data",
         "application/x-www-form-urlencoded", "application/merge-patch+json", "\xe9", "a" * 5000]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
@pytest.mark.parametrize("path", [b"/api/auth/verify-email", b"/api/webhooks/demo/telephony"])
def test_bodies_that_cannot_be_read_are_answered_alike(shells, path, body):
    one, other = shells.ask("POST", path, JSON, body=body)
    assert one.like == other.like
    assert one.status in {400, 413}


@pytest.mark.parametrize("media_type", TYPES, ids=lambda media_type: media_type[:20])
@pytest.mark.parametrize("path", [b"/api/auth/verify-email", b"/api/webhooks/demo/telephony"])
def test_media_types_are_answered_alike(shells, path, media_type):
    one, other = shells.ask("POST", path, ("Content-Type", media_type), body=b"{}")
    assert one.like == other.like
    takes_forms = path.endswith(b"telephony")
    assert one.status == (400 if "json" in media_type or not media_type or
                          (takes_forms and "form-url" in media_type) else 415)  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        ("Host", "unknown.example.com"),
        ("Host", ""),
        ("Host", "[::1"),
        ("Host", "a b/c?d"),
        ("Host", "\xff"),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer \xe9"),
        ("Authorization", "Basic YTpi"),
        ("Authorization", "x" * 10_000),
        ("Cookie", "session"),
        ("Cookie", "session=\xe9; session=b; ="),
        ("Cookie", ";" * 5000),
        ("Accept", "application/problem+json"),
        ("Accept", "\xff;q=nonsense,*/*;q=2"),
        ("X-Forwarded-For", "a, , [::1]:99999, \xe9"),
        ("X-Request-Id", "a\tb"),
        ("Content-Length", "nonsense"),
        ("Content-Length", "-1"),
        ("Content-Length", "9" * 30),
        ("Origin", "null"),
        ("Range", "bytes=nonsense"),
        ("Expect", "miracles"),
        ("Accept-Encoding", "gzip;q=nonsense"),
        ("If-None-Match", '"'),
    ],
    ids=lambda header: f"{header[0]}: {header[1][:20]!r}",
)
@pytest.mark.parametrize(("method", "path"), [("GET", b"/api/auth/me"), ("POST", b"/api/auth/logout")])
def test_odd_headers_are_answered_alike(shells, method, path, header):
    one, other = shells.ask(method, path, header)
    assert one.like == other.like
    assert one.status < 500


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_answers_strangers_alike(shells, route):
    path = re.sub(r"{\w+}", "a", route.path).encode()
    one, other = shells.ask(route.method, path, JSON, body=b"{}" if route.body else b"")
    if route.path in {"/health/startup", "/health/ready", "/health/live"}:
        assert one.status == other.status == 200
    assert one.like == other.like
    assert one.status < 500


def test_what_all_answers_have(shells):
    for method, path in [("GET", b"/health/live"), ("GET", b"/nowhere"), ("POST", b"/api/auth/me")]:
        for answer in shells.ask(method, path):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            assert "strict-transport-security" not in answer.headers
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_over_https_browsers_are_told_to_stay_there(tmp_path):
    shells = Shells(tmp_path, public_url="https://backend.example.com")
    try:
        for answer in shells.ask("GET", b"/nowhere"):
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
    finally:
        shells.close()


def test_pages_of_allowed_origins_may_send_and_are_shown_nothing(tmp_path):
    shells = Shells(tmp_path, allowed_origins=("https://app.example",))
    for origin, status in (("https://app.example", 200), ("https://evil.example", 403)):
        headers = ("Origin", origin), ("Sec-Fetch-Site", "cross-site")
        for answer in shells.ask("POST", b"/api/auth/logout", *headers):
            assert answer.status == status
            assert not any(name.startswith("access-control") for name in answer.headers)
    shells.close()


def test_a_stranger_is_told_how_to_log_in(shells):
    for answer in shells.ask("GET", b"/api/auth/me"):
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_head_has_no_body_but_its_length(shells):
    for answer in shells.ask("HEAD", b"/health/live"):
        assert (answer.status, answer.body) == (200, b"")
    lengths = {answer.headers["content-length"] for answer in shells.ask("GET", b"/health/live")}
    assert {answer.headers["content-length"] for answer in shells.ask("HEAD", b"/health/live")} == lengths


@pytest.mark.parametrize("shell", [asgi, wsgi])
def test_what_has_no_content_is_of_no_type(shell):
    assert "Content-Type" not in shell.response_of(Reply(status=204, media_type=None)).headers


class Source:
    """The pieces of a reply, which notices that it is closed."""

    is_closed = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return b"piece"

    async def aclose(self):
        self.is_closed = True


async def gone():
    return {"type": "http.disconnect"}


async def take(_message):
    await asyncio.sleep(0)


async def refuse(_message):
    raise OSError("the client has left")


@pytest.mark.parametrize(("spec_version", "send"), [("2.3", take), ("2.4", refuse)])
async def test_what_is_sent_in_pieces_is_closed_under_asgi_if_the_client_left_before_the_first(
    spec_version, send
):
    source = Source()
    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": spec_version}}
    with contextlib.suppress(ClientDisconnect):
        await asgi.response_of(Reply(content=source))(scope, gone, send)
    assert source.is_closed


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_sent_in_pieces_is_closed_under_wsgi_if_the_client_left_before_the_first(wrapped):
    source = Source()
    app = wsgi.response_of(Reply(content=source))
    body = (ResilienceMiddleware(app) if wrapped else app)(environ_of("GET", b"/"), lambda *_: None)
    body.close()
    assert source.is_closed


@pytest.mark.parametrize("kit", [AsyncKit, BlockingKit])
def test_everything_is_closed_though_something_fails_at_the_end(tmp_path, kit):
    settings = Settings(telephony_url="http://127.0.0.1:9", var=tmp_path)
    closed = []

    async def live():
        backend = Backend(settings, kit())
        await backend.start()
        take_leave = backend.monitoring.close

        async def fail():
            await take_leave()
            raise RuntimeError("gone")

        backend.monitoring.close = fail
        close = backend.database.close
        backend.database.close = lambda: (close(), closed.append("database"))
        with pytest.raises(RuntimeError, match="gone"):
            await backend.close()

    if kit is AsyncKit:
        asyncio.run(live())
    else:
        drive(live())
    assert closed == ["database"]


@pytest.mark.parametrize("kit", [AsyncKit, BlockingKit])
def test_asvs_7_4_3_no_session_outlives_a_reset_though_it_could_not_be_ended(tmp_path, kit):
    settings = Settings(
        telephony_url="http://127.0.0.1:9", var=tmp_path, webhook_tenants=("demo",), demo_password=PASSWORD
    )

    async def live():
        backend = Backend(settings, kit())
        await backend.start()
        token = await backend.accounts.login(DEMO, PASSWORD, Origin(HOME), None)
        assert await backend.accounts.member_of(token)
        await backend.accounts.send_code(Purpose.RESET_PASSWORD, DEMO, HOME)
        (letter,) = (tmp_path / "outbox").iterdir()
        code = re.search(r"^Your code is (\d{6})", letter.read_text(), re.MULTILINE)[1]
        away = mock.patch.object(backend.janitor, "cleanup_user_sessions", side_effect=OSError("away"))
        with away, pytest.raises(OSError, match="away"):
            await backend.passwords.reset(DEMO, code, "the next one of theirs", HOME)
        assert await backend.accounts.member_of(token) is None
        await backend.close()

    asyncio.run(live()) if kit is AsyncKit else drive(live())
