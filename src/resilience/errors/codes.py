"""Error codes: the names that programs may rely on."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final, Self

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
        code.status = error_status(status)
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


def error_status(status: int) -> int:
    """Return the HTTP status of an error.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is none of 400 to 599.
    """
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
