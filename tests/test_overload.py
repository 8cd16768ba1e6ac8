from __future__ import annotations

import asyncio
import concurrent.futures

import botocore.exceptions
import grpc
import httpx
import psycopg
import pytest
import redis
import requests
import sqlalchemy.exc

from resilience import (
    BulkheadFullError,
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    OverloadedError,
    RateLimitedError,
    ServiceError,
    TimeoutExceeded,
    is_overload,
    rate_limit_error,
    service_unavailable_error,
)
from resilience._core.quota import Decision, Quota


class StatusError(Exception):
    def __init__(self, status):
        self.status = status


class RpcError(grpc.RpcError):
    def __init__(self, code):
        self.code = lambda: code


def aws(code):
    return botocore.exceptions.ClientError({"Error": {"Code": code}}, "PutObject")


def wrapped(error):
    outer = RuntimeError("it did not work")
    outer.__cause__ = error
    return outer


REFUSED = RateLimitedError(Decision.of(False, Quota(6, per=900.0), "login", remaining=0, retry_after=1.0))


@pytest.mark.parametrize(
    "error",
    [
        StatusError(429),
        StatusError(503),
        StatusError(504),
        RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED),
        RpcError(grpc.StatusCode.UNAVAILABLE),
        RpcError(grpc.StatusCode.DEADLINE_EXCEEDED),
        aws("SlowDown"),
        aws("ThrottlingException"),
        psycopg.errors.lookup("53300")(),
        TimeoutError(),
        OSError(110, "timed out"),
        httpx.ReadTimeout("too late"),
        httpx.ConnectTimeout("too late"),
        requests.ReadTimeout(),
        redis.TimeoutError(),
        service_unavailable_error("busy"),
        rate_limit_error(2.0),
        ServiceError("busy", ErrorCode.TIMEOUT),
        DeadlineExceeded("2 s were up"),
        Exception("the request timed out"),
        wrapped(StatusError(503)),
        wrapped(DeadlineExceeded("2 s were up")),
        wrapped(TimeoutExceeded("2 s were up")),
        ExceptionGroup("several", [ValueError(), ExceptionGroup("inner", [StatusError(503)])]),
    ],
    ids=repr,
)
def test_an_overload(error):
    assert is_overload(error)


@pytest.mark.parametrize(
    "error",
    [
        StatusError(500),
        StatusError(404),
        RpcError(grpc.StatusCode.NOT_FOUND),
        aws("NoSuchKey"),
        psycopg.errors.lookup("40001")(),
        ValueError("bad"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        ServiceError("gone", ErrorCode.NOT_FOUND),
        httpx.PoolTimeout("our own pool"),
        sqlalchemy.exc.TimeoutError("our own pool"),
        CircuitOpenError("storage", 1.0),
        BulkheadFullError("storage", "the queue is full", None),
        OverloadedError("storage", "held back", None),
        REFUSED,
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        KeyboardInterrupt(),
        ExceptionGroup("several", [ValueError(), REFUSED]),
    ],
    ids=repr,
)
def test_no_overload(error):
    assert not is_overload(error)
