"""Sessions: what one is, and what a janitor asks of the store that keeps them.

A session has two names. Its *token* is the secret that the client shows with every request; no store keeps
it. Its *id* is the SHA-256 of the token: what stores keep, what logs may show, and what `cleanup_session`
takes. Whoever reads an id, or the whole table, cannot make the token of it.

A session ends at `expires_at`, the sooner of two instants: `idle_timeout` after it was last renewed, and
`ends_at`, `absolute_lifetime` after it began. It is alive while the store's clock reads less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

from resilience.checks import number

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


_TOKEN_BYTES: Final = 32  # 256 bits; OWASP ASVS 5.0, 7.2.3 asks for 128


def new_token() -> str:
    """Return a token that nobody can guess: 43 characters that may stand in a cookie, a header or a URL."""
    import secrets  # noqa: PLC0415 - it loads OpenSSL, which a janitor does not need

    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_unicode(text: str) -> bool:
    """Return whether databases can hold the text: a str of Python may have halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Lifetimes(NamedTuple):
    """How long sessions live, and when it is worth a write to let one live longer."""

    idle_timeout: float
    """Seconds after which a session ends that is not renewed."""
    absolute_lifetime: float
    """Seconds after which a session ends in any case."""

    @classmethod
    def checked(cls, idle_timeout: float, absolute_lifetime: float) -> Self:
        """Return the lifetimes if they make sense.

        Raises:
            TypeError: One of them is no number.
            ValueError: One is not above 0, or the idle timeout is longer than the lifetime.
        """
        lifetime = number("absolute_lifetime", absolute_lifetime, above=0)
        return cls(number("idle_timeout", idle_timeout, above=0, most=lifetime), lifetime)

    def renewed(self, session: Session, now: float) -> float | None:
        """Return when the session would end if it were renewed now; None where that is not worth a write.

        It is if the end moves by a tenth of the idle timeout, or to the very end. An index on the end cannot
        spare a write (PostgreSQL calls it HOT), so there must be few of them.

        Example:
            >>> session = Session("5e55", "ada", {}, created_at=0.0, expires_at=100.0, ends_at=1000.0)
            >>> Lifetimes(100.0, 1000.0).renewed(session, now=9.0)
            >>> Lifetimes(100.0, 1000.0).renewed(session, now=10.0)
            110.0
        """
        expires_at = min(now + self.idle_timeout, session.ends_at)
        gain = expires_at - session.expires_at
        if gain >= self.idle_timeout / 10 or (gain > 0 and expires_at == session.ends_at):
            return expires_at
        return None


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

    def delete_expired(self, limit: int) -> int | None:
        """Delete at most `limit` expired sessions; return how many: less than `limit` if none is left.

        None means that another node is cleaning the same sessions at the moment: the sweep ends.
        """
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

    async def delete_expired(self, limit: int) -> int | None:
        """Delete at most `limit` expired sessions; return how many: see `SessionStore`."""
        ...

    async def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        ...

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        ...
