"""Passwords that too many know: the commonest ones, from a list, and leaked ones, by asking elsewhere."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final

import httpx2
from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-untyped]  # it has no types

from examples.backend.domain.passwords import SHORTEST
from examples.backend.ports.passwords import normal
from resilience import ServiceError, deadline

if TYPE_CHECKING:
    from examples.backend.kit import Retries
    from examples.backend.ports.http_client import Client

logger: Final = logging.getLogger("backend.accounts")

PREFIX: Final = 5
"""Hexadecimal digits of the hash that are told to the service: some 1,000 leaked passwords share them."""
WITHIN: Final = 1.5
"""Seconds."""
LONGEST_ANSWER: Final = 1024 * 1024
"""Bytes; a padded answer has some 60,000."""


def client_options(url: str) -> dict[str, Any]:
    """Return what both clients of the service at `url` are made with."""
    return {
        "base_url": url,
        "headers": {"Add-Padding": "true", "Accept-Encoding": "identity", "User-Agent": "resilience example"},
        "timeout": WITHIN / 2,
        "follow_redirects": False,
        "trust_env": False,
    }


class CommonPasswords:
    """Answers `KnownPasswords` by the list that zxcvbn has: 30,000, found in leaks, the commonest first.

    Those that are too short anyway are left out; more than 11,000 remain, where OWASP ASVS 5.0 asks for the
    commonest 3,000 (6.2.4). Whether letters are capital makes no difference: guessers try both.
    """

    def __init__(self) -> None:
        self._all = frozenset(word for word in FREQUENCY_LISTS["passwords"] if len(word) >= SHORTEST)

    async def has(self, password: str) -> bool:
        """Return whether `password` is one of them."""
        return normal(password).lower() in self._all


class BreachedPasswords:
    """Answers `KnownPasswords` by Have I Been Pwned's range API, or one like it.

    The service is told the first 5 of 40 digits of the password's SHA-1, and answers with the rest of all
    that begin so. It learns neither the password nor whether it was among them. Where it does not answer in
    time the password passes, which is logged; retries and breaker are watched like any.

    Args:
        client: Its base address is the API's; it asks for padding, so that an answer's length tells nothing.
        retries: How it is asked again, with the breaker that guards it.
        within: Seconds that somebody who chooses a password waits at most, retries included.
    """

    def __init__(self, client: Client, retries: Retries, within: float = WITHIN) -> None:
        self._client = client
        self._retries = retries
        self._within = within

    async def has(self, password: str) -> bool:
        """Return whether `password` has leaked, as far as that can be found out now."""
        # SHA-1 is what the service speaks; nothing rests on its strength.
        digest = hashlib.sha1(normal(password).encode(), usedforsecurity=False).hexdigest().upper()
        try:
            with deadline(self._within):
                answer = await self._retries.execute(self._range, digest[:PREFIX])
        except (httpx2.HTTPError, ServiceError, UnicodeDecodeError) as error:
            logger.warning("a new password was not looked up among leaked ones: %s", type(error).__name__)
            return False
        return any(_is_of(line, digest[PREFIX:]) for line in answer.splitlines())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _range(self, prefix: str) -> str:
        async with self._client.stream(prefix) as answer:
            answer.response.raise_for_status()
            body = b""
            async for piece in answer.pieces():
                body += piece
                if len(body) > LONGEST_ANSWER:
                    raise ServiceError(f"more than {LONGEST_ANSWER} bytes of leaked passwords")
            return body.decode("ascii")


def _is_of(line: str, suffix: str) -> bool:
    """Return whether a line, `SUFFIX:COUNT`, is of this hash. Padding has a count of 0."""
    given, _, count = line.partition(":")
    return given == suffix and count.strip() != "0"
