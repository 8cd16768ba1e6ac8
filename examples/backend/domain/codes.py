"""One-time codes: six digits that prove an email address.

A code is drawn from the operating system's randomness, lives ten minutes, works once, and dies when the
next one is issued or after five wrong guesses. Only its HMAC is stored: a million possible codes are
guessed from a plain hash in a second, but not without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

LIFETIME: Final = 600.0
"""Seconds. The most that OWASP ASVS 6.5.5 allows."""
MAX_ATTEMPTS: Final = 5
"""Guesses at one code, right or wrong, counted with it: 1 in 200,000.

A new code begins its count anew, but the limit of verification does not: it counts five guesses in five
minutes for the address, whatever code they are at (ASVS 6.6.3).
"""


class OneTimeCode(NamedTuple):
    """A code, just issued."""

    digits: str
    """For the mail only: never stored, never logged."""
    hash: bytes
    expires_at: float
    """Unix seconds."""


class OneTimeCodes:
    """Issues codes, and hashes those that come back.

    Args:
        key: The HMAC's key, at least 32 bytes.

    Example:
        >>> codes = OneTimeCodes(b"k" * 32)
        >>> code = codes.issue("ada@example.com", now=0.0)
        >>> len(code.digits), code.hash == codes.hash_of("ada@example.com", code.digits)
        (6, True)
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < hashlib.sha256().digest_size:
            raise ValueError(f"the key of the one-time codes has {len(key)} bytes: use at least 32")
        self._key = key

    def issue(self, email: str, now: float) -> OneTimeCode:
        """Return a fresh code for `email`, at `now` in Unix seconds."""
        digits = f"{secrets.randbelow(1_000_000):06}"
        return OneTimeCode(digits, self.hash_of(email, digits), now + LIFETIME)

    def hash_of(self, email: str, digits: str) -> bytes:
        """Return what is stored of the code `digits` for `email`: a code is of use for one address only."""
        return hmac.digest(self._key, f"verify-email\0{email}\0{digits}".encode(), "sha256")
