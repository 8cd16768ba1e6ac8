"""A `ServiceError` as an HTTP response, in one of two forms that say the same.

    {"error": "User not found", "code": "RESOURCE_NOT_FOUND", "requestId": "…", "timestamp": "…"}

is what everybody gets, and RFC 9457's `application/problem+json` is for who asks for it by name. `fields`
stands in both wherever there are any; `details` in development only. Outside development nothing internal
leaves: no class name, no path, no message of an error whose code is not public, and none of a 500.

Bodies are ASCII, and `error_response` never fails, whatever the details are: what JSON cannot hold is shown
by its `repr`.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilience.clock import SYSTEM_CLOCK
from resilience.errors import RateLimitedError
from resilience.http.headers import limit_headers, whole_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.quota import Decision
    from resilience.clock import Clock
    from resilience.errors import ServiceError
    from resilience.http.headers import Style

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"

_QUALITY: Final = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?")
_ELEMENT: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
"""One element of a comma-separated header; a comma inside quotes separates nothing."""


class ErrorResponse(NamedTuple):
    """An error, ready to be sent."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def error_response(
    error: ServiceError,
    *,
    request_id: str,
    accept: str | None = None,
    instance: str | None = None,
    development: bool = False,
    decisions: Sequence[Decision] = (),
    style: Style = "x",
    clock: Clock = SYSTEM_CLOCK,
) -> ErrorResponse:
    """Return the whole response to a request that failed with `error`.

    Args:
        error: What went wrong.
        request_id: The request's id, checked by `resilience.http.request_id`.
        accept: The request's `Accept` header; several lines joined by commas.
        instance: The URI of the request, for the problem form.
        development: Whether to show the details and what is internal.
        decisions: What limiters decided about this request, for the rate-limit headers.
        style: Which rate-limit headers, as `rate_limit_headers` takes it.
        clock: Where the wall time of the timestamp comes from.

    Returns:
        Status, headers (type and length of the body, `X-Request-Id`, `Cache-Control: no-store`, rate
        limits, `Retry-After`) and body. What limiters ask to wait is told with 429 only, and for any other
        status what the error itself asks.
    """
    if isinstance(error, RateLimitedError) and error.decision not in decisions:
        decisions = (*decisions, error.decision)
    problem = prefers_problem(accept)
    if problem:
        content = problem_body(
            error, request_id=request_id, instance=instance, development=development, clock=clock
        )
    else:
        content = error_body(error, request_id=request_id, development=development, clock=clock)
    body = _encoded(content)
    headers = {
        "Content-Type": PROBLEM if problem else JSON,
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Request-Id": request_id,
        **limit_headers(error.status, decisions, style, clock),
    }
    if error.retry_after is not None and not isinstance(error, RateLimitedError):
        headers.setdefault("Retry-After", str(whole_seconds(error.retry_after)))
    return ErrorResponse(error.status, list(headers.items()), body)


def error_body(
    error: ServiceError, *, request_id: str, development: bool = False, clock: Clock = SYSTEM_CLOCK
) -> dict[str, Any]:
    """Return the body of an error, ready for JSON.

    Always with `error`, `code`, `requestId` and `timestamp` (UTC, whole seconds); with `fields` where
    there are any; with `details` in development.

    Example:
        >>> from resilience.errors import validation_error
        >>> body = error_body(validation_error("Email is invalid", {"email": "no @"}), request_id="r1")
        >>> body["error"], body["code"], body["fields"]
        ('Email is invalid', 'VALIDATION_ERROR', {'email': 'no @'})
    """
    return {
        "error": error.message if development else error.public_message,
        **_common(error, request_id, development, clock),
    }


def problem_body(
    error: ServiceError,
    *,
    request_id: str,
    instance: str | None = None,
    development: bool = False,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any]:
    """Return the same error as RFC 9457 problem details.

    The type is `about:blank`, so the title is the status's phrase; `code` is what programs go by.
    """
    return {
        "type": "about:blank",
        "title": _phrase(error.status),
        "status": error.status,
        "detail": error.message if development else error.public_message,
        **({} if instance is None else {"instance": instance}),
        **_common(error, request_id, development, clock),
    }


def is_error_body(body: bytes) -> bool:
    """Return whether `body` is an error in either of this library's forms."""
    import json  # noqa: PLC0415 - see _encoded

    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"code", "requestId", "timestamp"} <= content.keys()


def _common(error: ServiceError, request_id: str, development: bool, clock: Clock) -> dict[str, Any]:
    common: dict[str, Any] = {
        "code": str(error.code),
        "requestId": request_id,
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.wall())),
    }
    if error.fields:
        common["fields"] = {str(field): str(wrong) for field, wrong in error.fields.items()}
    if development:
        common["details"] = _details(error)
    return common


def _details(error: ServiceError) -> dict[str, Any]:
    """Return what helps developers: the error's own details, what it was made from, and where we failed."""
    import traceback  # noqa: PLC0415 - for development only

    cause = error.__cause__ or error
    if cause is error and error.__traceback__ is None:
        return {**(error.details or {})}
    details = {**(error.details or {}), "exception": "".join(traceback.format_exception_only(cause)).strip()}
    if error.status >= 500:  # noqa: PLR2004 - a failure of ours; what a client did wrong is told without the place
        details["traceback"] = [line.strip() for line in traceback.format_tb(cause.__traceback__)]
    return details


def _phrase(status: int) -> str:
    from http import HTTPStatus  # noqa: PLC0415 - for problem details only

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _encoded(body: dict[str, Any]) -> bytes:
    import json  # noqa: PLC0415 - who never answers an error does not pay for it

    try:
        return json.dumps(body, default=_shown, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError):  # only details can hold what JSON cannot
        return json.dumps({**body, "details": {"repr": _shown(body["details"])}}).encode("ascii")


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - somebody's __repr__ may raise anything
        return object.__repr__(value)


def prefers_problem(accept: str | None) -> bool:
    """Return whether the client asks for `application/problem+json`, by name and no less than for JSON.

    A client that names it understands it; since it needs JSON for good answers too, equal preference
    counts as asking. Wildcards do not.

    Example:
        >>> prefers_problem("application/json, application/problem+json")
        True
        >>> prefers_problem("application/problem+json;q=0.5, */*;q=0.8"), prefers_problem("*/*")
        (False, False)
    """
    if accept is None or "problem" not in accept.lower():
        return False
    qualities = dict(filter(None, map(_quality_of, _ELEMENT.findall(accept))))
    wanted = qualities.get(PROBLEM, 0.0)
    json_ranges = (JSON, "application/*", "*/*")
    json_quality = next((qualities[one] for one in json_ranges if one in qualities), 0.0)
    return wanted > 0.0 and wanted >= json_quality


def _quality_of(element: str) -> tuple[str, float] | None:
    """Return the media range in lower case and its quality, or None where the quality is malformed."""
    media_range, *parameters = (part.strip().lower() for part in element.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.rstrip() == "q":
            return (media_range, float(value)) if _QUALITY.fullmatch(value := value.lstrip()) else None
    return media_range, 1.0
