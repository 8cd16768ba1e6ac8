"""Checks signatures of S3 requests (AWS Signature Version 4), which moto takes as they come.

Without it, a wrong secret, a presigned URL that has expired and one that was tampered with would all work.
The rules are those of "Authenticating Requests (AWS Signature Version 4)" in Amazon's S3 API reference.
The name of the host is signed too: a presigned URL holds only for the address that the store was told.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
LARGEST_SKEW: Final = 900.0
"""Seconds that the clocks of client and store may differ."""
LONGEST_VALIDITY: Final = 7 * 86_400
"""Seconds that a presigned URL may hold."""


class RefusedError(Exception):
    """A request that S3 refuses.

    Attributes:
        status: Of the answer.
        code: In its body.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def check(
    method: str, target: str, headers: Mapping[str, str], body: bytes, *, key: str, secret: str, now: float
) -> None:
    """Check who sends a request and that it was not changed.

    Args:
        method: Of the request.
        target: Its path and query, as they were sent.
        headers: Of the request; names in any case.
        body: Of the request.
        key: The access key that is known here.
        secret: Its secret.
        now: Unix seconds.

    Raises:
        RefusedError: It is not signed, or not by this key, or not now, or was changed.
    """
    path, _, query = target.partition("?")
    parameters = [_pair(part) for part in query.split("&") if part]
    in_query = dict(parameters)
    presigned = "X-Amz-Signature" in in_query
    signed = _of_query(in_query) if presigned else _of_header(headers)
    credential, names, signature, date = signed
    given_key, _, scope = credential.partition("/")
    if given_key != key:
        raise RefusedError(403, "InvalidAccessKeyId", "The access key does not exist in our records")
    _check_time(date, now, in_query.get("X-Amz-Expires", "") if presigned else None)
    digest = headers.get("x-amz-content-sha256", UNSIGNED)
    if not presigned and digest not in {UNSIGNED, hashlib.sha256(body).hexdigest()}:
        raise RefusedError(
            400, "XAmzContentSHA256Mismatch", "The body does not match its x-amz-content-sha256"
        )
    request = "\n".join(
        [
            method,
            quote(unquote(path), safe="/-_.~"),
            "&".join(sorted(f"{_q(n)}={_q(v)}" for n, v in parameters if n != "X-Amz-Signature")),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            ";".join(names),
            digest,
        ]
    )
    to_sign = "\n".join([ALGORITHM, date, scope, hashlib.sha256(request.encode()).hexdigest()])
    signing_key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    expected = hmac.digest(signing_key, to_sign.encode(), "sha256").hex()
    if "host" not in names or not hmac.compare_digest(expected.encode(), signature.encode()):
        raise RefusedError(403, "SignatureDoesNotMatch", "The signature does not match what we calculated")


def _of_query(given: Mapping[str, str]) -> tuple[str, list[str], str, str]:
    """Return credential, names of the signed headers, signature and date of a presigned URL."""
    try:
        names = given["X-Amz-SignedHeaders"].split(";")
        return given["X-Amz-Credential"], names, given["X-Amz-Signature"], given["X-Amz-Date"]
    except KeyError as missing:
        raise RefusedError(400, "AuthorizationQueryParametersError", f"{missing} is missing") from None


def _of_header(headers: Mapping[str, str]) -> tuple[str, list[str], str, str]:
    """Return credential, names of the signed headers, signature and date of a signed request."""
    parts = dict(re.findall(r"(\w+)=([^,\s]+)", headers.get("authorization", "")))
    try:
        names = parts["SignedHeaders"].split(";")
        return parts["Credential"], names, parts["Signature"], headers["x-amz-date"]
    except KeyError:
        raise RefusedError(403, "AccessDenied", "Access Denied") from None


def _check_time(date: str, now: float, expires: str | None) -> None:
    try:
        signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise RefusedError(403, "AccessDenied", f"{date!r} is no date of ours") from None
    if expires is None:
        if abs(now - signed_at) > LARGEST_SKEW:
            raise RefusedError(403, "RequestTimeTooSkewed", "The clocks differ too much")
    elif not expires.isdecimal() or not 0 < int(expires) <= LONGEST_VALIDITY:
        raise RefusedError(
            400, "AuthorizationQueryParametersError", f"X-Amz-Expires={expires} is no validity"
        )
    elif now > signed_at + int(expires):
        raise RefusedError(403, "AccessDenied", "Request has expired")
    elif signed_at - now > LARGEST_SKEW:
        raise RefusedError(403, "AccessDenied", "Request is not valid yet")


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return unquote(name), unquote(value)


def _q(text: str) -> str:
    return quote(text, safe="-_.~")
