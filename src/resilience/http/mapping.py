"""Any exception as the `ServiceError` that a client is answered with.

Rules, the first that knows the exception decides:
    1. A group of one is that one: a `TaskGroup` wraps even the error that a handler meant to answer with.
    2. What the application registered, by the nearest class along the method resolution order; a
       `ServiceError`, those of the policies included, is its own answer unless a nearer class is registered.
    3. What frameworks, token and validation libraries raise, known as `package.ClassName`, so that none of
       them is imported.
    4. What databases say: SQLSTATE, or SQLite's result code.
    5. `TimeoutError`; and what is transient is a dependency's failure.
    6. Everything else is an internal error.

The exception becomes the answer's `__cause__`: for the log, and for the details in development.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from resilience.errors import ErrorCode, ServiceError
from resilience.http.status import code_for_status
from resilience.transient import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Rule = ErrorCode | Callable[[Any], ServiceError]

MOST_FIELDS: Final = 100


class ErrorMapper:
    """Turns any exception into the `ServiceError` to answer with.

    It is immutable, so that threads and event loops may share it; `adding` gives a new one.

    Args:
        rules: For classes of the application: a code, which answers with its title, or a function of the
            exception that returns the error. A rule counts for subclasses too; the nearest class wins.

    Example:
        >>> class InvoiceLocked(Exception): ...
        >>> mapper = ErrorMapper().adding(InvoiceLocked, ErrorCode.STATE_CONFLICT)
        >>> mapper(InvoiceLocked("row 7 is held by worker-3")).message
        'This conflicts with the present state'
    """

    __slots__ = ("_rules",)

    def __init__(self, rules: Mapping[type[Exception], Rule] | None = None) -> None:
        rules = dict(rules or {})
        for cls, rule in rules.items():
            if not issubclass(cls, Exception):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
                raise TypeError(f"a rule is for a class of exceptions, not for {cls!r}")
            if not isinstance(rule, ErrorCode) and not callable(rule):
                raise TypeError(f"the rule for {cls.__name__} is a code or a function, not {rule!r}")
        self._rules: Mapping[type, Rule] = MappingProxyType(rules)

    def adding(self, cls: type[Exception], rule: Rule) -> ErrorMapper:
        """Return a mapper that knows one more class, or knows it otherwise."""
        return ErrorMapper({**self._rules, cls: rule})

    def __call__(self, exception: Exception) -> ServiceError:
        """Return the error to answer with; its `__cause__` is what it was made from.

        A function among the rules that itself fails, or returns no `ServiceError`, gives an internal error,
        whose cause is that failure.
        """
        exception = _only_member(exception)
        try:
            error = self._registered(exception) or _recognised(exception)
        except Exception as failure:  # noqa: BLE001 - an error without an answer is worse than a vague answer
            failure.__context__ = exception
            error, exception = ServiceError(), failure
        if error is not exception and error.__cause__ is None:
            error.__cause__ = exception
        return error

    def _registered(self, exception: Exception) -> ServiceError | None:
        for cls in type(exception).__mro__:
            rule = self._rules.get(cls)
            if rule is not None:
                return _by_rule(rule, cls, exception)
            if cls is ServiceError:
                return cast("ServiceError", exception)
        return None


def _by_rule(rule: Rule, cls: type, exception: Exception) -> ServiceError:
    error = ServiceError(code=rule) if isinstance(rule, ErrorCode) else rule(exception)
    if not isinstance(error, ServiceError):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
        raise TypeError(f"the rule for {cls.__name__} returned {error!r}: it is to return a ServiceError")
    return error


to_service_error: Final = ErrorMapper()
"""The mapper that knows only what the library knows."""


def _only_member(exception: Exception) -> Exception:
    """Return what is inside groups of one, or the exception itself."""
    while isinstance(exception, ExceptionGroup):
        members = cast("tuple[Exception, ...]", exception.exceptions)  # pyright: ignore[reportUnknownMemberType] - of anything
        if len(members) != 1:
            break
        exception = members[0]
    return exception  # pyright: ignore[reportUnknownVariableType] - an Exception still


# --- what is recognised --------------------------------------------------------------------------


def _recognised(exception: Exception) -> ServiceError:
    for cls in type(exception).__mro__:
        known = _NAMED.get((cls.__module__.partition(".")[0], cls.__name__))
        if known is not None:
            return ServiceError(code=known) if isinstance(known, ErrorCode) else known(exception)
    return ServiceError(code=_database_code(exception) or _code_by_nature(exception))


def _code_by_nature(exception: Exception) -> ErrorCode:
    if isinstance(exception, TimeoutError):
        return ErrorCode.TIMEOUT
    return ErrorCode.EXTERNAL_SERVICE_ERROR if is_transient(exception) else ErrorCode.INTERNAL_ERROR


def _from_http_exception(exception: Any) -> ServiceError:
    """Answer as a framework's own HTTP exception would, with its message where that is a text."""
    status = getattr(exception, "status_code", None) or getattr(exception, "code", None)
    text = getattr(exception, "detail", None) or getattr(exception, "description", None)
    if type(status) is not int or not 400 <= status <= 599:  # noqa: PLR2004 - the HTTP error statuses
        return ServiceError()
    return ServiceError(text if isinstance(text, str) else None, code_for_status(status), status=status)


def _from_validation(exception: Any) -> ServiceError:
    return ServiceError(code=ErrorCode.VALIDATION_ERROR, fields=field_errors(exception.errors()))


def field_errors(errors: Iterable[Any]) -> dict[str, str]:
    """Return what is wrong with each field, from the list that pydantic and FastAPI give.

    The value that was sent is left out: it may be a password.

    Example:
        >>> field_errors([{"loc": ("body", "user", "email"), "msg": "not an address", "input": "x"}])
        {'user.email': 'not an address'}
    """
    fields: dict[str, str] = {}
    for error in errors:
        place = [str(part) for part in error["loc"]]
        if error.get("type") == "json_invalid":
            place = ["body"]  # FastAPI names the byte where the JSON ends, which is no field
        if len(place) > 1 and place[0] in _PARTS_OF_A_REQUEST:
            del place[0]
        name = ".".join(place) or "body"
        fields[name] = f"{fields[name]}; {error['msg']}" if name in fields else str(error["msg"])
        if len(fields) == MOST_FIELDS:
            break
    return fields


_PARTS_OF_A_REQUEST: Final = frozenset({"body", "query", "path", "header", "cookie"})

_NAMED: Final[dict[tuple[str, str], Rule]] = {
    ("starlette", "HTTPException"): _from_http_exception,
    # It left in the middle of its request, so nobody reads this answer.
    ("starlette", "ClientDisconnect"): ErrorCode.BAD_REQUEST,
    ("starlette", "WebSocketDisconnect"): ErrorCode.BAD_REQUEST,
    ("werkzeug", "HTTPException"): _from_http_exception,
    ("fastapi", "RequestValidationError"): _from_validation,
    ("pydantic_core", "ValidationError"): _from_validation,
    ("joserfc", "JoseError"): ErrorCode.INVALID_TOKEN,
    ("joserfc", "ExpiredTokenError"): ErrorCode.TOKEN_EXPIRED,
    ("joserfc", "KeyParameterError"): ErrorCode.INTERNAL_ERROR,  # our key, not their token
    ("joserfc", "InvalidKeyCurveError"): ErrorCode.INTERNAL_ERROR,
    ("joserfc", "InvalidKeyLengthError"): ErrorCode.INTERNAL_ERROR,
    ("joserfc", "MissingKeyError"): ErrorCode.INTERNAL_ERROR,
    ("jwt", "ExpiredSignatureError"): ErrorCode.TOKEN_EXPIRED,
    ("jwt", "InvalidTokenError"): ErrorCode.INVALID_TOKEN,
    ("sqlalchemy", "NoResultFound"): ErrorCode.RESOURCE_NOT_FOUND,
    ("sqlalchemy", "TimeoutError"): ErrorCode.SERVICE_UNAVAILABLE,
    ("psycopg_pool", "PoolTimeout"): ErrorCode.SERVICE_UNAVAILABLE,
    ("psycopg_pool", "TooManyRequests"): ErrorCode.SERVICE_UNAVAILABLE,
}

_SQLSTATE: Final = {
    # A code of two characters stands for its class.
    "22": ErrorCode.INVALID_INPUT,  # data_exception: too long, out of range, not a date
    "23502": ErrorCode.MISSING_REQUIRED_FIELD,  # not_null_violation
    "23503": ErrorCode.CONFLICT,  # foreign_key_violation
    "23505": ErrorCode.DUPLICATE_ENTRY,  # unique_violation
    "23514": ErrorCode.INVALID_INPUT,  # check_violation
    "23P01": ErrorCode.CONFLICT,  # exclusion_violation
    "40001": ErrorCode.SERVICE_UNAVAILABLE,  # serialization_failure, after the retries
    "40P01": ErrorCode.SERVICE_UNAVAILABLE,  # deadlock_detected, likewise
    "55P03": ErrorCode.SERVICE_UNAVAILABLE,  # lock_not_available
    "57014": ErrorCode.TIMEOUT,  # query_canceled, by statement_timeout
    "25006": ErrorCode.SERVICE_UNAVAILABLE,  # read_only_sql_transaction: a failover
    "08": ErrorCode.SERVICE_UNAVAILABLE,  # connection_exception
    "53": ErrorCode.SERVICE_UNAVAILABLE,  # insufficient_resources: disk full, too many connections
    "57": ErrorCode.SERVICE_UNAVAILABLE,  # operator_intervention: shutting down, starting up
}

_SQLITE: Final = {
    "SQLITE_BUSY": ErrorCode.SERVICE_UNAVAILABLE,
    "SQLITE_LOCKED": ErrorCode.SERVICE_UNAVAILABLE,
    # Of these, a name that goes on is the same in detail: SQLITE_IOERR_WRITE.
    "SQLITE_FULL": ErrorCode.SERVICE_UNAVAILABLE,
    "SQLITE_IOERR": ErrorCode.SERVICE_UNAVAILABLE,  # a full disk too, for the file beside the database
    "SQLITE_READONLY": ErrorCode.SERVICE_UNAVAILABLE,
    "SQLITE_CANTOPEN": ErrorCode.SERVICE_UNAVAILABLE,
    "SQLITE_CONSTRAINT_UNIQUE": ErrorCode.DUPLICATE_ENTRY,
    "SQLITE_CONSTRAINT_PRIMARYKEY": ErrorCode.DUPLICATE_ENTRY,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ErrorCode.CONFLICT,
    "SQLITE_CONSTRAINT_NOTNULL": ErrorCode.MISSING_REQUIRED_FIELD,
    "SQLITE_CONSTRAINT_CHECK": ErrorCode.INVALID_INPUT,
}

_DATABASE_ERRORS: Final = frozenset({"DatabaseError", "InterfaceError", "SQLAlchemyError", "PostgresError"})
"""The names that DB-API 2.0 (PEP 249) and its heirs give their errors."""


def _database_code(exception: Exception) -> ErrorCode | None:
    """Return the code for a database's error, or None if it is no such error."""
    driver = getattr(exception, "orig", None) or exception  # SQLAlchemy wraps the driver's
    state = getattr(driver, "sqlstate", None) or getattr(driver, "pgcode", None)
    if isinstance(state, str):
        return _SQLSTATE.get(state) or _SQLSTATE.get(state[:2]) or ErrorCode.DATABASE_ERROR
    name = getattr(driver, "sqlite_errorname", None)
    if isinstance(name, str):
        primary = "_".join(name.split("_", 2)[:2])
        return _SQLITE.get(name) or _SQLITE.get(primary, ErrorCode.DATABASE_ERROR)
    if not _DATABASE_ERRORS.isdisjoint(cls.__name__ for cls in type(exception).__mro__):
        # The server itself said nothing: it is out of reach, or the connection was lost.
        return ErrorCode.SERVICE_UNAVAILABLE if is_transient(exception) else ErrorCode.DATABASE_ERROR
    return None
