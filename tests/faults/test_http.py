"""The fault catalogue's lines on HTTP: who asks, what is reflected, what leaks."""

from __future__ import annotations

import json
import logging
from ipaddress import IPv6Address
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples.adapters import asgi, request_id, wsgi
from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    not_found_error,
    validation_error,
)
from resilience.http import client_address, client_key, is_request_id, one_line, parse_error
from resilience.stores import StoreUnavailable
from resilience.testing import FakeClock

TRUSTED = ["10.0.0.0/8"]
HOSTILE = "ada\r\nERROR forged\x1b[31m\u2028\u2029\x85\x00\x0b\u202e\udc80"
ANY_TEXT = st.text(alphabet=st.characters(codec=None)) | st.text(alphabet="a\r\n\x1b\u2028\x00\x85\udc80")


# --- 65: Retry-After -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 10.0),
        ("Sun Nov  6 08:49:37 1994", 10.0),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("1000000000", 21_600.0),
    ],
)
def test_fault_65_a_wait_that_a_server_asks_for(value, seconds):
    clock = FakeClock()
    clock.step_wall(784111767.0 - clock.wall())
    error = parse_error(429, {"Retry-After": value}, b"", clock=clock)
    assert error.retryable
    assert error.retry_after == seconds


# --- 77 to 79: who asks --------------------------------------------------------------------------


@given(st.lists(ANY_TEXT | st.ip_addresses().map(str), max_size=5), st.ip_addresses(v=4))
def test_fault_77_an_untrusted_peer_is_who_it_is_whatever_it_says(entries, peer):
    headers = [("X-Forwarded-For", ",".join(entries)), ("Forwarded", f"for={','.join(entries)}")]
    for header in ("x-forwarded-for", "forwarded"):
        assert client_address(str(peer), headers, ["fd00::/8"], header=header) == str(peer)


def test_fault_77_a_trusted_peer_s_list_is_walked_from_the_right():
    headers = [("X-Forwarded-For", "6.6.6.6, 203.0.113.9, 10.9.9.9")]
    assert client_address("10.0.0.2", headers, TRUSTED) == "203.0.113.9"


@pytest.mark.parametrize("garbage", ["unknown", "_hidden", "203.0.113", "::gg", "", "x" * 9999, "1\x00"])
def test_fault_77_garbage_means_the_peer_s_address(garbage):
    headers = [("X-Forwarded-For", f"6.6.6.6, {garbage}")]
    assert client_address("10.0.0.2", headers, TRUSTED) == "10.0.0.2"


def test_fault_78_only_the_configured_family_counts():
    headers = [
        ("X-Forwarded-For", "203.0.113.9"),
        ("Forwarded", "for=198.51.100.7"),
        ("X-Real-IP", "6.6.6.6"),
        ("X-Client-IP", "6.6.6.6"),
    ]
    assert client_address("10.0.0.2", headers, TRUSTED, header="x-forwarded-for") == "203.0.113.9"
    assert client_address("10.0.0.2", headers, TRUSTED, header="forwarded") == "198.51.100.7"
    assert client_address("10.0.0.2", headers[1:], TRUSTED, header="x-forwarded-for") == "10.0.0.2"


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("x-forwarded-for", ["6.6.6.6", "2001:db8::9"]),
        ("x-forwarded-for", ["6.6.6.6, [2001:db8::9]:4711", "10.1.1.1:80"]),
        ("forwarded", ["for=6.6.6.6", 'for="[2001:db8::9]:4711"']),
        ("forwarded", ['for=6.6.6.6, For="[2001:db8::9]:_obf"'.replace(":_obf", ""), "for=10.1.1.1"]),
        ("forwarded", ['for="a', 'for="[2001:db8::9]"']),
        ("forwarded", ["", 'by=_hidden;for="[2001:db8::9]";host="a,b"']),
    ],
)
def test_fault_78_duplicated_lines_ports_and_brackets(header, lines):
    headers = [(header, line) for line in lines]
    assert client_address("10.0.0.2", headers, TRUSTED, header=header) == "2001:db8::9"


@example('for=6.6.6.6;by="')
@example('for=6.6.6.6;by="\\')
@example('for="6.6.6.6";by="a"b')
@given(st.text(alphabet='for=by";,\\[]:._0123456789 unkow', max_size=80))
def test_fault_78_no_quoting_moves_what_the_proxy_appends(forged):
    for appended in ("for=203.0.113.9", 'for="203.0.113.9:80";by="_x"'):
        headers = [("Forwarded", f"{forged}, {appended}")]
        found = client_address("10.0.0.2", headers, TRUSTED, header="forwarded")
        assert found in {"203.0.113.9", "10.0.0.2"}


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_fault_79_rotation_inside_a_network_is_one_client(first, second):
    network = int(IPv6Address("2001:db8:1:2::"))
    keys = {client_key(str(IPv6Address(network | host))) for host in (first, second)}
    assert keys == {"2001:db8:1:2::/64"}
    assert client_key("2001:db8:1:3::1") not in keys


def test_fault_79_a_mapped_address_is_that_ipv4_address():
    assert client_key(client_address("::ffff:192.0.2.1")) == client_key(client_address("192.0.2.1"))
    assert client_key(client_address("::ffff:192.0.2.1")) != client_key(client_address("::ffff:192.0.2.2"))
    headers = [("X-Forwarded-For", "::ffff:192.0.2.1")]
    assert client_address("::ffff:10.0.0.2", headers, TRUSTED) == "192.0.2.1"


# --- the two adapters ----------------------------------------------------------------------------


async def over_asgi(error, clock, *, path="/", headers=(), development=False):
    sent = []

    async def app(scope, receive, send):
        raise error

    async def send(message):
        sent.append(message)

    app = asgi.ResilienceMiddleware(app, clock=clock, development=development)
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    await app({"type": "http", "method": "GET", "path": path, "headers": raw}, None, send)
    headers = [(name.decode(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    return sent[0]["status"], headers, sent[1]["body"]


def over_wsgi(error, clock, *, path="/", headers=(), development=False):
    calls = []

    def app(environ, start_response):
        raise error

    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
    environ["PATH_INFO"] = path.encode("utf-8", "surrogateescape").decode("latin-1")
    setup_testing_defaults(environ)
    app = wsgi.ResilienceMiddleware(app, clock=clock, development=development)
    chunks = app(environ, lambda *call: calls.append(call))
    ((status, headers),) = calls
    return int(status[:3]), [(name.lower(), value) for name, value in headers], b"".join(chunks)


class Formatted(logging.Handler):
    """What a file handler would have written."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record):
        self.lines += self.format(record).splitlines()


@pytest.fixture
def written():
    handler = Formatted()
    logger = logging.getLogger("resilience.http")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


@given(ANY_TEXT)
def test_fault_81_text_from_outside_is_one_line(text):
    assert len(one_line(text).splitlines()) <= 1
    assert one_line(text).isprintable()


@pytest.mark.parametrize("error", [KeyError(HOSTILE), ValueError(HOSTILE), CircuitOpenError(HOSTILE, 1.0)])
async def test_fault_81_no_line_of_the_log_is_forged(error, written):
    await over_asgi(error, FakeClock(), path=f"/{HOSTILE}")
    over_wsgi(error, FakeClock(), path=f"/{HOSTILE}")
    assert len([line for line in written if line.startswith(("ERROR request", "WARNING request"))]) == 2
    for line in written:
        assert line.isprintable()
        assert line.startswith(("ERROR request ", "WARNING request ", "  | "))


BAD_IDS = ["", "a b", "x" * 65, "<script>", "a\r\nSet-Cookie: x=1", "\xe4", "../..", "a;b", "%0d%0a"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_fault_82_a_bad_request_id_is_reflected_nowhere(bad, written):
    headers = [("X-Request-Id", bad)]
    answers = [
        await over_asgi(KeyError("x"), FakeClock(), headers=headers),
        over_wsgi(KeyError("x"), FakeClock(), headers=headers),
    ]
    for _, headers, body in answers:
        (reflected,) = [value for name, value in headers if name == "x-request-id"]
        assert is_request_id(reflected)
        assert json.loads(body)["requestId"] == reflected
        assert reflected != bad
        assert not bad or bad not in "\n".join([*written, body.decode(), str(headers)])


def test_fault_82_applications_see_the_checked_id_only():
    seen = []

    def app(environ, start_response):
        seen.extend([environ["HTTP_X_REQUEST_ID"], environ["resilience.request_id"], request_id()])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    setup_testing_defaults(environ := {"HTTP_X_REQUEST_ID": "a b"})
    wsgi.ResilienceMiddleware(app)(environ, lambda *_: None)
    assert len(set(seen)) == 1
    assert is_request_id(seen[0])


class SecretHolderError(Exception):
    """An exception whose name tells something too."""


def leaking() -> Exception:
    try:
        raise SecretHolderError("SELECT password FROM users -- /srv/secret token=abc")
    except SecretHolderError as error:
        error.add_note("in /srv/secret")
        return error


def refused() -> RateLimitedError:
    return RateLimitedError(
        Decision.of(False, Quota(6, per=900.0), "login", remaining=0, reset_after=60.0, retry_after=7.0)
    )


@pytest.mark.parametrize("accept", ["*/*", "application/problem+json"])
@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        leaking(),
        not_found_error("User"),
        validation_error("Email is invalid", {"email": "invalid"}),
        CircuitOpenError("storage-secret", 4.0),
        StoreUnavailable("cannot open /srv/secret.db"),
        refused(),
        ExceptionGroup("secret", [not_found_error("User")]),
        TimeoutError("secret"),
        ServiceError("SELECT secret", ErrorCode.DATABASE_ERROR),
        ServiceError("secret", ErrorCode.MULTI_TENANCY_VIOLATION),
        ServiceError("secret", ErrorCode.BAD_REQUEST, status=500),
    ],
)
async def test_fault_83_both_adapters_answer_identically(error, accept, development):
    headers = [("X-Request-Id", "r1"), ("Accept", accept)]
    clock = FakeClock()
    answer = await over_asgi(error, clock, path="/ä b", headers=headers, development=development)
    error.__traceback__ = None
    other = over_wsgi(error, clock, path="/ä b", headers=headers, development=development)
    if development:
        bodies = [json.loads(body) for _, _, body in (answer, other)]
        for body in bodies:
            body["details"].pop("traceback", None)  # each through its own adapter
        assert bodies[0] == bodies[1]
    else:
        assert answer == other
        assert b"secret" not in answer[2]


async def test_fault_83_an_unhandled_exception_tells_its_code_and_the_id_only():
    _, headers, body = await over_asgi(leaking(), FakeClock(), headers=[("X-Request-Id", "r1")])
    answer = json.loads(body)
    assert answer.keys() == {"error", "code", "requestId", "timestamp"}
    assert (answer["code"], answer["requestId"]) == ("INTERNAL_ERROR", "r1")
    for secret in (b"Secret", b"SELECT", b"/srv", b"token", b'Error"', b"Traceback"):
        assert secret not in body
    assert {name for name, _ in headers} == {
        "content-type",
        "content-length",
        "cache-control",
        "x-request-id",
    }
