"""One-time codes: six digits that prove that somebody reads the mail of an address.

A code is drawn from the operating system's randomness, lives ten minutes, is for one purpose, works once, and
dies when the next one is issued. Only its HMAC is stored: a million possible codes are guessed from a plain
hash in a second, but not without the key.

Guesses are counted for the account, not for the code: five in an hour, however many codes are asked for and
by whomever. An hour later the next code begins the count anew. So whoever tries to guess the codes of one
account has 120 chances a day at most, of a million, and needs 15 years for an even chance; its owner, kept
from using codes by somebody who does that, still logs in by password.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

LIFETIME: Final = 600.0
"""Seconds. The most that OWASP ASVS 6.5.5 allows."""
MAX_ATTEMPTS: Final = 5
"""Guesses, right or wrong, at all codes of an account for one purpose within `COUNTED_FOR`."""
COUNTED_FOR: Final = 3600.0
"""Seconds from the issue of a code, for which guesses at it and at those after it are counted together."""


class Purpose(enum.StrEnum):
    """What a code is good for."""

    VERIFY_EMAIL = "verify-email"
    RESET_PASSWORD = "reset-password"  # noqa: S105 - it is none


class OneTimeCode(NamedTuple):
    """A code, just issued."""

    purpose: Purpose
    digits: str
    """For the mail only: never stored, never logged."""
    hash: bytes
    issued_at: float
    """Unix seconds."""

    @property
    def expires_at(self) -> float:
        """When it is of no use any more, in Unix seconds."""
        return self.issued_at + LIFETIME


class OneTimeCodes:
    """Issues codes, and hashes those that come back.

    Args:
        key: The HMAC's key, at least 32 bytes.

    Example:
        >>> codes = OneTimeCodes(b"k" * 32)
        >>> code = codes.issue(Purpose.VERIFY_EMAIL, "ada@example.com", now=0.0)
        >>> len(code.digits), code.hash == codes.hash_of(code.purpose, "ada@example.com", code.digits)
        (6, True)
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < hashlib.sha256().digest_size:
            raise ValueError(f"the key of the one-time codes has {len(key)} bytes: use at least 32")
        self._key = key

    def issue(self, purpose: Purpose, email: str, now: float) -> OneTimeCode:
        """Return a fresh code for `email`, at `now` in Unix seconds."""
        digits = f"{secrets.randbelow(1_000_000):06}"
        return OneTimeCode(purpose, digits, self.hash_of(purpose, email, digits), now)

    def hash_of(self, purpose: Purpose, email: str, digits: str) -> bytes:
        """Return what is stored of the code `digits`: it is of use for one purpose and one address only."""
        return hmac.digest(self._key, f"{purpose}\0{email}\0{digits}".encode(), "sha256")
