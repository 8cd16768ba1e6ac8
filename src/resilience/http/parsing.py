"""The client's side: a response of any server as the error that it tells.

    response = httpx.get(url)
    if response.status_code >= 400:
        raise parse_error(response.status_code, response.headers, response.content)

Rules:
    - It never raises, whatever the body is: a broken answer must not hide that the call failed.
    - What stands in the body is believed only as far as it is short, printable and of the right type; its
      form is looked at, its Content-Type is not.
    - A code of our vocabulary says whether retrying helps; any other answer is judged by its status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from resilience._core.retry_after import parse_retry_after
from resilience._core.taxonomy import HTTP_STATUS
from resilience.clock import SYSTEM_CLOCK
from resilience.errors import ErrorCode, ServiceError, is_error_code
from resilience.http.headers import header_values
from resilience.http.mapping import MOST_FIELDS, field_errors
from resilience.http.status import VOCABULARY, code_for_status
from resilience.http.text import is_request_id, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilience.clock import Clock
    from resilience.http.headers import Headers

_LARGEST_BODY: Final = 64 * 1024
"""Bytes of a body that are read; an error has no use for more."""

_LONGEST_MESSAGE: Final = 500


def parse_error(
    status: int,
    headers: Headers,
    body: bytes | str,
    *,
    codes: Iterable[ErrorCode] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> ServiceError:
    """Return the error that a response tells: this library's, problem details, or anybody else's.

    Args:
        status: The response's status; one that is no error's counts as 502.
        headers: Its headers, a mapping or pairs; names in any case.
        body: Its body; more than 64 KiB are not read.
        codes: The server's own codes, beside this library's.
        clock: Where the wall time comes from that a date in Retry-After is counted from.

    Returns:
        An error with the response's status, code, message, fields, details and request id, and with
        `retryable` and `retry_after` as `RetryManager` obeys them.

    Example:
        >>> error = parse_error(503, {"Retry-After": "7"}, b"<html>nginx</html>")
        >>> error.code, error.retryable, error.retry_after
        (<ErrorCode SERVICE_UNAVAILABLE 503>, True, 7.0)
    """
    status = status if 400 <= status <= 599 else 502  # noqa: PLR2004 - the HTTP error statuses; Bad Gateway
    content = _content(body)
    waits = [parse_retry_after(value, clock.wall()) for value in header_values(headers, "retry-after")]
    retry_after = next((wait for wait in waits if wait is not None), None)
    ids = [content.get("requestId"), *header_values(headers, "x-request-id")]
    return ServiceError(
        _message(content),
        _code(content.get("code"), status, retry_after, codes),
        status=status,
        fields=_fields(content),
        details=_as_object(content.get("details")),
        retry_after=retry_after,
        request_id=next((one for one in ids if isinstance(one, str) and is_request_id(one)), None),
    )


def _content(body: bytes | str) -> dict[str, Any]:
    """Return the JSON object in the body; a short text stands for one with that message."""
    import json  # noqa: PLC0415 - who never reads an error does not pay for it

    if len(body) > _LARGEST_BODY:
        return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        text = (body if isinstance(body, str) else body.decode("utf-8", "replace")).strip()
        return {"error": text} if text.isprintable() and not text.startswith("<") else {}
    return _as_object(content) or {}


def _as_object(content: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _code(name: object, status: int, retry_after: float | None, codes: Iterable[ErrorCode]) -> ErrorCode:
    """Return the code that the body names, if it goes with the status; else one made from the status."""
    name = name if isinstance(name, str) else ""
    known = next((code for code in codes if code == name), None) or VOCABULARY.get(name)
    if known is not None and known.status == status:
        return known
    usual = code_for_status(status)
    # 413 is transient only where the server says when (RFC 9110, 15.5.14).
    retryable = status in HTTP_STATUS and (status != 413 or retry_after is not None)  # noqa: PLR2004 - see above
    own_name = name if is_error_code(name) else str(usual)
    return ErrorCode(own_name, status, (known or usual).title, retryable=retryable, public=usual.public)


def _message(content: dict[str, Any]) -> str | None:
    content = _as_object(content.get("error")) or content
    for key in ("error_description", "detail", "message", "error", "description", "title"):
        text = content.get(key)
        if isinstance(text, str) and text.strip():
            return one_line(text.strip(), _LONGEST_MESSAGE)
    return None


def _fields(content: dict[str, Any]) -> dict[str, str] | None:
    try:
        fields = _as_object(content.get("fields")) or field_errors(content["detail"])  # FastAPI's
    except (KeyError, TypeError):
        return None
    return {
        one_line(name): one_line(str(wrong)) for name, wrong in list(fields.items())[:MOST_FIELDS]
    } or None
