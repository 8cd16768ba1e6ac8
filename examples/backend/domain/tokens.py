"""Tokens: secrets that are drawn at random, given away once, and known by their hashes afterwards."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

BYTES: Final = 32
"""256 bits; OWASP ASVS 5.0 asks for 128 (7.2.3)."""


def new_token() -> str:
    """Return a token that nobody can guess: 43 characters that may stand in an address."""
    return secrets.token_urlsafe(BYTES)


def hash_of(token: str) -> str:
    """Return what is kept of a token. It is drawn at random, so a plain hash will do: nobody tries them all.

    Example:
        >>> hash_of("demo")[:16]
        '2a97516c354b6884'
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
