"""Which error code stands for an HTTP status that came without one."""

from __future__ import annotations

from typing import Final

from resilience.errors import ErrorCode

VOCABULARY: Final = {name: code for name, code in vars(ErrorCode).items() if isinstance(code, ErrorCode)}
"""The library's own codes by name."""

_BY_STATUS: Final = {
    code.status: code
    for code in (
        ErrorCode.BAD_REQUEST,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_FOUND,
        ErrorCode("METHOD_NOT_ALLOWED", 405, "This method is not allowed here"),
        ErrorCode("NOT_ACCEPTABLE", 406, "No acceptable form is available"),
        ErrorCode("REQUEST_TIMEOUT", 408, "The request took too long to arrive", retryable=True),
        ErrorCode.CONFLICT,
        ErrorCode("GONE", 410, "This is gone for good"),
        ErrorCode("LENGTH_REQUIRED", 411, "The request must state its length"),
        ErrorCode("PRECONDITION_FAILED", 412, "This has changed in the meantime"),
        ErrorCode("CONTENT_TOO_LARGE", 413, "The request is too large"),
        ErrorCode("URI_TOO_LONG", 414, "The address is too long"),
        ErrorCode("UNSUPPORTED_MEDIA_TYPE", 415, "This type of content is not supported"),
        ErrorCode("RANGE_NOT_SATISFIABLE", 416, "This range does not exist"),
        ErrorCode("LOCKED", 423, "This is locked"),
        ErrorCode("TOO_EARLY", 425, "Too early, please try again", retryable=True),
        ErrorCode("UPGRADE_REQUIRED", 426, "Another protocol is required"),
        ErrorCode("PRECONDITION_REQUIRED", 428, "The request must be conditional"),
        ErrorCode.RATE_LIMIT_EXCEEDED,
        ErrorCode("HEADERS_TOO_LARGE", 431, "The request's headers are too large"),
        ErrorCode.INTERNAL_ERROR,
        ErrorCode("NOT_IMPLEMENTED", 501, "This is not available", public=False),
        ErrorCode.EXTERNAL_SERVICE_ERROR,
        ErrorCode.SERVICE_UNAVAILABLE,
        ErrorCode.TIMEOUT,
    )
} | {422: ErrorCode.VALIDATION_ERROR}


def code_for_status(status: int) -> ErrorCode:
    """Return the code for an error that is known by its HTTP status alone.

    Args:
        status: 400 to 599.

    Example:
        >>> code_for_status(405), code_for_status(418)
        (<ErrorCode METHOD_NOT_ALLOWED 405>, <ErrorCode HTTP_418 418>)
    """
    if known := _BY_STATUS.get(status):
        return known
    return ErrorCode(f"HTTP_{status}", status, "The request failed", public=status < 500)  # noqa: PLR2004 - server's
