"""What an exception carries that tells whether the failure may pass: errno, HTTP status, SQLSTATE and others.

Each reader takes an exception and returns a verdict, or None where the exception carries no such sign. The
tables are in `taxonomy`; which reader is for which class is said there too.

Looking never replaces the failure that is looked at: whatever a foreign property raises, or a `__str__`, is
taken as no sign.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from resilience._core import taxonomy
from resilience._core.taxonomy import Failure, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_MESSAGE: Final = 4000
"""How many characters of a message are searched."""

_OBJECT_STORE: Final = re.compile(
    r"status code: (?P<status>[1-5][0-9]{2})\b|httperror {\s+kind: (?P<kind>\w+)"
)


# --- looking -------------------------------------------------------------------------------------


def attribute(thing: object, name: str) -> Any:
    """Return the attribute, or None if there is none or it cannot be had."""
    try:
        return getattr(thing, name, None)
    except Exception:  # noqa: BLE001 - see the module's docstring
        return None


def _arguments(exc: BaseException) -> tuple[Any, ...]:
    """Return what the exception was made of; a class may have given the name `args` to something else."""
    arguments = attribute(exc, "args")
    return arguments if isinstance(arguments, tuple) else ()  # pyright: ignore[reportUnknownVariableType] - of anything


def message(exc: BaseException) -> str:
    """Return the beginning of what the exception says, in lower case."""
    try:
        return str(exc)[:_LONGEST_MESSAGE].lower()
    except Exception:  # noqa: BLE001 - see the module's docstring
        return ""


def header(outcome: object, name: str) -> str | None:
    """Return a header of the response that `outcome` is or carries.

    Args:
        outcome: An exception or a response of any HTTP client.
        name: In lower case; headers are compared without regard to case.
    """
    for headers in (_response_headers(attribute(outcome, "response")), attribute(outcome, "headers")):
        found = None if headers is None else _find(headers, name)
        if found is not None:
            return found
    return None


def _response_headers(response: Any) -> Any:
    if response is None:
        return None
    if isinstance(response, dict):  # botocore
        return _item(response, "ResponseMetadata", "HTTPHeaders")
    return attribute(response, "headers")


def grpc_metadata(outcome: object, name: str) -> str | None:
    """Return an item of the trailing metadata of a gRPC call."""
    metadata = attribute(outcome, "trailing_metadata")
    if metadata is None:
        return None
    try:
        return _find(metadata(), name)
    except Exception:  # noqa: BLE001 - see the module's docstring
        return None


def _find(headers: Any, name: str) -> str | None:
    try:
        for key, value in headers.items() if hasattr(headers, "items") else headers:
            if _text(key).lower() == name:
                return _text(value)
    except Exception:  # noqa: BLE001 - what cannot be read as headers is none
        return None
    return None


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _item(mapping: Any, *keys: str) -> Any:
    try:
        for key in keys:
            mapping = mapping[key]
    except Exception:  # noqa: BLE001 - what is not there, or no mapping at all
        return None
    return mapping


# --- readers -------------------------------------------------------------------------------------


def by_errno(exc: Any) -> Failure | None:
    """Read the `errno` of an `OSError`."""
    code = attribute(exc, "errno")  # of any type: `OSError(x, y)` takes `x` for it
    if not isinstance(code, int):
        return None
    name, may_be_processed = taxonomy.ERRNO.get(code, (None, True))
    return Failure(name is not None, may_be_processed, f"errno {name or code}")


def by_eai(exc: Any) -> Failure:
    """Read the code of a `socket.gaierror`: only "try again" is transient."""
    from socket import EAI_AGAIN  # noqa: PLC0415 - whoever raised a gaierror has loaded it

    code = attribute(exc, "errno")
    if code == EAI_AGAIN:
        return Failure(True, False, "EAI_AGAIN")
    return Failure(False, False, f"EAI code {code}")


def by_status(exc: Any, lowest: int = 100) -> Failure | None:
    """Read the HTTP status, of the exception or of its response."""
    response = attribute(exc, "response")
    for holder in (exc, response):
        for name in ("status_code", "status"):
            status = attribute(holder, name)
            if isinstance(status, int) and lowest <= status <= 599:  # noqa: PLR2004 - the last of the statuses
                return _of_status(exc, status)
    return None


def _of_status(exc: Any, status: int) -> Failure:
    may_be_processed = taxonomy.HTTP_STATUS.get(status)
    transient = may_be_processed is not None
    if status == 413 and header(exc, "retry-after") is None:  # noqa: PLR2004 - content too large
        transient = False
    return Failure(transient, may_be_processed is not False, f"HTTP {int(status)}")


def by_sqlstate(exc: Any) -> Failure | None:
    """Read the SQLSTATE: `sqlstate`, as psycopg and asyncpg name it, or psycopg2's `pgcode`."""
    for name in ("sqlstate", "pgcode"):
        code = attribute(exc, name)
        if isinstance(code, str) and len(code) == 5:  # noqa: PLR2004 - ISO 9075: a class of 2, a subclass of 3
            may_be_processed = taxonomy.SQLSTATE.get(code, taxonomy.SQLSTATE.get(code[:2]))
            transient = may_be_processed is not None and code not in taxonomy.SQLSTATE_NEVER
            return Failure(transient, may_be_processed is not False, f"SQLSTATE {code}")
    return None


def by_libpq(exc: Any) -> Failure:
    """Read the SQLSTATE, or where there is none, as while connecting, libpq's message."""
    failure = by_sqlstate(exc)
    if failure:
        return failure
    text = message(exc)
    for words, may_be_processed in taxonomy.LIBPQ_TRANSIENT.items():
        if words in text:
            connecting = any(phase in text for phase in taxonomy.LIBPQ_CONNECTING)
            return Failure(True, may_be_processed and not connecting, f"libpq: {words}")
    return Failure(False, True, "libpq: no sign of a transient failure")


def by_mysql(exc: Any) -> Failure | None:
    """Read the error number: `errno` in MySQL's own connector, the first argument elsewhere."""
    code = attribute(exc, "errno") or next(iter(_arguments(exc)), None)
    if not isinstance(code, int):
        return None
    may_be_processed = taxonomy.MYSQL.get(code)
    return Failure(may_be_processed is not None, may_be_processed is not False, f"MySQL error {code}")


def by_sqlite(exc: Any) -> Failure:
    """Read the primary result code, the low byte of the extended one."""
    code = attribute(exc, "sqlite_errorcode")
    if isinstance(code, int):
        name = taxonomy.SQLITE.get(code & 0xFF)
        return Failure(name is not None, name is None, name or f"SQLite result {code}")
    locked = message(exc) in taxonomy.SQLITE_MESSAGES
    return Failure(locked, not locked, "SQLite: locked" if locked else "SQLite: not locked")


def by_aws(exc: Any) -> Failure | None:
    """Read the error code of a botocore `ClientError`, then its HTTP status."""
    code = _item(attribute(exc, "response"), "Error", "Code")
    if isinstance(code, str) and code in taxonomy.AWS:
        return Failure(True, taxonomy.AWS[code], f"AWS {code}")
    status = _item(attribute(exc, "response"), "ResponseMetadata", "HTTPStatusCode")
    return _of_status(exc, status) if isinstance(status, int) else None


def by_grpc(exc: Any) -> Failure | None:
    """Read the gRPC status, and the server's pushback (gRPC proposal A6)."""
    try:
        name: str = exc.code().name
    except Exception:  # noqa: BLE001 - an `RpcError` need not be a call
        return None
    pushback = grpc_metadata(exc, "grpc-retry-pushback-ms")
    if pushback is not None and not pushback.isdecimal():
        return Failure(False, True, f"gRPC {name}, and the server asks not to retry")
    may_be_processed = taxonomy.GRPC.get(name)
    transient = may_be_processed is not None and (name != "RESOURCE_EXHAUSTED" or pushback is not None)
    return Failure(transient, may_be_processed is not False, f"gRPC {name}")


def by_object_store(exc: Any) -> Failure:
    """Read the HTTP status, else the kind of failure, from the message of obstore's `GenericError`."""
    text = message(exc)
    told = _OBJECT_STORE.search(text)
    if told is None or any(words in text for words in taxonomy.OBJECT_STORE_REFUSED):
        return Failure(False, True, "object store: no sign of a transient failure")
    if told["status"]:
        return _of_status(exc, int(told["status"]))
    may_be_processed = taxonomy.OBJECT_STORE.get(told["kind"])
    return Failure(
        may_be_processed is not None, may_be_processed is not False, f"object store: {told['kind']}"
    )


def by_close_code(exc: Any) -> Failure:
    """Read the code with which a WebSocket was closed; none came if the connection just broke."""
    code = attribute(attribute(exc, "rcvd"), "code") or 1006
    return Failure(code in taxonomy.WEBSOCKET, True, f"WebSocket close code {code}")


def by_retryable(exc: Any) -> Failure:
    """Read what a `ServiceError` says of itself."""
    may_be_processed = taxonomy.HTTP_STATUS.get(attribute(exc, "status"), True)
    return Failure(bool(attribute(exc, "retryable")), may_be_processed, str(attribute(exc, "code")))


def by_decision(exc: Any) -> Failure:
    """Read a limiter's refusal: without a `retry_after` the call costs more than the quota ever allows."""
    return Failure(attribute(exc, "retry_after") is not None, False, str(attribute(exc, "code")))


def by_attributes(exc: Any) -> Failure | None:
    """Read what exceptions of unknown classes carry under well-known names."""
    return by_sqlstate(exc) or by_status(exc, lowest=400)


def by_message(exc: BaseException) -> Failure | None:
    """Read the message, for want of anything better."""
    text = message(exc)
    for words in taxonomy.MESSAGES:
        if words in text:
            return Failure(True, True, f"message {words!r}")
    return None


# --- what lies below -----------------------------------------------------------------------------


def wrapped(exc: BaseException) -> BaseException | None:
    """Return what a client's exception says it wraps: in an attribute, an argument or as its cause."""
    own: dict[str, Any] = attribute(exc, "__dict__") or {}
    for candidate in (
        own.get("reason"),  # urllib3
        own.get("orig"),  # SQLAlchemy
        _item(own["kwargs"], "error") if "kwargs" in own else None,  # botocore
        *_arguments(exc),  # urllib, requests, aiohttp
        exc.__cause__,  # httpx
    ):
        if isinstance(candidate, BaseException):
            return candidate
    return None


def below(exc: BaseException) -> tuple[BaseException, ...]:
    """Return what the exception consists of: the members of a group, or what it wraps."""
    if isinstance(exc, BaseExceptionGroup):
        return exc.exceptions  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - of any exceptions
    inner = wrapped(exc)
    return () if inner is None else (inner,)


# --- which reader is for which rule --------------------------------------------------------------

READERS: Final[dict[Rule, Callable[[Any], Failure | None]]] = {
    Rule.UNKNOWN: by_attributes,
    Rule.OS_ERROR: by_errno,
    Rule.NAME: by_eai,
    Rule.STATUS: by_status,
    Rule.SQLSTATE: by_sqlstate,
    Rule.LIBPQ: by_libpq,
    Rule.MYSQL: by_mysql,
    Rule.SQLITE: by_sqlite,
    Rule.AWS: by_aws,
    Rule.GRPC: by_grpc,
    Rule.OBJECT_STORE: by_object_store,
    Rule.WEBSOCKET: by_close_code,
    Rule.SERVICE_ERROR: by_retryable,
    Rule.RATE_LIMITED: by_decision,
}
"""The reader of each rule that asks the instance, and nothing but the instance."""
