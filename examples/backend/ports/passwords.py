"""Password hashes by argon2id, at OWASP's minimum: 19 MiB, two passes, one lane; about 25 ms each."""

from __future__ import annotations

import secrets
import unicodedata
from typing import TYPE_CHECKING, Final

import argon2

if TYPE_CHECKING:
    from examples.backend.ports.workers import Workers

ARGON2: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Argon2Passwords:
    """Hashes and checks passwords, a bounded number at a time.

    Args:
        workers: The threads that hash. argon2 lets go of the GIL meanwhile.
        argon2id: Hashes, with its parameters.
    """

    def __init__(self, workers: Workers, argon2id: argon2.PasswordHasher = ARGON2) -> None:
        self._workers = workers
        self._argon2id = argon2id
        self._hash_of_nobody = argon2id.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        """Return the hash of `password`, with its salt and parameters."""
        return await self._workers.run(self._argon2id.hash, normal(password))

    async def verify(self, password: str, hash_: str | None) -> bool:
        """Return whether `password` has this hash.

        Without a hash, since there is no such user, the answer is no and takes just as long.
        """
        right = await self._workers.run(self._matches, hash_ or self._hash_of_nobody, normal(password))
        return right and hash_ is not None

    def is_outdated(self, hash_: str) -> bool:
        """Return whether a password would be hashed with other parameters today."""
        return self._argon2id.check_needs_rehash(hash_)

    def _matches(self, hash_: str, password: str) -> bool:
        try:
            return self._argon2id.verify(hash_, password)
        except argon2.exceptions.VerifyMismatchError:
            return False


def normal(password: str) -> str:
    """Return the one spelling of `password`: keyboards differ in how they write an accented letter."""
    return unicodedata.normalize("NFKC", password)
