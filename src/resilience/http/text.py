"""What comes from outside, made harmless: request ids, and text for a log line."""

from __future__ import annotations

import os
import re
from typing import Final

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(proposed: str | None = None) -> str:
    """Return the caller's request id where it is of the safe form, else a fresh one.

    The result can stand in headers, bodies and logs as it is.

    Args:
        proposed: What the caller sent; kept if it is 1 to 64 of `A-Z a-z 0-9 . _ -`.

    Returns:
        An id; a fresh one is 32 hexadecimal digits from the system's random source, so that forked
        workers never share one.

    Example:
        >>> request_id("web-42")
        'web-42'
        >>> len(request_id("web 42; DROP TABLE"))
        32
    """
    return proposed if proposed is not None and is_request_id(proposed) else os.urandom(16).hex()


def is_request_id(text: str) -> bool:
    """Return whether `text` is of the safe form: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    return _REQUEST_ID.fullmatch(text) is not None


def one_line(text: str, limit: int = 256) -> str:
    r"""Return `text` as one line that cannot forge another or drive a terminal.

    Everything unprintable is escaped: line ends of all kinds, control characters, ANSI sequences, text
    direction marks, lone surrogates.

    Args:
        text: Whatever somebody sent: a header, a key, a user name.
        limit: How many characters of it are kept, 1 or more.

    Example:
        >>> print(one_line("ada\r\nadmin logged in"))
        ada\r\nadmin logged in
    """
    kept = text[:limit]
    if not kept.isprintable():
        kept = "".join(character if character.isprintable() else _escaped(character) for character in kept)
    return kept if len(text) <= limit else kept + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
