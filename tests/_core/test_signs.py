from __future__ import annotations

import errno
import http.client
import io
import socket
import sqlite3
import urllib.error
from email.message import Message
from types import SimpleNamespace

import aiohttp
import botocore.exceptions
import grpc
import httpx
import psycopg
import pytest
import requests
import sqlalchemy.exc
import starlette.exceptions

from resilience._core import signs, taxonomy
from resilience._core.taxonomy import Failure, Rule
from resilience.errors import ErrorCode, RateLimitedError, ServiceError

REQUEST = httpx.Request("GET", "http://api.invalid/timeout")
STATUSES = [408, 425, 429, 500, 502, 503, 504]
NOT_PROCESSED = {408, 413, 425, 429}


class BrokenError(Exception):
    """Nothing of it can be had."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __str__(self):
        raise RuntimeError


def foreign(package, name, *bases, **attributes):
    """Make an instance of a class as a package that is not installed here would define it."""
    cls = type(name, bases or (Exception,), {"__module__": f"{package}.errors"})
    exc = cls()
    for attribute, value in attributes.items():
        setattr(exc, attribute, value)
    return exc


def answered(status, headers=None, client="httpx"):
    """Return what a client raises for a status."""
    headers = headers or {}
    if client == "httpx":
        response = httpx.Response(status, headers=headers, request=REQUEST)
        return httpx.HTTPStatusError("timeout", request=REQUEST, response=response)
    if client == "requests":
        response = requests.Response()
        response.status_code = status
        response.headers.update(headers)
        return requests.HTTPError("timeout", response=response)
    if client == "aiohttp":
        return aiohttp.ClientResponseError(None, (), status=status, headers=headers)
    if client == "urllib":
        fields = Message()
        for name, value in headers.items():
            fields[name] = value
        return urllib.error.HTTPError("http://api.invalid/timeout", status, "timeout", fields, io.BytesIO())
    if client == "botocore":
        metadata = {"HTTPStatusCode": status, "HTTPHeaders": {k.lower(): v for k, v in headers.items()}}
        return botocore.exceptions.ClientError(
            {"Error": {"Code": "Oops"}, "ResponseMetadata": metadata}, "Get"
        )
    return starlette.exceptions.HTTPException(status, headers=headers)


CLIENTS = ["httpx", "requests", "aiohttp", "urllib", "botocore", "starlette"]
READ = {"botocore": signs.by_aws, "starlette": signs.by_attributes}


def read(client, exc):
    return READ.get(client, signs.by_status)(exc)


# --- looking -------------------------------------------------------------------------------------


def test_looking_never_replaces_the_failure():
    exc = BrokenError()

    assert signs.attribute(exc, "status_code") is None
    assert signs.message(exc) == ""
    assert signs.header(exc, "retry-after") is None
    assert signs.grpc_metadata(exc, "x") is None
    assert signs.by_attributes(exc) is None
    assert signs.by_message(exc) is None
    assert signs.wrapped(exc) is None


class OddError(Exception):
    """What it carries under well-known names is something else, or cannot be had."""

    args = errno = sqlite_errorcode = pgcode = status_code = object()
    response = {"Error": {"Code": []}, "ResponseMetadata": None}  # noqa: RUF012 - read only

    @property
    def __dict__(self):
        raise RuntimeError

    retryable = status = retry_after = code = __dict__


@pytest.mark.parametrize("rule", signs.READERS, ids=str)
def test_no_reader_replaces_the_failure(rule):
    verdict = signs.READERS[rule](OddError())

    # A WebSocket that has received no close code was cut, whatever stands there instead.
    assert verdict is None or verdict.transient is (rule is Rule.WEBSOCKET)
    assert signs.wrapped(OddError()) is None


@pytest.mark.parametrize("code", [[104], "104", None])
def test_an_errno_may_be_anything(code):
    assert signs.by_errno(OSError(code, "what went wrong")) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "7"},
        {"retry-after": "7"},
        {"RETRY-AFTER": "7", "other": "8"},
        {b"Retry-After": b"7"},
        [("Content-Type", "text/plain"), ("Retry-After", "7")],
        [(b"retry-after", b"7")],
        httpx.Headers({"Retry-After": "7"}),
        requests.structures.CaseInsensitiveDict({"retry-AFTER": 7}),
    ],
)
def test_headers_are_found_in_any_shape_and_case(headers):
    response = SimpleNamespace(headers=headers)

    assert signs.header(response, "retry-after") == "7"
    assert signs.header(SimpleNamespace(response=response), "retry-after") == "7"


@pytest.mark.parametrize("headers", [None, 5, "retry-after", [1, 2], [("a", "b", "c")], {"other": "7"}, {}])
def test_what_is_not_headers_holds_none(headers):
    assert signs.header(SimpleNamespace(headers=headers), "retry-after") is None


@pytest.mark.parametrize("response", [{}, {"ResponseMetadata": None}, {"ResponseMetadata": {}}, None, 5])
def test_what_is_not_a_response_holds_no_headers(response):
    assert signs.header(SimpleNamespace(response=response), "retry-after") is None


# --- readers -------------------------------------------------------------------------------------


def test_each_rule_has_a_reader_or_is_decided_by_type_or_by_what_lies_below():
    others = {
        Rule.NEVER,
        Rule.UNPROCESSED,
        Rule.PROCESSED,
        Rule.GROUP,
        Rule.WRAPPED,
        Rule.CONNECT,
        Rule.TRANSPORT,
    }

    assert signs.READERS.keys() == set(Rule) - others


@pytest.mark.parametrize("number", list(taxonomy.ERRNO))
def test_errno(number):
    failure = signs.by_errno(OSError(number, "it went wrong"))

    assert failure == (True, number != errno.ECONNREFUSED, f"errno {errno.errorcode[number]}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.EAGAIN, errno.EINVAL])
def test_other_errnos_are_not_transient(number):
    assert signs.by_errno(OSError(number, "timed out")) == (False, True, f"errno {number}")


def test_without_an_errno_there_is_no_sign():
    assert signs.by_errno(OSError("timed out")) is None


def test_only_one_failure_of_name_resolution_is_transient():
    assert signs.by_eai(socket.gaierror(socket.EAI_AGAIN, "try again")) == (True, False, "EAI_AGAIN")
    for code in (socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_FAMILY, None):
        assert signs.by_eai(socket.gaierror(code, "no")).transient is False


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", STATUSES)
def test_http_statuses(client, status):
    assert read(client, answered(status, client=client)) == (
        True,
        status not in NOT_PROCESSED,
        f"HTTP {status}",
    )


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 422, 501, 505, 599])
def test_other_http_statuses_are_not_transient(client, status):
    assert read(client, answered(status, client=client)) == (False, status != 413, f"HTTP {status}")


@pytest.mark.parametrize("client", CLIENTS)
def test_content_too_large_is_transient_if_it_says_when(client):
    exc = answered(413, {"Retry-After": "60"}, client)

    assert read(client, exc) == (True, False, "HTTP 413")


def test_a_status_below_400_decides_only_where_the_class_is_about_http():
    assert signs.by_status(SimpleNamespace(status=302)) == (False, True, "HTTP 302")
    assert signs.by_attributes(SimpleNamespace(status=302)) is None


@pytest.mark.parametrize("status", ["503", None, 5030, 99, 503.0])
def test_what_is_no_http_status_is_no_sign(status):
    assert signs.by_status(SimpleNamespace(status=status)) is None


def test_a_status_may_be_of_the_standard_librarys_kind():
    assert signs.by_attributes(SimpleNamespace(status_code=http.HTTPStatus.BAD_GATEWAY)) == (
        True,
        True,
        "HTTP 502",
    )


@pytest.mark.parametrize(
    ("code", "transient", "may_be_processed"),
    [
        ("40001", True, False),
        ("40P01", True, False),
        ("55P03", True, False),
        ("53300", True, False),
        ("57P01", True, True),
        ("57P02", True, True),
        ("57P03", True, False),
        ("08000", True, True),
        ("08001", True, False),
        ("08003", True, True),
        ("08004", True, False),
        ("08006", True, True),
        ("08P01", True, True),
        ("08007", False, True),
        ("53100", False, True),
        ("25006", False, True),
        ("28P01", False, True),
        ("57014", False, True),
        ("23505", False, True),
        ("40003", False, True),
    ],
)
def test_sqlstates(code, transient, may_be_processed):
    expected = Failure(transient, may_be_processed, f"SQLSTATE {code}")

    assert signs.by_sqlstate(foreign("asyncpg", "PostgresError", sqlstate=code)) == expected
    assert signs.by_libpq(foreign("psycopg2", "OperationalError", pgcode=code)) == expected
    cls = psycopg.errors.lookup(code)
    assert signs.by_libpq(cls("timeout")) == expected


@pytest.mark.parametrize("code", [None, 40001, "4000", "400011"])
def test_what_is_no_sqlstate_is_no_sign(code):
    assert signs.by_sqlstate(SimpleNamespace(sqlstate=code)) is None


AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "may_be_processed"),
    [
        (AT + "Connection refused\n\tIs the server running on that host?", False),
        (AT + "FATAL:  the database system is starting up", False),
        (AT + "FATAL:  the database system is shutting down", False),
        (AT + "FATAL:  sorry, too many clients already", False),
        (AT + "FATAL:  remaining connection slots are reserved for roles with SUPERUSER", False),
        (AT + "server closed the connection unexpectedly", False),
        (AT + "timeout expired", False),
        (
            'connection to server on socket "/tmp/s" failed: No such file. Is the server running locally?',
            False,
        ),
        ("failed to resolve host 'db': [Errno -3] Temporary failure in name resolution", False),
        ("the connection is closed", False),
        ("consuming input failed: server closed the connection unexpectedly", True),
        ("the connection is lost", True),
        ("SSL SYSCALL error: EOF detected", True),
        ("terminating connection due to administrator command", True),
    ],
)
def test_libpq_without_an_sqlstate_goes_by_its_message(message, may_be_processed):
    failure = signs.by_libpq(psycopg.OperationalError(message))

    assert (failure.transient, failure.may_be_processed) == (True, may_be_processed)


@pytest.mark.parametrize(
    "message",
    [
        AT + 'FATAL:  password authentication failed for user "app"',
        AT + 'FATAL:  database "app" does not exist',
        AT + 'FATAL:  no pg_hba.conf entry for host "10.0.0.1"',
        AT + "certificate verify failed",
        "failed to resolve host 'db': [Errno -2] Name or service not known",
        "the statement ran into a timeout",
        "",
    ],
)
def test_libpq_is_not_transient_without_known_words(message):
    assert not signs.by_libpq(psycopg.OperationalError(message)).transient


@pytest.mark.parametrize("code", list(taxonomy.MYSQL))
def test_mysql(code):
    expected = (True, taxonomy.MYSQL[code], f"MySQL error {code}")
    pymysql = foreign("pymysql", "OperationalError")
    pymysql.args = (code, "timed out")

    assert signs.by_mysql(pymysql) == expected
    assert signs.by_mysql(foreign("mysql", "Error", errno=code)) == expected


def test_mysql_otherwise():
    assert signs.by_mysql(foreign("mysql", "Error", errno=1045)) == (False, True, "MySQL error 1045")
    assert signs.by_mysql(foreign("mysql", "Error")) is None
    assert signs.by_mysql(Exception("timed out")) is None


def test_sqlite_busy(tmp_path):
    path = tmp_path / "busy.db"
    with sqlite3.connect(path) as writer:
        writer.execute("CREATE TABLE t (x)")
        writer.commit()
        writer.execute("BEGIN IMMEDIATE")
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.execute("BEGIN IMMEDIATE")
        other.close()
    writer.close()

    assert signs.by_sqlite(caught.value) == (True, False, "SQLITE_BUSY")


def test_sqlite_otherwise():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT * FROM timeouts")
    connection.close()
    assert signs.by_sqlite(caught.value) == (False, True, "SQLite result 1")

    extended = sqlite3.OperationalError("locked")
    extended.sqlite_errorcode = sqlite3.SQLITE_LOCKED_SHAREDCACHE
    assert signs.by_sqlite(extended) == (True, False, "SQLITE_LOCKED")
    assert signs.by_sqlite(sqlite3.OperationalError("database is locked")).transient  # unpickled: no code
    assert not signs.by_sqlite(sqlite3.OperationalError("disk I/O error")).transient


@pytest.mark.parametrize("code", list(taxonomy.AWS))
def test_aws_codes_win_over_the_status(code):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}

    failure = signs.by_aws(botocore.exceptions.ClientError(response, "PutObject"))

    assert failure == (True, taxonomy.AWS[code], f"AWS {code}")


@pytest.mark.parametrize("response", [{}, {"Error": {"Code": "NoSuchKey"}}, {"ResponseMetadata": {}}])
def test_aws_without_code_or_status(response):
    assert signs.by_aws(botocore.exceptions.ClientError(response, "PutObject")) is None


class Call(grpc.RpcError):
    """As grpc raises it: the error is the call."""

    def __init__(self, code, *metadata):
        self._code = code
        self._metadata = metadata

    def code(self):
        return self._code

    def trailing_metadata(self):
        return self._metadata


PUSHBACK = ("grpc-retry-pushback-ms", "1500")


@pytest.mark.parametrize(
    ("status", "transient", "may_be_processed"),
    [
        ("UNAVAILABLE", True, True),
        ("DEADLINE_EXCEEDED", True, True),
        ("RESOURCE_EXHAUSTED", False, False),
        ("ABORTED", False, True),
        ("CANCELLED", False, True),
        ("INTERNAL", False, True),
        ("UNKNOWN", False, True),
        ("PERMISSION_DENIED", False, True),
    ],
)
def test_grpc(status, transient, may_be_processed):
    expected = (transient, may_be_processed, f"gRPC {status}")

    assert signs.by_grpc(Call(grpc.StatusCode[status])) == expected
    metadata = grpc.aio.Metadata()
    assert signs.by_grpc(grpc.aio.AioRpcError(grpc.StatusCode[status], metadata, metadata)) == expected


def test_grpc_pushback():
    exhausted, unavailable = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE

    assert signs.by_grpc(Call(exhausted, PUSHBACK)) == (True, False, "gRPC RESOURCE_EXHAUSTED")
    for refusal in ("-1", "later", ""):
        assert not signs.by_grpc(Call(unavailable, ("grpc-retry-pushback-ms", refusal))).transient
    assert signs.by_grpc(grpc.RpcError()) is None


def test_metadata_that_cannot_be_had_holds_nothing():
    def not_yet():
        raise RuntimeError("the call is not done")

    assert signs.grpc_metadata(SimpleNamespace(trailing_metadata=not_yet), "x") is None
    assert signs.grpc_metadata(SimpleNamespace(trailing_metadata=5), "x") is None


def test_object_store():
    said = (
        "Generic S3 error: Error performing GET http://store.invalid/b/timeout in 1ms - {}\n\n"
        "Debug source:\nretry_timeout: 180s"
    )
    kind = "HTTP error: error sending request\n inner: Http(\n HttpError {{\n   kind: {},\n   source: {}"
    answered_with = "Server returned non-2xx status code: {}"

    def failure(text):
        return signs.by_object_store(Exception(said.format(text)))

    assert failure(answered_with.format("503 Service Unavailable")) == (True, True, "HTTP 503")
    assert failure(answered_with.format("429 Too Many Requests")) == (True, False, "HTTP 429")
    assert failure(answered_with.format("400 Bad Request")) == (False, True, "HTTP 400")
    assert failure(kind.format("Connect", "refused")) == (True, False, "object store: connect")
    assert failure(kind.format("Timeout", "TimedOut")) == (True, True, "object store: timeout")
    assert failure(kind.format("Decode", "x")) == (False, True, "object store: decode")
    assert not failure(kind.format("Connect", "dns error: Name or service not known")).transient
    assert not failure(kind.format("Connect", "invalid peer certificate: UnknownIssuer")).transient
    assert not failure("something else").transient


@pytest.mark.parametrize(
    ("code", "transient"),
    [(1000, False), (1001, True), (1006, True), (1008, False), (1011, True), (1012, True), (1013, True)],
)
def test_web_sockets(code, transient):
    closed = foreign("websockets", "ConnectionClosedError", rcvd=SimpleNamespace(code=code))

    assert signs.by_close_code(closed) == (transient, True, f"WebSocket close code {code}")


def test_a_web_socket_that_just_broke():
    assert signs.by_close_code(foreign("websockets", "ConnectionClosedError", rcvd=None)).transient


def test_our_own_errors_say_it_themselves():
    def failure(code, **arguments):
        return signs.by_retryable(ServiceError("timeout", code, **arguments))

    assert failure(ErrorCode.SERVICE_UNAVAILABLE) == (True, True, "SERVICE_UNAVAILABLE")
    assert failure(ErrorCode.TOO_MANY_REQUESTS) == (True, False, "TOO_MANY_REQUESTS")
    assert failure(ErrorCode.INTERNAL_ERROR) == (False, True, "INTERNAL_ERROR")
    assert failure(ErrorCode.CONFLICT) == (False, True, "CONFLICT")


def test_a_limiters_refusal_is_transient_if_it_says_when():
    def failure(retry_after):
        return signs.by_decision(RateLimitedError(SimpleNamespace(retry_after=retry_after)))

    assert failure(3.0) == (True, False, "RATE_LIMIT_EXCEEDED")
    assert failure(None) == (False, False, "RATE_LIMIT_EXCEEDED")


@pytest.mark.parametrize("words", ["Timeout", "it TIMED OUT", "Resource temporarily unavailable"])
def test_messages(words):
    assert signs.by_message(Exception(words)).transient


def test_other_messages_are_no_sign():
    assert signs.by_message(Exception("no")) is None
    assert signs.by_message(Exception("x" * 4000 + "timeout")) is None


# --- what lies below -----------------------------------------------------------------------------


def test_what_clients_wrap():
    inner = OSError("inner")
    caused = RuntimeError()
    caused.__cause__ = inner

    assert signs.wrapped(urllib.error.URLError(inner)) is inner
    assert signs.wrapped(sqlalchemy.exc.OperationalError("SELECT 1", {}, inner)) is inner
    assert signs.wrapped(botocore.exceptions.EndpointConnectionError(endpoint_url="x", error=inner)) is inner
    assert signs.wrapped(requests.ConnectionError(inner)) is inner
    assert signs.wrapped(aiohttp.ClientConnectorError(None, OSError(1, "x"))).errno == 1
    assert signs.wrapped(caused) is inner
    assert signs.wrapped(urllib.error.URLError("timed out")) is None


def test_what_is_below():
    leaves = (OSError(), ValueError())

    assert signs.below(ExceptionGroup("two", leaves)) == leaves
    assert signs.below(requests.ConnectionError(leaves[0])) == leaves[:1]
    assert signs.below(OSError()) == ()
