"""Headers that every answer has, errors and what a server answers by itself included.

An answer that needs other ones has its own, such as a page with its Content-Security-Policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from examples.backend.settings import Settings

    HeaderList = list[tuple[str, str]]

ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
OVER_HTTPS: Final = {"Strict-Transport-Security": "max-age=31536000"}
UNAUTHORIZED: Final = 401
CHALLENGE: Final = ("WWW-Authenticate", "Bearer")


class StandingHeaders:
    """What is added to answers.

    Example:
        >>> from examples.backend.settings import Settings
        >>> StandingHeaders(Settings()).missing(401, ["content-security-policy", "referrer-policy"])
        [('X-Content-Type-Options', 'nosniff'), ('WWW-Authenticate', 'Bearer')]
    """

    def __init__(self, settings: Settings) -> None:
        standing = ALWAYS | (OVER_HTTPS if settings.secure_cookies else {})
        self.all: Final = list(standing.items())
        self._all = [(name.lower(), (name, value)) for name, value in standing.items()]

    def missing(self, status: int, names: Iterable[str]) -> HeaderList:
        """Return the headers that an answer with this status lacks.

        Args:
            status: The answer's.
            names: Of the headers that it has, in lower case.
        """
        present = frozenset(names)
        lacking = [header for name, header in self._all if name not in present]
        if status == UNAUTHORIZED and "www-authenticate" not in present:
            lacking.append(CHALLENGE)
        return lacking
