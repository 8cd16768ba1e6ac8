"""Sessions: what one is, and what a janitor asks of the store that keeps them.

A session has two names. Its *token* is the secret that the client shows with every request; no store keeps
it. Its *id* is the SHA-256 of the token: what stores keep, what logs may show, and what `cleanup_session`
takes. Whoever reads an id, or the whole table, cannot make the token of it.

A session ends at `expires_at`, the sooner of two instants: `idle_timeout` after it was last renewed, and
`ends_at`, `absolute_lifetime` after it began. It is alive while the store's clock reads less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class Session(NamedTuple):
    """A session that was alive when it was read. All instants are Unix seconds of the store's clock."""

    session_id: str
    user_id: str
    data: dict[str, Any]
    """What was given when it was created."""
    created_at: float
    expires_at: float
    """When it ends unless it is renewed."""
    ends_at: float
    """When it ends at the latest."""


def session_id_of(token: str) -> str:
    """Return the id of the session whose token this is, or would be: its SHA-256, in 64 hexadecimal digits.

    Example:
        >>> session_id_of("a token")
        'e3316e2bafebb6103a3418e8778c0adc960d40213a03a7e7f4fcd3426ed807bf'
    """
    from hashlib import sha256  # noqa: PLC0415 - it loads OpenSSL, which a janitor does not need

    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()  # whatever a client sends has an id


class SessionStore(Protocol):
    """What a janitor asks of the store that keeps the sessions: five methods, over any table.

    Each call is one transaction: it happens as a whole or not at all. Expiry is judged by the store's
    clock, in the very statement that deletes, so that a session renewed at the same time stays.
    Each ends in bounded time, by an error if need be: a janitor waits for it.
    """

    def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        ...

    def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        ...

    def delete_expired(self, limit: int) -> int:
        """Delete at most `limit` expired sessions; return how many: less than `limit` if none is left."""
        ...

    def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        ...

    def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        ...


class AsyncSessionStore(Protocol):
    """What an `AsyncSessionJanitor` asks: the five methods of `SessionStore`, awaited.

    A cancelled call leaves at once; its transaction happens as a whole or not at all.
    """

    async def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        ...

    async def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        ...

    async def delete_expired(self, limit: int) -> int:
        """Delete at most `limit` expired sessions; return how many: less than `limit` if none is left."""
        ...

    async def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        ...

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        ...
