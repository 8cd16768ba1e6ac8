"""Any exception as the error to answer with."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import httpx
import psycopg
import pydantic
import pytest
import requests
import sqlalchemy as sa
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from resilience._core.quota import Decision, Quota
from resilience.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    ErrorCode,
    RateLimitedError,
    ServiceError,
    not_found_error,
)
from resilience.http.mapping import MOST_FIELDS, ErrorMapper, field_errors, to_service_error
from resilience.stores import StoreUnavailable


def named(package: str, name: str, *bases: type, **attributes) -> Exception:
    """Return an instance of a class as another package would have made it."""
    return type(name, bases or (Exception,), {"__module__": f"{package}.exceptions", **attributes})("secret")


# --- what is its own answer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (not_found_error("User"), 404, None),
        (CircuitOpenError("storage", 4.0), 503, 4.0),
        (DeadlineExceeded("2.0 s were up"), 504, None),
        (StoreUnavailable("no disk", retry_after=2.0), 503, 2.0),
        (
            RateLimitedError(Decision.of(False, Quota(6, per=900.0), "login", remaining=0, retry_after=7.0)),
            429,
            7.0,
        ),
    ],
)
def test_an_error_of_ours_is_its_own_answer(error, status, retry_after):
    assert to_service_error(error) is error
    assert (error.status, error.retry_after) == (status, retry_after)


def test_a_group_of_one_is_that_one():
    error = not_found_error("User")
    assert to_service_error(ExceptionGroup("a", [error])) is error
    assert to_service_error(ExceptionGroup("a", [ExceptionGroup("b", [error])])) is error


def test_a_deeply_nested_group_is_unwrapped():
    error: Exception = not_found_error("User")
    for _ in range(5000):
        error = ExceptionGroup("a", [error])
    assert to_service_error(error).status == 404


def test_a_group_of_several_is_an_internal_error():
    group = ExceptionGroup("a", [not_found_error("User"), ValueError()])
    error = to_service_error(group)
    assert error.code is ErrorCode.INTERNAL_ERROR
    assert error.__cause__ is group


async def test_what_a_task_group_raises_is_unwrapped():
    async def fail():
        raise not_found_error("User")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
    assert to_service_error(caught.value).status == 404


# --- what the application registered -------------------------------------------------------------


class DomainError(Exception):
    pass


class LockedError(DomainError):
    pass


def test_a_code_answers_with_its_title():
    error = ErrorMapper({DomainError: ErrorCode.CONFLICT})(LockedError("row 7"))
    assert (error.code, error.message) == (ErrorCode.CONFLICT, ErrorCode.CONFLICT.title)
    assert isinstance(error.__cause__, LockedError)


def test_a_function_makes_the_error():
    mapper = ErrorMapper().adding(DomainError, lambda error: not_found_error(str(error)))
    assert mapper(DomainError("Invoice")).message == "Invoice not found"


def test_the_nearest_class_wins_whatever_the_order():
    rules = {LockedError: ErrorCode.STATE_CONFLICT, DomainError: ErrorCode.BAD_REQUEST}
    for pairs in (rules.items(), reversed(rules.items())):
        mapper = ErrorMapper(dict(pairs))
        assert mapper(LockedError()).code is ErrorCode.STATE_CONFLICT
        assert mapper(DomainError()).code is ErrorCode.BAD_REQUEST


def test_a_rule_goes_before_what_is_recognised_and_a_later_one_before_an_earlier():
    mapper = to_service_error.adding(TimeoutError, ErrorCode.CONFLICT)
    assert mapper(TimeoutError()).code is ErrorCode.CONFLICT
    assert mapper.adding(TimeoutError, ErrorCode.TIMEOUT)(TimeoutError()).code is ErrorCode.TIMEOUT
    assert to_service_error(TimeoutError()).code is ErrorCode.TIMEOUT


def test_an_error_of_ours_can_be_mapped_too():
    mapper = ErrorMapper({CircuitOpenError: ErrorCode.CONFLICT, Exception: ErrorCode.BAD_REQUEST})
    assert mapper(CircuitOpenError("storage", 1.0)).code is ErrorCode.CONFLICT
    assert mapper(not_found_error()).code is ErrorCode.RESOURCE_NOT_FOUND
    assert mapper(KeyError()).code is ErrorCode.BAD_REQUEST


def test_a_failing_rule_still_gives_an_answer():
    mapper = ErrorMapper({DomainError: lambda error: 1 / 0})
    error = mapper(DomainError("first"))
    assert error.code is ErrorCode.INTERNAL_ERROR
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert isinstance(error.__cause__.__context__, DomainError)


@pytest.mark.parametrize("returned", [None, "oops", ErrorCode.CONFLICT])
def test_a_rule_that_returns_no_error_gives_an_internal_error(returned):
    error = ErrorMapper({DomainError: lambda _: returned})(DomainError("first"))
    assert error.code is ErrorCode.INTERNAL_ERROR
    assert str(error.__cause__).startswith("the rule for DomainError returned")


def test_a_rule_may_return_an_error_with_a_cause_of_its_own():
    def rule(error):
        made = not_found_error("User")
        made.__cause__ = error.args[0]
        return made

    cause = KeyError("x")
    assert ErrorMapper({DomainError: rule})(DomainError(cause)).__cause__ is cause


def test_a_mapper_does_not_see_later_changes_of_its_rules():
    rules = {DomainError: ErrorCode.CONFLICT}
    mapper = ErrorMapper(rules)
    rules.clear()
    assert mapper(DomainError()).code is ErrorCode.CONFLICT


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({KeyboardInterrupt: ErrorCode.CONFLICT}, "class of exceptions"),
        ({int: ErrorCode.CONFLICT}, "class of exceptions"),
        ({DomainError: 404}, "the rule for DomainError is a code or a function, not 404"),
    ],
)
def test_what_is_no_rule_is_refused(rules, message):
    with pytest.raises(TypeError, match=message):
        ErrorMapper(rules)


def test_threads_share_a_mapper():
    mapper = ErrorMapper({DomainError: ErrorCode.CONFLICT})
    codes = []
    threads = [
        threading.Thread(target=lambda: codes.extend(mapper(DomainError()).code for _ in range(100)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [ErrorCode.CONFLICT] * 400


# --- what is recognised --------------------------------------------------------------------------


def test_a_framework_s_http_exception_keeps_its_status_and_text():
    error = to_service_error(HTTPException(405, "No such method"))
    assert (error.status, error.code, error.message) == (405, "METHOD_NOT_ALLOWED", "No such method")
    error = to_service_error(named("werkzeug", "HTTPException", code=413, description="Too big"))
    assert (error.status, error.code, error.message) == (413, "CONTENT_TOO_LARGE", "Too big")


def test_a_detail_that_is_no_text_is_left_out():
    assert to_service_error(HTTPException(404, {"a": 1})).message == ErrorCode.NOT_FOUND.title


@pytest.mark.parametrize("status", [None, 302, "404", True])
def test_an_http_exception_without_an_error_status_is_internal(status):
    assert to_service_error(named("werkzeug", "HTTPException", code=status)).status == 500


class User(pydantic.BaseModel):
    email: str
    age: int


def test_validation_errors_say_what_is_wrong_with_which_field():
    with pytest.raises(pydantic.ValidationError) as caught:
        User.model_validate({"age": "hunter2"})
    error = to_service_error(caught.value)
    assert error.code is ErrorCode.VALIDATION_ERROR
    assert error.fields["email"] == "Field required"
    assert error.fields.keys() == {"email", "age"}
    assert "hunter2" not in str(error.fields)


def test_a_request_s_validation_is_the_client_s_affair_a_response_s_is_ours():
    wrong = [{"loc": ("body", "email"), "msg": "Field required"}]
    assert to_service_error(RequestValidationError(wrong)).fields == {"email": "Field required"}
    assert to_service_error(ResponseValidationError(wrong)).status == 500


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (("body", "user", "email"), "user.email"),
        (("query", "page"), "page"),
        (("items", 0, "price"), "items.0.price"),
        (("body",), "body"),
        ((), "body"),
    ],
)
def test_a_field_is_named_by_its_place(place, name):
    assert field_errors([{"loc": place, "msg": "wrong"}]) == {name: "wrong"}


def test_a_body_that_is_no_json_is_named_as_a_whole():
    malformed = {"type": "json_invalid", "loc": ("body", 15), "msg": "JSON decode error"}
    assert field_errors([malformed]) == {"body": "JSON decode error"}


def test_several_errors_of_a_field_are_joined_and_many_fields_are_cut():
    twice = [{"loc": ("a",), "msg": "short"}, {"loc": ("a",), "msg": "bad"}]
    assert field_errors(twice) == {"a": "short; bad"}
    many = [{"loc": (str(number),), "msg": "bad"} for number in range(1000)]
    assert len(field_errors(many)) == MOST_FIELDS


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (named("jwt", "ExpiredSignatureError", type("InvalidTokenError", (Exception,), {})), "TOKEN_EXPIRED"),
        (named("jwt", "InvalidTokenError"), "INVALID_TOKEN"),
        (named("jwt", "PyJWKClientError"), "INTERNAL_ERROR"),
        (named("joserfc", "ExpiredTokenError"), "TOKEN_EXPIRED"),
        (named("joserfc", "JoseError"), "INVALID_TOKEN"),
        (named("joserfc", "MissingKeyError", type(named("joserfc", "JoseError"))), "INTERNAL_ERROR"),
        (named("joserfc", "BadSignatureError", type(named("joserfc", "JoseError"))), "INVALID_TOKEN"),
        (named("elsewhere", "InvalidTokenError"), "INTERNAL_ERROR"),
    ],
)
def test_token_errors_are_told_apart(exception, code):
    assert to_service_error(exception).code == code


@pytest.mark.parametrize(
    ("sqlstate", "code"),
    [
        ("23505", "DUPLICATE_ENTRY"),
        ("23503", "CONFLICT"),
        ("23502", "MISSING_REQUIRED_FIELD"),
        ("23514", "INVALID_INPUT"),
        ("22001", "INVALID_INPUT"),
        ("40001", "SERVICE_UNAVAILABLE"),
        ("40P01", "SERVICE_UNAVAILABLE"),
        ("53100", "SERVICE_UNAVAILABLE"),
        ("25006", "SERVICE_UNAVAILABLE"),
        ("57014", "TIMEOUT"),
        ("57P01", "SERVICE_UNAVAILABLE"),
        ("08006", "SERVICE_UNAVAILABLE"),
        ("42501", "DATABASE_ERROR"),
        ("42P01", "DATABASE_ERROR"),
    ],
)
def test_a_database_s_error_is_told_by_its_sqlstate(sqlstate, code):
    driver = psycopg.errors.lookup(sqlstate)("relation secret")
    assert to_service_error(driver).code == code
    assert to_service_error(sa.exc.DBAPIError("SELECT 1", {}, driver)).code == code
    assert to_service_error(named("psycopg2", "Error", pgcode=sqlstate)).code == code


def test_sqlite_is_told_by_its_result_code():
    database = sqlite3.connect(":memory:")
    database.executescript(
        "PRAGMA foreign_keys = ON;"
        "CREATE TABLE owner (id INTEGER PRIMARY KEY);"
        "CREATE TABLE thing (name TEXT UNIQUE NOT NULL CHECK (name <> ''), owner REFERENCES owner);"
        "INSERT INTO thing VALUES ('a', NULL)"
    )
    codes = []
    for values in ("('a', NULL)", "(NULL, NULL)", "('', NULL)", "('b', 7)", "('c')"):
        with pytest.raises(sqlite3.Error) as caught:
            database.execute(f"INSERT INTO thing VALUES {values}")
        codes.append(to_service_error(caught.value).code)
    database.close()
    assert codes == [
        ErrorCode.DUPLICATE_ENTRY,
        ErrorCode.MISSING_REQUIRED_FIELD,
        ErrorCode.INVALID_INPUT,
        ErrorCode.CONFLICT,
        ErrorCode.DATABASE_ERROR,
    ]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SQLITE_FULL", "SERVICE_UNAVAILABLE"),
        ("SQLITE_IOERR_WRITE", "SERVICE_UNAVAILABLE"),
        ("SQLITE_READONLY_DBMOVED", "SERVICE_UNAVAILABLE"),
        ("SQLITE_CANTOPEN", "SERVICE_UNAVAILABLE"),
        ("SQLITE_CORRUPT_INDEX", "DATABASE_ERROR"),
    ],
)
def test_a_disk_that_is_full_or_gone_is_no_mistake_of_ours(name, code):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    assert to_service_error(error).code == code


LOST = psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")


@pytest.mark.parametrize(
    ("exception", "code"),
    [
        (psycopg.OperationalError("no password"), "DATABASE_ERROR"),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), "SERVICE_UNAVAILABLE"),
        (LOST, "SERVICE_UNAVAILABLE"),
        (sa.exc.OperationalError("SELECT 1", {}, LOST), "SERVICE_UNAVAILABLE"),
        (sqlite3.ProgrammingError("closed"), "DATABASE_ERROR"),
        (sa.exc.InvalidRequestError("x"), "DATABASE_ERROR"),
        (sa.exc.NoResultFound("x"), "RESOURCE_NOT_FOUND"),
        (sa.exc.TimeoutError("pool"), "SERVICE_UNAVAILABLE"),
        (ClientDisconnect(), "BAD_REQUEST"),
        (WebSocketDisconnect(), "BAD_REQUEST"),
        (named("psycopg_pool", "PoolTimeout"), "SERVICE_UNAVAILABLE"),
        (named("asyncpg", "PostgresError"), "DATABASE_ERROR"),
        (TimeoutError(), "TIMEOUT"),
        (ConnectionResetError(), "EXTERNAL_SERVICE_ERROR"),
        (httpx.ReadTimeout("slow"), "EXTERNAL_SERVICE_ERROR"),
        (requests.ConnectionError("gone"), "EXTERNAL_SERVICE_ERROR"),
        (
            ExceptionGroup("a", [ConnectionResetError(), httpx.ConnectError("x")]),
            "EXTERNAL_SERVICE_ERROR",
        ),
        (httpx.InvalidURL("secret"), "INTERNAL_ERROR"),
        (FileNotFoundError("/etc/secret"), "INTERNAL_ERROR"),
        (PermissionError("/etc/secret"), "INTERNAL_ERROR"),
        (KeyError("x"), "INTERNAL_ERROR"),
    ],
)
def test_everything_else_is_told_by_its_class(exception, code):
    error = to_service_error(exception)
    assert error.code == code
    assert error.__cause__ is exception
    assert error.message == error.code.title


def test_an_exception_whose_attributes_fail_is_an_internal_error():
    class HostileError(Exception):
        @property
        def orig(self):
            raise RuntimeError("no")

    assert to_service_error(HostileError()).code is ErrorCode.INTERNAL_ERROR


def test_the_mapper_returns_errors_of_ours():
    assert isinstance(to_service_error(ValueError()), ServiceError)
