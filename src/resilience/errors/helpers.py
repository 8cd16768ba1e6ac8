"""Short ways to the usual errors: one that raises, and those that return what is to be raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from resilience.errors.codes import ErrorCode
from resilience.errors.service import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping


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
