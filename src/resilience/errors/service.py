"""The root of all errors that a service answers with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from resilience.errors.codes import ErrorCode, error_status


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
            self._status = error_status(status)
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
