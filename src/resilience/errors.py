"""The errors of a service, and what the policies raise.

One vocabulary on both ends of a call: the server raises these, `resilience.http` turns them into
responses, and `resilience.http.parse_error` turns such a response back into them.

    ServiceError (Exception)
    ├── CircuitOpenError      the breaker rejected the call              503
    ├── RateLimitedError      the limiter refused the call               429
    └── DeadlineExceeded      the call's time was up (TimeoutError too)  504

Only the deadline is a builtin error as well: whoever waits for a `TimeoutError` means just that. A
rejection that were a `ConnectionError` would be retried by everybody who retries those.

All of them can be copied and pickled; notes come along, causes and tracebacks do not, as with any
exception.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Self

if TYPE_CHECKING:
    from resilience._core.quota import Decision

_CODE_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


class ErrorCode(str):  # noqa: SLOT000 - two dozen objects a process
    """A name that programs may rely on, with what every answer carrying it has in common.

    A code is a string, so it compares, hashes and serialises as its name. Applications add their own by
    making one, once, as a constant.

    Args:
        name: Up to 64 capitals, digits and underscores, such as `"INVOICE_LOCKED"`.
        status: The HTTP status, 400 to 599.
        title: A few words for people; the message where none is given, or none may be shown.
        retryable: Whether the same request may well succeed a little later.
        public: Whether messages may be shown outside development.

    Raises:
        TypeError: The name is no string, or the status no whole number.
        ValueError: The name or the status is not of that form.

    Example:
        >>> ErrorCode.RATE_LIMIT_EXCEEDED.status
        429
        >>> ErrorCode("INVOICE_LOCKED", status=409, title="Invoice locked") == "INVOICE_LOCKED"
        True
    """

    status: int
    title: str  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride] - not str.title
    retryable: bool
    public: bool

    def __new__(
        cls, name: str, status: int, title: str, *, retryable: bool = False, public: bool = True
    ) -> Self:
        """Make a code; the class says what the arguments mean."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"an error code's name is a string, not {name!r}")
        if not is_error_code(name):
            raise ValueError(f"an error code is named in capitals and underscores, not {name!r}")
        code = super().__new__(cls, name)
        code.status = _error_status(status)
        code.title = title
        code.retryable = retryable
        code.public = public
        return code

    def __repr__(self) -> str:
        """Show the name and the status."""
        return f"<ErrorCode {self} {self.status}>"

    def __reduce__(self) -> Any:
        """Pickle the code with all that belongs to it."""
        return _code, (type(self), str(self), self.status, self.title, self.retryable, self.public)

    UNAUTHORIZED: ClassVar[ErrorCode]
    INVALID_TOKEN: ClassVar[ErrorCode]
    TOKEN_EXPIRED: ClassVar[ErrorCode]
    MISSING_CREDENTIALS: ClassVar[ErrorCode]
    FORBIDDEN: ClassVar[ErrorCode]
    INSUFFICIENT_PERMISSIONS: ClassVar[ErrorCode]
    MULTI_TENANCY_VIOLATION: ClassVar[ErrorCode]
    BAD_REQUEST: ClassVar[ErrorCode]
    INVALID_INPUT: ClassVar[ErrorCode]
    VALIDATION_ERROR: ClassVar[ErrorCode]
    MISSING_REQUIRED_FIELD: ClassVar[ErrorCode]
    NOT_FOUND: ClassVar[ErrorCode]
    RESOURCE_NOT_FOUND: ClassVar[ErrorCode]
    CONFLICT: ClassVar[ErrorCode]
    DUPLICATE_ENTRY: ClassVar[ErrorCode]
    STATE_CONFLICT: ClassVar[ErrorCode]
    RATE_LIMIT_EXCEEDED: ClassVar[ErrorCode]
    TOO_MANY_REQUESTS: ClassVar[ErrorCode]
    INTERNAL_ERROR: ClassVar[ErrorCode]
    DATABASE_ERROR: ClassVar[ErrorCode]
    SERVICE_UNAVAILABLE: ClassVar[ErrorCode]
    TIMEOUT: ClassVar[ErrorCode]
    EXTERNAL_SERVICE_ERROR: ClassVar[ErrorCode]


def is_error_code(name: str) -> bool:
    """Return whether an error code may be called `name`."""
    return _CODE_NAME.fullmatch(name) is not None


def _error_status(status: int) -> int:
    if not isinstance(status, int):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
        raise TypeError(f"an error's HTTP status is a whole number, not {status!r}")
    if not 400 <= status <= 599:  # noqa: PLR2004 - the HTTP error statuses
        raise ValueError(f"an error's HTTP status is 400 to 599, not {status!r}")
    return status


def _code(
    cls: type[ErrorCode], name: str, status: int, title: str, retryable: bool, public: bool
) -> ErrorCode:
    return cls(name, status, title, retryable=retryable, public=public)


for _name, _status, _title, _retryable, _public in (
    ("UNAUTHORIZED", 401, "Please log in first", False, True),
    ("INVALID_TOKEN", 401, "The token is invalid", False, True),
    ("TOKEN_EXPIRED", 401, "The token has expired", False, True),
    ("MISSING_CREDENTIALS", 401, "Credentials are missing", False, True),
    ("FORBIDDEN", 403, "This is not allowed", False, True),
    ("INSUFFICIENT_PERMISSIONS", 403, "Your permissions do not suffice", False, True),
    ("MULTI_TENANCY_VIOLATION", 403, "This is not allowed", False, False),
    ("BAD_REQUEST", 400, "The request could not be understood", False, True),
    ("INVALID_INPUT", 400, "The input is invalid", False, True),
    ("VALIDATION_ERROR", 400, "The input is invalid", False, True),
    ("MISSING_REQUIRED_FIELD", 400, "A required field is missing", False, True),
    ("NOT_FOUND", 404, "Not found", False, True),
    ("RESOURCE_NOT_FOUND", 404, "Not found", False, True),
    ("CONFLICT", 409, "This conflicts with the present state", False, True),
    ("DUPLICATE_ENTRY", 409, "This exists already", False, True),
    ("STATE_CONFLICT", 409, "This conflicts with the present state", False, True),
    ("RATE_LIMIT_EXCEEDED", 429, "Too many requests, please try again later", True, True),
    ("TOO_MANY_REQUESTS", 429, "Too many requests, please try again later", True, True),
    ("INTERNAL_ERROR", 500, "Something went wrong on our side", False, False),
    ("DATABASE_ERROR", 500, "Something went wrong on our side", False, False),
    ("SERVICE_UNAVAILABLE", 503, "The service is unavailable, please try again later", True, True),
    ("TIMEOUT", 504, "The request took too long", True, True),
    ("EXTERNAL_SERVICE_ERROR", 502, "A service we depend on failed", True, False),
):
    setattr(ErrorCode, _name, ErrorCode(_name, _status, _title, retryable=_retryable, public=_public))


class ServiceError(Exception):
    """An error that a service answers with; the root of all errors here.

    A subclass for one kind of error sets `code` as a class attribute; and `internal`, if its messages are
    for developers whatever the code says.

    Args:
        message: What went wrong, for the person who asked; the code's title where left out.
        code: What went wrong, for programs; the class's own where left out.
        status: The HTTP status, 400 to 599, where it differs from the code's.
        fields: What is wrong with each input field. Always shown: people need it to mend the form.
        details: What helps developers. Shown in development only.
        retry_after: Seconds until another try is worth it.
        request_id: The id of the request that failed.

    Raises:
        TypeError: `code` is not an `ErrorCode`, `fields` or `details` is no mapping, or the status no whole
            number: said here, since where the error is answered it would hide what had happened.
        ValueError: The status is no error's, or `retry_after` is negative or not finite.

    Example:
        >>> error = ServiceError("No such call", ErrorCode.NOT_FOUND)
        >>> error.status, str(error), error.retryable
        (404, 'No such call', False)
    """

    internal: ClassVar[bool] = False
    code: ErrorCode = ErrorCode.INTERNAL_ERROR
    fields: Mapping[str, str] | None = None
    details: Mapping[str, Any] | None = None
    request_id: str | None = None
    _status: int | None = None
    _retry_after: float | None = None

    def __init__(
        self,
        message: str | None = None,
        code: ErrorCode | None = None,
        *,
        status: int | None = None,
        fields: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        if code is not None:
            if not isinstance(code, ErrorCode):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
                raise TypeError(
                    f"code is an ErrorCode, not {code!r}: take ErrorCode.NOT_FOUND, say, or your own"
                )
            self.code = code
        super().__init__(self.code.title if message is None else message)
        if status is not None:
            self._status = _error_status(status)
        if retry_after is not None and not 0.0 <= retry_after < math.inf:
            raise ValueError(f"retry_after is seconds from now, 0 or more and finite, not {retry_after!r}")
        self._retry_after = retry_after
        self.fields = _mapping("fields", fields)
        self.details = _mapping("details", details)
        self.request_id = request_id

    @property
    def message(self) -> str:
        """What went wrong, for the person who asked."""
        return str(self.args[0]) if self.args else self.code.title

    @property
    def public_message(self) -> str:
        """What may be shown to anybody: the message, or the code's title where the message is internal."""
        shown = self.code.public and not self.internal and self.status != 500  # noqa: PLR2004 - Internal Server Error
        return self.message if shown else self.code.title

    @property
    def status(self) -> int:
        """The HTTP status, 400 to 599."""
        return self.code.status if self._status is None else self._status

    @property
    def retry_after(self) -> float | None:
        """Seconds until another try is worth it."""
        return self._retry_after

    @property
    def retryable(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self.code.retryable

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    def __reduce__(self) -> Any:
        """Pickle the error with its attributes and notes, whatever the `__init__` of a subclass takes."""
        return _remake, (type(self), self.args), self.__dict__ or None


def _mapping(what: str, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
        raise TypeError(f"{what} are a mapping of names, not {value!r}")
    return value


def _remake(cls: type[ServiceError], args: tuple[Any, ...]) -> ServiceError:
    error = cls.__new__(cls, *args)
    error.args = args
    return error


class _PolicyError(ServiceError):
    """What a policy raises.

    Rejections are the hot path of an outage, so these have no Python `__init__`: their fields are
    properties over `args`, and the message is formatted only when someone reads it. Messages name breakers
    and limiters, which are nobody else's business.
    """

    internal = True

    if TYPE_CHECKING:  # each has its own signature for checkers, and the builtin's code

        def __init__(self, *args: object) -> None: ...

    else:
        __init__ = Exception.__init__


class CircuitOpenError(_PolicyError):
    """The circuit breaker rejected the call, which was not begun.

    Args:
        name: The breaker's name.
        retry_after: Seconds until a probe is let in; None where it is held open by hand.

    Example:
        >>> error = CircuitOpenError("storage", 4.2)
        >>> str(error), error.status
        ("circuit breaker 'storage' is open: try again in 4.2 s", 503)
    """

    code = ErrorCode.SERVICE_UNAVAILABLE

    if TYPE_CHECKING:

        def __init__(self, name: str, retry_after: float | None) -> None: ...

    @property
    def name(self) -> str:
        """The breaker's name."""
        name: str = self.args[0]
        return name

    @property
    def retry_after(self) -> float | None:
        """Seconds until the breaker will let a probe in; None where it is held open by hand."""
        retry_after: float | None = self.args[1]
        return retry_after

    @property
    def message(self) -> str:
        """What happened, and when to try again."""
        if self.retry_after is None:
            return f"circuit breaker {self.name!r} is held open: try again once it has been released"
        return f"circuit breaker {self.name!r} is open: try again in {self.retry_after:.1f} s"


class RateLimitedError(_PolicyError):
    """The limiter refused the call, which was not begun.

    Args:
        decision: What the limiter decided, with all its figures.
    """

    code = ErrorCode.RATE_LIMIT_EXCEEDED

    if TYPE_CHECKING:

        def __init__(self, decision: Decision) -> None: ...

    @property
    def decision(self) -> Decision:
        """What the limiter decided, with all its figures."""
        decision: Decision = self.args[0]
        return decision

    @property
    def retry_after(self) -> float | None:
        """Seconds until the call would be let through; None where it costs more than the quota holds."""
        return self.decision.retry_after

    @property
    def retryable(self) -> bool:
        """Whether the call will be let through later: not if it costs more than the quota ever allows."""
        return self.retry_after is not None

    @property
    def message(self) -> str:
        """Which limit was reached, and when to try again."""
        decision = self.decision
        if decision.retry_after is None:
            return f"rate limiter {decision.limiter!r}: the call costs more than {decision.quota} ever allows"
        return (
            f"rate limiter {decision.limiter!r}: {decision.quota} reached; "
            f"try again in {decision.retry_after:.1f} s"
        )


class DeadlineExceeded(_PolicyError, TimeoutError):  # noqa: N818 - the name is public and fixed
    """The time for the whole call was up before it had an answer.

    Args:
        message: Which time, and what was being done.

    Example:
        >>> try:
        ...     raise DeadlineExceeded("2.0 s were up after 3 attempts")
        ... except TimeoutError as error:
        ...     print(error)
        2.0 s were up after 3 attempts
    """

    code = ErrorCode.TIMEOUT

    if TYPE_CHECKING:

        def __init__(self, message: str) -> None: ...


# --- helpers -------------------------------------------------------------------------------------


def throw_error(
    message: str, code: ErrorCode = ErrorCode.INTERNAL_ERROR, status: int | None = None
) -> NoReturn:
    """Raise a `ServiceError`.

    Args:
        message: What went wrong, for the person who asked.
        code: What went wrong, for programs.
        status: The HTTP status, 400 to 599, where it differs from the code's.
    """
    raise ServiceError(message, code, status=status)


def validation_error(
    message: str = ErrorCode.VALIDATION_ERROR.title, fields: Mapping[str, str] | None = None
) -> ServiceError:
    """Return the error for input that cannot be accepted: 400.

    Args:
        message: What is wrong with the whole.
        fields: What is wrong with each field; always shown.

    Example:
        >>> validation_error("Email is invalid", {"email": "invalid format"}).fields
        {'email': 'invalid format'}
    """
    return ServiceError(message, ErrorCode.VALIDATION_ERROR, fields=fields)


def authentication_error(message: str = ErrorCode.UNAUTHORIZED.title) -> ServiceError:
    """Return the error for somebody who has not said who they are: 401."""
    return ServiceError(message, ErrorCode.UNAUTHORIZED)


def authorization_error(message: str = ErrorCode.FORBIDDEN.title) -> ServiceError:
    """Return the error for somebody who may not do this: 403."""
    return ServiceError(message, ErrorCode.FORBIDDEN)


def not_found_error(resource: str = "Resource") -> ServiceError:
    """Return the error for something that is not there: 404.

    Example:
        >>> not_found_error("User").message
        'User not found'
    """
    return ServiceError(f"{resource} not found", ErrorCode.RESOURCE_NOT_FOUND)


def conflict_error(message: str = ErrorCode.CONFLICT.title) -> ServiceError:
    """Return the error for a request that contradicts the present state: 409."""
    return ServiceError(message, ErrorCode.CONFLICT)


def rate_limit_error(retry_after: float | None = None) -> ServiceError:
    """Return the error for somebody who asks too often: 429.

    Args:
        retry_after: Seconds until another try is worth it.

    Example:
        >>> rate_limit_error(60).retry_after
        60
    """
    return ServiceError(code=ErrorCode.RATE_LIMIT_EXCEEDED, retry_after=retry_after)


def service_unavailable_error(service: str = "The service", retry_after: float | None = None) -> ServiceError:
    """Return the error for a dependency that is down: 503.

    Args:
        service: What is down, in words that users may read.
        retry_after: Seconds until another try is worth it.

    Example:
        >>> service_unavailable_error("Wasabi storage").message
        'Wasabi storage is unavailable, please try again later'
    """
    return ServiceError(
        f"{service} is unavailable, please try again later",
        ErrorCode.SERVICE_UNAVAILABLE,
        retry_after=retry_after,
    )
