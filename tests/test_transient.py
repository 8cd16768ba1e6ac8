from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import errno
import gc
import http.client
import math
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import weakref
from types import SimpleNamespace
from unittest import mock

import aiohttp
import botocore.config
import botocore.exceptions
import botocore.session
import circuitbreaker
import grpc
import httpx
import psycopg
import pybreaker
import pytest
import redis
import requests
import sqlalchemy
import sqlalchemy.exc
import sqlalchemy.pool
import tenacity
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from resilience import transient
from resilience._core.retry_after import LONGEST
from resilience.callables import MisuseError
from resilience.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    TimeoutExceeded,
)
from resilience.transient import (
    Failure,
    classify,
    is_never_retried,
    is_transient,
    register,
    retry_after_of,
)


def caused(exc, cause):
    """Return `exc` as raised from `cause`."""
    exc.__cause__ = cause
    return exc


def while_handling(exc, context):
    """Return `exc` as raised while `context` was handled."""
    exc.__context__ = context
    return exc


def what_it_raises(function, *arguments, **keywords):
    with pytest.raises(Exception) as caught:
        function(*arguments, **keywords)
    return caught.value


# --- the standard library ------------------------------------------------------------------------


class MyTimeoutError(TimeoutError):
    pass


@pytest.mark.parametrize(
    "exc",
    [
        ConnectionError(),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        ConnectionAbortedError(),
        BrokenPipeError(),
        TimeoutError(),
        MyTimeoutError(),
        asyncio.TimeoutError(),  # noqa: UP041 - the alias is under test
        concurrent.futures.TimeoutError(),
        socket.timeout(),  # noqa: UP041 - likewise
        OSError(errno.ENETUNREACH, "unreachable"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ssl.SSLZeroReturnError(6, "closed"),
        http.client.RemoteDisconnected("closed"),
        http.client.IncompleteRead(b"half"),
        http.client.BadStatusLine(""),
        asyncio.IncompleteReadError(b"half", 8),
        urllib.error.ContentTooShortError("short", b""),
        urllib.error.URLError(ConnectionResetError()),
        urllib.error.URLError(TimeoutError("timed out")),
        urllib.error.URLError("timed out"),
        subprocess.TimeoutExpired("sleep", 1),
    ],
)
def test_transient_and_perhaps_processed(exc):
    assert is_transient(exc)
    assert classify(exc).may_be_processed


@pytest.mark.parametrize(
    "exc",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        socket.gaierror(socket.EAI_AGAIN, "try again"),
        urllib.error.URLError(ConnectionRefusedError()),
    ],
)
def test_transient_and_not_processed(exc):
    assert classify(exc)[:2] == (True, False)
    assert is_transient(exc)


@pytest.mark.parametrize(
    "exc",
    [
        ssl.SSLCertVerificationError("certificate verify failed: timed out"),
        ssl.SSLError(1, "wrong version number"),
        ssl.SSLWantReadError(2, "timed out"),
        socket.gaierror(socket.EAI_NONAME, "name unknown"),
        socket.herror(2, "timed out"),
        OSError(errno.ENOSPC, "no space"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        FileNotFoundError(errno.ENOENT, "timeout"),
        FileNotFoundError("timeout.toml"),
        PermissionError("timeout"),
        InterruptedError(errno.EINTR, "timeout"),
        urllib.error.URLError(ssl.SSLCertVerificationError("x")),
        urllib.error.URLError("unknown url type: foo"),
        http.client.InvalidURL("timeout"),
        http.client.CannotSendRequest("timeout"),
        asyncio.InvalidStateError("timeout"),
        asyncio.LimitOverrunError("timeout", 1),
        concurrent.futures.BrokenExecutor("timeout"),
        concurrent.futures.CancelledError("timeout"),
        subprocess.CalledProcessError(1, "timeout"),
        sqlite3.IntegrityError("timeout"),
        MemoryError("timeout"),
        DeprecationWarning("timeout"),
        Exception(),
        RuntimeError("no"),
    ],
)
def test_not_transient(exc):
    assert not is_transient(exc)
    assert not classify(exc).transient


@pytest.mark.parametrize(
    "cls",
    [
        *(
            TypeError,
            ValueError,
            AttributeError,
            NameError,
            KeyError,
            IndexError,
            AssertionError,
            ZeroDivisionError,
        ),
        *(
            ImportError,
            ModuleNotFoundError,
            NotImplementedError,
            RecursionError,
            StopIteration,
            StopAsyncIteration,
        ),
        *(
            SyntaxError,
            SystemError,
            BufferError,
            ReferenceError,
            UnboundLocalError,
            OverflowError,
            LookupError,
        ),
    ],
)
def test_programming_errors_are_never_transient_whatever_they_say(cls):
    exc = caused(cls("request timed out"), TimeoutError())

    assert not is_transient(exc)


@pytest.mark.parametrize(
    "cls", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, BaseException]
)
def test_what_is_no_exception_is_never_transient(cls):
    assert not is_transient(caused(cls("timeout"), TimeoutError()))
    assert not classify(cls()).transient


def test_what_is_no_exception_is_never_transient_under_any_name():
    cls = type("ConnectionError", (BaseException,), {"__module__": "redis.exceptions"})

    assert not is_transient(cls())


def test_the_reason_names_the_class_of_the_exception():
    assert classify(KeyError("x")).reason == "KeyError"
    assert classify(MyTimeoutError()).reason == f"{__name__.partition('.')[0]}.MyTimeoutError"
    assert classify(httpx.ReadTimeout("x")).reason == "httpx.ReadTimeout"
    assert classify(asyncio.CancelledError()).reason == "asyncio.CancelledError"


# --- our own -------------------------------------------------------------------------------------


def test_our_own_errors():
    def refused(retry_after):
        return RateLimitedError(SimpleNamespace(retry_after=retry_after))

    assert not is_transient(CircuitOpenError("storage", 1.0))
    assert not is_transient(DeadlineExceeded("the time is up"))
    assert is_transient(refused(1.0))
    assert not is_transient(refused(None))
    assert is_transient(ServiceError("no", ErrorCode.SERVICE_UNAVAILABLE))
    assert not is_transient(ServiceError("timeout", ErrorCode.NOT_FOUND))


def test_a_step_that_took_longer_than_its_own_timeout_may_be_repeated():
    error = TimeoutExceeded("the time of this step is up")

    assert is_transient(error)
    assert classify(error).may_be_processed
    assert not is_never_retried(TimeoutExceeded)
    assert is_never_retried(DeadlineExceeded)


# --- clients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "exc",
    [
        *(httpx.ReadTimeout("x"), httpx.WriteTimeout("x"), httpx.ReadError("x"), httpx.WriteError("x")),
        *(httpx.CloseError("x"), httpx.RemoteProtocolError("x")),
        *(requests.ConnectionError("x"), requests.ReadTimeout("x"), requests.Timeout("x")),
        requests.exceptions.ChunkedEncodingError("x"),
        requests.ConnectionError(urllib3.exceptions.ProtocolError("aborted", ConnectionResetError())),
        *(aiohttp.ServerDisconnectedError(), aiohttp.ServerTimeoutError(), aiohttp.SocketTimeoutError()),
        *(aiohttp.ClientOSError(errno.EPIPE, "x"), aiohttp.ClientPayloadError("x")),
        aiohttp.ClientConnectionResetError("x"),
        *(redis.ConnectionError("x"), redis.TimeoutError("x")),
        *(urllib3.exceptions.ProtocolError("x"), urllib3.exceptions.IncompleteRead(1, 2)),
        urllib3.exceptions.ReadTimeoutError(None, "/", "x"),
        botocore.exceptions.ReadTimeoutError(endpoint_url="x"),
        botocore.exceptions.ConnectionClosedError(endpoint_url="x"),
        botocore.exceptions.HTTPClientError(error=ConnectionResetError()),
        grpc.FutureTimeoutError(),
        psycopg.OperationalError("the connection is lost"),
        psycopg.errors.AdminShutdown("x"),
        sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.errors.CrashShutdown("x")),
        sqlalchemy.exc.DBAPIError("SELECT 1", {}, Exception("gone"), connection_invalidated=True),
    ],
)
def test_clients_transient_and_perhaps_processed(exc):
    assert classify(exc)[:2] == (True, True)


@pytest.mark.parametrize(
    "exc",
    [
        *(httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x"), httpx.ProxyError("x")),
        *(requests.ConnectTimeout("x"), requests.exceptions.ProxyError("x")),
        requests.ConnectionError(
            urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.NewConnectionError(None, "x"))
        ),
        aiohttp.ClientConnectorError(None, ConnectionRefusedError(errno.ECONNREFUSED, "x")),
        aiohttp.ClientConnectorDNSError(None, socket.gaierror(socket.EAI_AGAIN, "x")),
        aiohttp.ConnectionTimeoutError("x"),
        *(redis.BusyLoadingError("x"), redis.ReadOnlyError("x"), redis.exceptions.TryAgainError("x")),
        *(redis.exceptions.ClusterDownError("x"), redis.exceptions.MasterDownError("x")),
        *(urllib3.exceptions.EmptyPoolError(None, "x"), urllib3.exceptions.ConnectTimeoutError("x")),
        botocore.exceptions.EndpointConnectionError(endpoint_url="x"),
        botocore.exceptions.ConnectTimeoutError(endpoint_url="x"),
        psycopg.errors.SerializationFailure("x"),
        psycopg.errors.ConnectionTimeout("x"),
        sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.errors.DeadlockDetected("x")),
        sqlalchemy.exc.TimeoutError("QueuePool limit reached"),
    ],
)
def test_clients_transient_and_not_processed(exc):
    assert classify(exc)[:2] == (True, False)


CERTIFICATE = ssl.SSLCertVerificationError("certificate verify failed: timed out")
UNKNOWN_NAME = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    "exc",
    [
        *(
            httpx.InvalidURL("timeout"),
            httpx.UnsupportedProtocol("timeout"),
            httpx.TooManyRedirects("timeout"),
        ),
        *(httpx.DecodingError("timeout"), httpx.LocalProtocolError("timeout"), httpx.StreamConsumed()),
        caused(httpx.ConnectError("x"), CERTIFICATE),
        caused(httpx.ConnectError("x"), UNKNOWN_NAME),
        requests.exceptions.InvalidURL("timeout"),
        requests.exceptions.MissingSchema("timeout"),
        requests.exceptions.InvalidHeader("timeout"),
        requests.exceptions.JSONDecodeError("timeout", "", 0),
        *(requests.TooManyRedirects("timeout"), requests.exceptions.RetryError("timeout")),
        requests.exceptions.ContentDecodingError("timeout"),
        requests.HTTPError("no response"),
        requests.exceptions.SSLError(
            urllib3.exceptions.MaxRetryError(None, "/timeout", urllib3.exceptions.SSLError(CERTIFICATE))
        ),
        requests.exceptions.URLRequired("timeout"),
        aiohttp.InvalidURL("timeout"),
        aiohttp.ClientConnectorDNSError(None, UNKNOWN_NAME),
        aiohttp.ClientConnectorCertificateError(None, CERTIFICATE),
        aiohttp.ClientConnectorSSLError(None, ssl.SSLError(1, "timeout")),
        aiohttp.ServerFingerprintMismatch(b"", b"", "timeout", 1),
        aiohttp.TooManyRedirects(None, (), status=302, message="timeout"),
        aiohttp.ContentTypeError(None, (), status=200, message="timeout"),
        *(redis.AuthenticationError("timeout"), redis.exceptions.AuthorizationError("timeout")),
        *(redis.exceptions.MaxConnectionsError("timeout"), redis.ResponseError("timeout")),
        *(redis.exceptions.OutOfMemoryError("timeout"), redis.exceptions.NoScriptError("timeout")),
        *(
            redis.exceptions.NoPermissionError("timeout"),
            redis.WatchError("timeout"),
            redis.DataError("timeout"),
        ),
        *(redis.exceptions.MovedError("1 timeout:1"), redis.exceptions.LockError("timeout")),
        while_handling(redis.ConnectionError("x"), CERTIFICATE),
        *(
            urllib3.exceptions.ClosedPoolError(None, "timeout"),
            urllib3.exceptions.LocationParseError("timeout"),
        ),
        urllib3.exceptions.MaxRetryError(None, "/", urllib3.exceptions.ResponseError("timeout")),
        botocore.exceptions.NoCredentialsError(),
        botocore.exceptions.ParamValidationError(report="timeout"),
        botocore.exceptions.HTTPClientError(error=ValueError("timeout")),
        botocore.exceptions.SSLError(endpoint_url="x", error=CERTIFICATE),
        grpc.FutureCancelledError("timeout"),
        psycopg.OperationalError(
            'connection failed: FATAL:  password authentication failed for user "timeout"'
        ),
        *(
            psycopg.errors.QueryCanceled("timeout"),
            psycopg.errors.DiskFull("x"),
            psycopg.errors.InvalidPassword("x"),
        ),
        *(psycopg.errors.ReadOnlySqlTransaction("x"), psycopg.errors.UniqueViolation("x")),
        psycopg.errors.TransactionResolutionUnknown("x"),
        psycopg.ProgrammingError("timeout"),
        sqlalchemy.exc.IntegrityError("INSERT", {}, psycopg.errors.UniqueViolation("timeout")),
        sqlalchemy.exc.DBAPIError("SELECT 1", {}, Exception("no")),
        sqlalchemy.exc.PendingRollbackError("timeout"),
        sqlalchemy.exc.NoResultFound("timeout"),
        pybreaker.CircuitBreakerError("Timeout not elapsed yet, circuit breaker still open"),
        circuitbreaker.CircuitBreakerError(circuitbreaker.CircuitBreaker(name="timeout")),
        caused(tenacity.RetryError(tenacity.Future(1)), TimeoutError()),
    ],
    ids=lambda exc: f"{type(exc).__module__}.{type(exc).__name__}",
)
def test_clients_not_transient(exc):
    assert not classify(exc).transient
    assert not is_transient(exc)


def test_subclasses_of_users_are_covered():
    class StorageTimeout(httpx.ReadTimeout):
        pass

    class Refused(redis.AuthenticationError):
        pass

    assert is_transient(StorageTimeout("x"))
    assert not is_transient(Refused("x"))


def test_a_connection_that_sqlalchemy_gave_up_was_lost_whatever_the_driver_says_in_words():
    def failure(orig):
        return classify(sqlalchemy.exc.DBAPIError("SELECT 1", {}, orig, connection_invalidated=True))

    assert failure(psycopg.OperationalError("la connexion est perdue")) == (
        True,
        True,
        "connection invalidated",
    )
    assert failure(psycopg.OperationalError("the connection is lost")).reason == "libpq: connection is lost"
    assert not failure(psycopg.errors.TransactionResolutionUnknown("x")).transient


def test_a_class_that_moves_inside_its_package_is_still_known():
    moved = type("ConnectionError", (Exception,), {"__module__": "redis.somewhere.new"})
    resembling = type("ConnectionError", (Exception,), {"__module__": "redistribution"})

    assert is_transient(moved())
    assert not is_transient(resembling())


# --- real failures on the loopback ---------------------------------------------------------------


@pytest.fixture
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]  # bound, but nobody listens


@pytest.fixture
def hanging_up():
    """Yield the port of a server that hangs up on whoever asks something."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def fetch_httpx(url):
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(url)


async def fetch_aiohttp(url):
    async with aiohttp.ClientSession() as session, session.get(url):
        pass


def fetch_botocore(url):
    config = botocore.config.Config(retries={"total_max_attempts": 1}, signature_version=botocore.UNSIGNED)
    client = botocore.session.Session().create_client(
        "s3", region_name="eu-central-1", endpoint_url=url, config=config
    )
    client.list_buckets()


def ping_redis(url):
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    with redis.Redis.from_url(url.replace("http", "redis"), retry=retry) as client:
        client.ping()


def fetch_psycopg(url):
    host, port = url.removeprefix("http://").split(":")
    psycopg.connect(host=host, port=port, connect_timeout=2)


def fetch_sqlalchemy(url):
    engine = sqlalchemy.create_engine(url.replace("http", "postgresql+psycopg"))
    engine.connect()


def call_grpc(url):
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        channel.unary_unary("/service/method")(b"", timeout=5)


FETCHES = {
    "httpx": lambda url: httpx.get(url, trust_env=False),
    "httpx async": lambda url: asyncio.run(fetch_httpx(url)),
    "requests": requests.get,
    "urllib": urllib.request.urlopen,
    "urllib3": lambda url: urllib3.request("GET", url, retries=False),
    "urllib3 with retries": lambda url: urllib3.request("GET", url, retries=0),
    "aiohttp": lambda url: asyncio.run(fetch_aiohttp(url)),
    "botocore": fetch_botocore,
    "redis": ping_redis,
    "psycopg": fetch_psycopg,
    "sqlalchemy": fetch_sqlalchemy,
    "grpc": call_grpc,
}
TOLD_APART = FETCHES.keys() - {"redis", "grpc"}
"""Who says whether a connection was refused or lost; of the others we say "perhaps processed"."""


@pytest.mark.parametrize("client", FETCHES)
def test_a_connection_that_is_refused(client, closed_port):
    exc = what_it_raises(FETCHES[client], f"http://127.0.0.1:{closed_port}")

    assert classify(exc)[:2] == (True, client not in TOLD_APART)


@pytest.mark.parametrize("client", FETCHES)
def test_a_server_that_hangs_up(client, hanging_up):
    exc = what_it_raises(FETCHES[client], f"http://127.0.0.1:{hanging_up}")

    while_connecting = client in {"psycopg", "sqlalchemy"}  # their first answer is still part of connecting
    assert classify(exc)[:2] == (True, not while_connecting)


@pytest.mark.parametrize("client", sorted(FETCHES.keys() - {"grpc"}))  # grpc keeps the reason to itself
def test_a_name_that_does_not_exist(client, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    exc = what_it_raises(FETCHES[client], "http://no.such.host.invalid:81")

    assert not classify(exc).transient


def test_a_handshake_that_fails():
    context = ssl.create_default_context()
    left, right = socket.socketpair()
    right.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    with left, right, pytest.raises(ssl.SSLError) as caught:
        context.wrap_socket(left, server_hostname="localhost")

    assert not is_transient(caught.value)
    assert not is_transient(caused(httpx.ConnectError("x"), caught.value))


# --- causes, contexts, messages ------------------------------------------------------------------


class StorageError(Exception):
    pass


def test_an_exception_without_a_sign_is_judged_by_its_cause():
    assert classify(caused(StorageError(), ConnectionRefusedError())) == (
        True,
        False,
        "ConnectionRefusedError",
    )
    assert is_transient(caused(StorageError(), caused(StorageError(), TimeoutError())))
    assert is_transient(caused(StorageError(), Exception("timed out")))
    assert not is_transient(caused(StorageError("timed out"), ValueError()))
    assert not is_transient(caused(StorageError("timed out"), asyncio.CancelledError()))


def test_a_sign_of_its_own_is_better_than_any_cause():
    unprocessable = StorageError()
    unprocessable.status_code = 422

    assert not is_transient(caused(unprocessable, TimeoutError()))
    assert not is_transient(caused(OSError(errno.ENOSPC, "full"), TimeoutError()))


def test_what_was_merely_being_handled_makes_nothing_transient():
    def fail_while_handling():
        try:
            raise TimeoutError
        except TimeoutError:
            raise StorageError  # noqa: B904 - the lack of `from` is under test

    assert not is_transient(what_it_raises(fail_while_handling))


def test_the_context_of_a_connection_error_counts_for_caution_only_and_only_if_not_suppressed():
    suppressed = while_handling(redis.ConnectionError("x"), UNKNOWN_NAME)
    suppressed.__suppress_context__ = True

    assert not is_transient(while_handling(redis.ConnectionError("x"), UNKNOWN_NAME))
    assert is_transient(suppressed)
    assert is_transient(while_handling(redis.ConnectionError("x"), ValueError()))
    assert classify(while_handling(redis.ConnectionError("x"), ConnectionRefusedError())).may_be_processed


def test_a_name_that_may_be_found_later():
    exc = caused(httpx.ConnectError("x"), socket.gaierror(socket.EAI_AGAIN, "try again"))

    assert classify(exc) == (True, False, "httpx.ConnectError")


@pytest.mark.parametrize("message", ["Connection timed out", "TIMEOUT", "Service temporarily unavailable."])
def test_messages_count_where_there_is_no_better_sign(message):
    assert is_transient(RuntimeError(message))
    assert is_transient(OSError(message))
    assert not is_transient(OSError(errno.EACCES, message))


def test_cycles_of_causes_end():
    one, two = StorageError(), StorageError()
    one.__cause__, two.__cause__ = two, one
    assert not is_transient(one)

    first, second = httpx.ConnectError("x"), httpx.ConnectError("y")
    first.__cause__, second.__cause__ = second, first
    assert is_transient(first)
    assert retry_after_of(first, 0.0) is None


def chain(length, last):
    for _ in range(length):
        last = caused(StorageError(), last)
    return last


def test_long_chains_of_causes_are_not_followed_to_their_end():
    assert is_transient(chain(31, TimeoutError()))
    assert not is_transient(chain(100_000, TimeoutError()))
    assert is_transient(caused(httpx.ConnectError("x"), chain(100, CERTIFICATE)))  # beyond what is looked at


# --- groups --------------------------------------------------------------------------------------


def test_a_group_is_transient_if_every_leaf_is():
    mixed = ExceptionGroup("mixed", [TimeoutError(), ExceptionGroup("inner", [ConnectionRefusedError()])])
    refused = ExceptionGroup(
        "refused", [ConnectionRefusedError(), caused(StorageError(), ConnectionRefusedError())]
    )

    assert classify(mixed) == (True, True, "TimeoutError, ConnectionRefusedError")
    assert classify(refused) == (True, False, "ConnectionRefusedError")
    assert classify(caused(StorageError(), refused)) == (True, False, "ConnectionRefusedError")


@pytest.mark.parametrize(
    "leaf", [ValueError("timed out"), StorageError(), ExceptionGroup("inner", [KeyError()])]
)
def test_a_group_is_not_transient_if_one_leaf_is_not(leaf):
    group = ExceptionGroup("mixed: timed out", [TimeoutError(), leaf, TimeoutError()])

    assert classify(caused(group, TimeoutError())) == (False, True, "1 of 3 in the group not transient")


def test_a_group_with_cancellation_is_never_transient():
    assert not is_transient(BaseExceptionGroup("cancelled", [TimeoutError(), asyncio.CancelledError()]))


def test_groups_nested_too_deeply_are_not_transient():
    group = ExceptionGroup("innermost", [TimeoutError()])
    for _ in range(200):
        group = ExceptionGroup("outer", [group])

    assert not is_transient(group)


def test_a_group_that_shares_its_leaves_is_judged_in_no_time():
    shared = ExceptionGroup("innermost", [StorageError("timed out")])
    for _ in range(25):
        shared = ExceptionGroup("outer", [shared] * 10)  # 10^25 paths, 26 groups

    assert is_transient(shared)
    assert retry_after_of(shared, 0.0) is None


def test_a_leaf_that_is_caused_by_its_group():
    leaf = StorageError()
    group = ExceptionGroup("group", [leaf])
    leaf.__cause__ = group

    assert not is_transient(group)
    assert not is_transient(leaf)


@given(st.recursive(st.booleans(), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=12))
def test_groups_follow_the_rule_of_all(tree):
    def exception(node):
        if isinstance(node, list):
            return ExceptionGroup("group", [exception(inner) for inner in node])
        return TimeoutError() if node else KeyError()

    def expected(node):
        return all(map(expected, node)) if isinstance(node, list) else node

    assert is_transient(exception(tree)) == expected(tree)


# --- registering ---------------------------------------------------------------------------------


@pytest.fixture
def registered():
    """Register for one test."""
    undone = []

    def undoable(*arguments, **keywords):
        undone.append(register(*arguments, **keywords))
        return undone[-1]

    yield undoable
    for undo in undone:
        undo()


def test_a_registered_class_and_its_subclasses(registered):
    class LockedError(Exception):
        pass

    class LockedForLongError(LockedError):
        pass

    assert not is_transient(LockedForLongError())
    undo = registered(LockedError, transient=True, may_be_processed=False)
    assert classify(LockedForLongError()) == (True, False, "LockedError")
    registered(LockedForLongError, transient=False)
    assert (is_transient(LockedError()), is_transient(LockedForLongError())) == (True, False)

    undo()
    undo()
    assert not is_transient(LockedError())


def test_a_registration_wins_over_the_tables_but_not_over_a_nearer_class(registered):
    registered(httpx.HTTPError, transient=True)
    assert is_transient(httpx.DecodingError("x"))
    assert not is_transient(caused(httpx.ConnectError("x"), CERTIFICATE))

    registered(redis.MaxConnectionsError, transient=True, may_be_processed=False)
    assert classify(redis.MaxConnectionsError("x")) == (True, False, "MaxConnectionsError")


def test_a_registered_function(registered):
    class ProviderError(Exception):
        pass

    verdicts = {
        "busy": True,
        "invalid": False,
        "sent": Failure(True, True, "sent"),
        "timed out": None,
        "no idea": None,
    }
    registered(ProviderError, transient=lambda exc: verdicts[str(exc)], may_be_processed=False)
    answered = ProviderError("no idea")
    answered.status_code = 503

    assert classify(ProviderError("busy")) == (True, False, "ProviderError")
    assert classify(ProviderError("invalid")) == (False, False, "ProviderError")
    assert classify(ProviderError("sent")) == (True, True, "sent")
    assert classify(ProviderError("timed out")) == (True, True, "message 'timed out'")
    assert classify(answered) == (True, True, "HTTP 503")
    assert not is_transient(ProviderError("no idea"))
    assert is_transient(caused(ProviderError("no idea"), TimeoutError()))


def test_what_a_registered_function_raises_reaches_the_caller(registered):
    registered(StorageError, transient=lambda exc: exc.missing)

    with pytest.raises(AttributeError, match="missing"):
        is_transient(StorageError())


def test_registering_again_replaces_and_the_first_can_no_longer_be_taken_back(registered):
    first = registered(StorageError, transient=True)
    registered(StorageError, transient=False)
    assert not is_transient(StorageError())

    first()
    assert classify(StorageError()) == (False, True, "StorageError")


@pytest.mark.parametrize(
    "cls", [CircuitOpenError, DeadlineExceeded, MisuseError, concurrent.futures.CancelledError]
)
def test_what_is_never_retried_cannot_be_registered(cls):
    with pytest.raises(TypeError, match="is never retried, whatever is registered"):
        register(cls, transient=True)


@pytest.mark.parametrize(
    "cls", [KeyboardInterrupt, asyncio.CancelledError, BaseException, int, "TimeoutError", None]
)
def test_only_exceptions_can_be_registered(cls):
    with pytest.raises(TypeError, match="not a subclass of Exception"):
        register(cls, transient=True)


async def judge(exc):
    return False


@pytest.mark.parametrize("transient", [1, "yes", None, judge])
def test_a_verdict_is_a_bool_or_a_function(transient):
    with pytest.raises(TypeError, match="transient must be True, False or a plain function"):
        register(StorageError, transient=transient)


def test_registering_while_others_judge_leaves_no_stale_rule(registered):
    class FlappingError(Exception):
        pass

    stop = threading.Event()

    def judge():
        while not stop.is_set():
            is_transient(FlappingError())

    threads = [threading.Thread(target=judge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        undo = register(FlappingError, transient=True)
        assert is_transient(FlappingError())
        undo()
        assert not is_transient(FlappingError())
    stop.set()
    for thread in threads:
        thread.join()


def test_a_slow_look_up_does_not_bring_an_old_rule_back(registered, monkeypatch):
    class SlowError(Exception):
        pass

    find = transient._find_rule

    def register_meanwhile(cls, rules):
        rule = find(cls, rules)
        monkeypatch.undo()
        registered(SlowError, transient=True)
        return rule

    monkeypatch.setattr(transient, "_find_rule", register_meanwhile)
    is_transient(SlowError())
    assert is_transient(SlowError())


def test_registrations_of_many_threads_are_all_kept(registered):
    classes = [type(f"Locked{number}", (Exception,), {}) for number in range(40)]
    threads = [
        threading.Thread(target=registered, args=(cls,), kwargs={"transient": True}) for cls in classes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(is_transient(cls()) for cls in classes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_the_lock_is_held_can_register():
    code = (
        "import os, sys, threading\n"
        "from resilience import transient\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with transient._registry._lock:\n"
        "        held.set(); done.wait()\n"
        "thread = threading.Thread(target=hold); thread.start(); held.wait()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    transient.register(KeyError, transient=True)\n"
        "    os._exit(0 if transient.is_transient(KeyError()) else 1)\n"
        "done.set(); thread.join()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=10)


# --- memory and imports --------------------------------------------------------------------------


def test_classes_made_on_the_fly_do_not_pile_up():
    seen = [
        weakref.ref(cls)
        for cls in (type("Made", (Exception,), {}) for _ in range(3000))
        if not is_transient(cls())
    ]
    gc.collect()

    assert len(seen) == 3000
    assert len(transient._rules) <= transient._MOST_TYPES
    assert sum(cls() is not None for cls in seen) <= transient._MOST_TYPES + 1


def test_no_client_library_is_imported():
    code = "import sys; import resilience.transient; print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    ).stdout.split()  # without our environment, since coverage would load some of them

    assert not {"httpx", "requests", "redis", "socket", "ssl", "sqlite3", "asyncio", "email", "datetime"} & {
        *printed
    }


# --- Retry-After ---------------------------------------------------------------------------------


class BrokenDuration:
    def total_seconds(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (2, 2.0),
        (1.5, 1.5),
        ("7", 7.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 50.0),
        (dt.timedelta(minutes=1), 60.0),
        (10**9, LONGEST),
        (10**400, LONGEST),
        (math.inf, LONGEST),
        (math.nan, None),
        (-1, None),
        (-math.inf, None),
        (dt.timedelta(seconds=-1), None),
        (True, None),
        ("soon", None),
        ([5], None),
        (BrokenDuration(), None),
        (None, None),
    ],
)
def test_the_attribute(value, seconds):
    assert retry_after_of(SimpleNamespace(retry_after=value), 10.0) == seconds


def test_our_own_errors_say_when():
    assert retry_after_of(CircuitOpenError("storage", 4.2), 0.0) == 4.2
    assert retry_after_of(ServiceError(retry_after=3), 0.0) == 3.0
    assert retry_after_of(ServiceError(), 0.0) is None


def test_the_header_where_the_attribute_makes_no_sense():
    response = SimpleNamespace(headers={"Retry-After": "5"}, retry_after=-1)

    assert retry_after_of(response, 0.0) == 5.0


REQUEST = httpx.Request("GET", "http://api.invalid")


@pytest.mark.parametrize(
    "outcome",
    [
        httpx.Response(503, headers={"Retry-After": "5"}),
        httpx.HTTPStatusError(
            "x", request=REQUEST, response=httpx.Response(503, headers={"retry-after": "5"})
        ),
        aiohttp.ClientResponseError(None, (), status=429, headers={"Retry-After": "5"}),
        botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPHeaders": {"retry-after": "5"}}}, "Get"),
        caused(StorageError(), ServiceError(retry_after=5)),
        sqlalchemy.exc.OperationalError("x", {}, ServiceError(retry_after=5)),
        ExceptionGroup("x", [ServiceError(retry_after=5), TimeoutError(), ServiceError(retry_after=1)]),
        caused(StorageError(), ExceptionGroup("x", [ExceptionGroup("y", [ServiceError(retry_after=5)])])),
    ],
)
def test_where_it_is_found(outcome):
    assert retry_after_of(outcome, 0.0) == 5.0


def test_an_empty_response_of_requests_is_looked_at_although_it_is_false():
    response = requests.Response()
    response.status_code = 429
    response.headers["Retry-After"] = "5"
    assert not response

    assert retry_after_of(requests.HTTPError(response=response), 0.0) == 5.0
    assert is_transient(requests.HTTPError(response=response))


@pytest.mark.parametrize(
    ("pushback", "seconds"),
    [("1500", 1.5), ("0", 0.0), ("9" * 5000, LONGEST), ("-1", None), ("soon", None)],
)
def test_a_grpc_servers_pushback(pushback, seconds):
    call = SimpleNamespace(trailing_metadata=lambda: (("other", "x"), ("grpc-retry-pushback-ms", pushback)))

    assert retry_after_of(call, 0.0) == seconds


@pytest.mark.parametrize(
    "outcome", [None, 5, "text", {"retry_after": 5}, object(), mock.Mock(), [], Exception()]
)
def test_other_outcomes_ask_for_nothing(outcome):
    assert retry_after_of(outcome, 0.0) is None
