"""The errors of a service, and what the policies raise.

One vocabulary on both ends of a call: the server raises these, `resilience.http` turns them into
responses, and `resilience.http.parse_error` turns such a response back into them.

    ServiceError (Exception)
    ├── CircuitOpenError      the breaker rejected the call              503
    ├── RateLimitedError      the limiter refused the call               429
    └── DeadlineExceeded      the call's time was up (TimeoutError too)  504
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience._core.quota import Decision


class ErrorCode(str):  # noqa: SLOT000 - two dozen objects a process
    """A name that programs may rely on, with what every answer carrying it has in common.

    A code is a string, so it compares, hashes and serialises as its name. Applications add their own by
    making one.

    Args:
        name: In capitals with underscores, such as `"INVOICE_LOCKED"`.
        status: The HTTP status, 400 to 599.
        title: A few words for people; the message where none is given.
        retryable: Whether the same request may well succeed a little later.
        public: Whether the message may be shown outside development.

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
        if not 400 <= status <= 599:  # noqa: PLR2004 - the HTTP error statuses
            raise ValueError(
                f"an error code needs an HTTP status of 400 to 599, not {status!r}: see {name!r}"
            )
        code = super().__new__(cls, name)
        code.status = status
        code.title = title
        code.retryable = retryable
        code.public = public
        return code

    def __repr__(self) -> str:
        """Show the code as one writes it."""
        return f"ErrorCode.{self}"

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

    Args:
        message: What went wrong, for the person who asked; the code's title where left out.
        code: What went wrong, for programs.
        status: The HTTP status, where it differs from the code's.
        fields: What is wrong with each input field. Always shown: people need it to mend the form.
        details: What helps developers. Shown in development only.
        retry_after: Seconds until another try is worth it.
        request_id: The id of the request that failed.

    Example:
        >>> error = ServiceError("No such call", ErrorCode.NOT_FOUND)
        >>> error.status, str(error), error.retryable
        (404, 'No such call', False)
    """

    request_id: str | None = None

    def __init__(
        self,
        message: str | None = None,
        code: ErrorCode = ErrorCode.INTERNAL_ERROR,
        *,
        status: int | None = None,
        fields: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(code.title if message is None else message)
        self._code = code
        self._status = code.status if status is None else status
        self._fields = fields
        self._details = details
        self._retry_after = retry_after
        if request_id is not None:
            self.request_id = request_id

    @property
    def message(self) -> str:
        """What went wrong, for the person who asked."""
        return str(self.args[0])

    @property
    def code(self) -> ErrorCode:
        """What went wrong, for programs."""
        return self._code

    @property
    def status(self) -> int:
        """The HTTP status, 400 to 599."""
        return self._status

    @property
    def fields(self) -> Mapping[str, str] | None:
        """What is wrong with each input field."""
        return self._fields

    @property
    def details(self) -> Mapping[str, Any] | None:
        """What helps developers."""
        return self._details

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
        """Pickle the error with all its fields and notes."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[ServiceError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ServiceError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class _PolicyError(ServiceError):
    """What a policy raises.

    Rejections are the hot path of an outage, so these have no Python `__init__`: their fields are
    properties over `args`, and the message is formatted only when someone reads it.
    """

    __init__ = Exception.__init__  # on purpose: see the docstring

    fields = None  # a constant in place of the property
    details = None  # a constant in place of the property


class CircuitOpenError(_PolicyError):
    """The circuit breaker rejected the call, which was not begun. Made as `(name, retry_after)`.

    Example:
        >>> error = CircuitOpenError("storage", 4.2)
        >>> str(error), error.status
        ("circuit breaker 'storage' is open: try again in 4.2 s", 503)
    """

    code = ErrorCode.SERVICE_UNAVAILABLE  # a constant in place of the property
    status = 503  # a constant in place of the property

    @property
    def name(self) -> str:
        """The breaker's name."""
        return str(self.args[0])

    @property
    def retry_after(self) -> float | None:
        """Seconds until the breaker will let a probe in; None where it is held open by hand."""
        return self.args[1]  # type: ignore[no-any-return]  # see "Made as"

    @property
    def message(self) -> str:
        """What happened, and when to try again."""
        if self.retry_after is None:
            return f"circuit breaker {self.name!r} is held open: try again once it has been released"
        return f"circuit breaker {self.name!r} is open: try again in {self.retry_after:.1f} s"


class RateLimitedError(_PolicyError):
    """The limiter refused the call, which was not begun. Made as `(decision,)`."""

    code = ErrorCode.RATE_LIMIT_EXCEEDED  # a constant in place of the property
    status = 429  # a constant in place of the property

    @property
    def decision(self) -> Decision:
        """What the limiter decided, with all its figures."""
        return self.args[0]  # type: ignore[no-any-return]  # see "Made as"

    @property
    def retry_after(self) -> float | None:
        """Seconds until the call would be let through; None where it costs more than the quota holds."""
        return self.decision.retry_after

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
    """The time for the whole call was up before it had an answer. Made as `(message,)`."""

    code = ErrorCode.TIMEOUT  # a constant in place of the property
    status = 504  # a constant in place of the property
    retry_after = None  # a constant in place of the property
