"""Headers: reading them from whatever carries them, and telling clients about rate limits.

Two families say the same. `X-RateLimit-*` is what clients know. `RateLimit` and `RateLimit-Policy` are
the IETF's draft (draft-ietf-httpapi-ratelimit-headers-10), structured fields with one item a limiter:

    RateLimit-Policy: "login";q=6;w=900
    RateLimit: "login";r=3;t=42
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, Protocol, cast

from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilience._core.quota import Decision
    from resilience.clock import Clock

    Text = str | bytes

_LARGEST_INTEGER: Final = 999_999_999_999_999
"""What a structured field can hold (RFC 9651, section 3.3.1)."""


class _Items(Protocol):
    def items(self) -> Iterable[tuple[Text, Text]]: ...


Style = Literal["x", "ietf", "both"]
"""Which rate-limit headers: `X-RateLimit-*`, the draft's, or both."""

if TYPE_CHECKING:
    Headers = _Items | Iterable[tuple[Text, Text]]
    """A mapping of headers, or (name, value) pairs as in ASGI; names in any case."""


def header_values(headers: Headers, name: str) -> list[str]:
    """Return the value of each header line called `name`, in the order of arrival.

    Example:
        >>> header_values([(b"accept", b"text/html"), (b"Accept", b"*/*")], "accept")
        ['text/html', '*/*']
    """
    items = getattr(headers, "items", None)
    pairs = cast("Iterable[tuple[Text, Text]]", headers if items is None else items())
    return [_text(value) for key, value in pairs if _text(key).lower() == name]


def _text(raw: Text) -> str:
    return raw.decode("latin-1") if isinstance(raw, bytes) else raw


def whole_seconds(seconds: float) -> int:
    """Return `seconds` as Retry-After has them: whole, rounded up, at least 1.

    Example:
        >>> whole_seconds(0.0), whole_seconds(59.01)
        (1, 60)
    """
    return max(1, math.ceil(seconds))


def rate_limit_headers(
    *decisions: Decision, style: Style = "x", clock: Clock = SYSTEM_CLOCK
) -> dict[str, str]:
    """Return the headers that tell a client how much it may still ask for.

    With several decisions, the `X-RateLimit-*` headers speak of the tightest one: a refusal before all
    else, then the one with least remaining. `Retry-After` is given on refusals only, and is the longest of
    theirs; it is left out where a call can never be let through, since waiting would not help.

    Args:
        decisions: What limiters decided about this request; none gives no headers.
        style: `"x"` for `X-RateLimit-*`, `"ietf"` for the draft's fields, or both.
        clock: Where the wall time for `X-RateLimit-Reset` comes from.

    Returns:
        The headers by name. `X-RateLimit-Reset` is in Unix seconds, everything else in seconds from now.
    """
    if not decisions:
        return {}
    headers: dict[str, str] = {}
    if style != "ietf":
        tightest = min(decisions, key=lambda one: (one.allowed, one.remaining, -one.reset_after))
        headers["X-RateLimit-Limit"] = str(tightest.limit)
        headers["X-RateLimit-Remaining"] = str(tightest.remaining)
        headers["X-RateLimit-Reset"] = str(math.ceil(clock.wall() + tightest.reset_after))
    if style != "x":
        headers["RateLimit-Policy"] = ", ".join(
            f"{_string(one.limiter)};q={_integer(one.quota.limit)};w={_integer(one.quota.per)}"
            for one in decisions
        )
        headers["RateLimit"] = ", ".join(
            f"{_string(one.limiter)};r={_integer(one.remaining)};t={_integer(one.reset_after)}"
            for one in decisions
        )
    waits = [one.retry_after for one in decisions if not one.allowed]
    if waits and None not in waits:
        headers["Retry-After"] = str(whole_seconds(max(wait for wait in waits if wait is not None)))
    return headers


def limit_headers(status: int, decisions: Iterable[Decision], style: Style, clock: Clock) -> dict[str, str]:
    """Return the rate-limit headers for an answer with `status`, which tells of a wait only if it is 429."""
    headers = rate_limit_headers(*decisions, style=style, clock=clock)
    if status != 429:  # noqa: PLR2004 - Too Many Requests
        headers.pop("Retry-After", None)
    return headers


def _integer(value: float) -> int:
    return min(math.ceil(value), _LARGEST_INTEGER)


def _string(value: str) -> str:
    """Return `value` as a structured field's string, which is printable ASCII."""
    ascii_only = value.encode("ascii", "replace").decode("ascii")
    printable = "".join(character if character.isprintable() else "?" for character in ascii_only)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
