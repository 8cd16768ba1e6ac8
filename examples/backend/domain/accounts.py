"""Accounts: sign up, prove the email address, log in, log out.

The rules:

- Nobody learns from an answer whether an address has an account: registering and asking for a new code
  always answer alike, and a wrong password takes as long as an unknown user.
- A limit is charged before anything costly or telling is done, so it guards the hashing too.
- Until an address is verified, the newest registration of it counts; afterwards none does. A code belongs
  to its registration: who sends the registration's id along cannot be made to prove the address for
  somebody who registered it later, with a password of their own.
- Every attempt is logged, with the address masked; passwords, codes and tokens never are.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from resilience import ErrorCode, ServiceError, authentication_error, fold, validation_error
from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.sessions import session_id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from examples.backend.domain.codes import OneTimeCode, OneTimeCodes
    from examples.backend.domain.limits import Limits
    from resilience.clock import Clock
    from resilience.janitor.sessions import Session

logger: Final = logging.getLogger("backend.accounts")

RESEND_TAKES: Final = 0.1
"""Seconds that asking for a new code takes at least, so that nobody can tell by the time whether a mail was
written. Registering needs no such thing: it writes one in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody with an account."""

    id: str
    email: str
    """As it was typed: mail goes there."""
    email_key: str
    """The one spelling of it that everything is looked up and limited by."""
    name: str
    password_hash: str
    tenant_id: str
    role: Literal["administrator", "member"] = "administrator"
    verified: bool = False
    disabled: bool = False

    @property
    def is_administrator(self) -> bool:
        """Whether this user runs the tenant."""
        return self.role == "administrator"


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is logged in."""

    user: User
    session: Session


class Users(Protocol):
    """The users and their codes. Each method is one transaction."""

    async def register(self, user: User, code: OneTimeCode, now: float) -> User | None:
        """Add `user`, or put it in place of one who never proved the address; else return who did."""
        ...

    async def replace_code(self, email_key: str, code: OneTimeCode) -> str | None:
        """Put `code` in place of the old one; return the address to send it to, if it awaits one."""
        ...

    async def verify(
        self, email_key: str, code_hash: bytes, now: float, registration: str | None = None
    ) -> bool:
        """Spend one attempt at the code of this address; if it is right, the user is verified for good.

        With a `registration`, the code of another is wrong.
        """
        ...

    async def by_email(self, email_key: str) -> User | None:
        """Return the user of this address."""
        ...

    async def by_id(self, user_id: str) -> User | None:
        """Return the user of this id."""
        ...


class Passwords(Protocol):
    """Slow hashes."""

    async def hash(self, password: str) -> str:
        """Return the hash of `password`."""
        ...

    async def verify(self, password: str, hash_: str | None) -> bool:
        """Return whether `password` has this hash; without one say no, and take as long."""
        ...


class Sessions(Protocol):
    """Logins, known by tokens of which only hashes are kept. The library's session stores answer this."""

    async def create(self, user_id: str) -> str:
        """Begin a session; return its token, the only copy there is."""
        ...

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off."""
        ...

    async def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        ...


class Mail(Protocol):
    """Hands messages to whoever delivers them."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Accept a message for delivery."""
        ...


class Accounts:
    """The use cases. `address` is always the client's network address."""

    def __init__(
        self,
        *,
        users: Users,
        passwords: Passwords,
        sessions: Sessions,
        codes: OneTimeCodes,
        mail: Mail,
        limits: Limits,
        sleep: Callable[[float], Awaitable[None]],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._sleep = sleep
        self._users = users
        self._passwords = passwords
        self._sessions = sessions
        self._codes = codes
        self._mail = mail
        self._limits = limits
        self._clock = clock

    async def register(self, email: str, password: str, name: str, address: str) -> str:
        """Open an account, and send a code to prove the address.

        Returns:
            The registration's id, for `verify_email`; one as good as any if the address has an account.

        Raises:
            RateLimitedError: Too many registrations from this network address.
        """
        await self._limits.registration(address)
        key, now = fold(email), self._clock.wall()
        user = User(
            id=secrets.token_hex(16),
            tenant_id=secrets.token_hex(16),
            email=email,
            email_key=key,
            name=name,
            password_hash=await self._passwords.hash(password),
        )
        code = self._codes.issue(key, now)
        owner = await self._users.register(user, code, now)
        if owner is None:
            logger.info("registered %s from %s", masked(email), address)
            await self._send_code(email, code)
        else:
            logger.info("registration of the known address %s from %s", masked(email), address)
            await self._mail.send(
                owner.email,
                "You have an account already",
                "Somebody, perhaps you, has just tried to open an account with this address, which has one.\n"
                "If it was you, simply log in. If it was not, nothing has changed and nothing needs doing.\n",
            )
        return user.id

    async def verify_email(self, email: str, digits: str, registration: str | None) -> None:
        """Accept the code that was sent to `email`, for its `registration` if that is given.

        Raises:
            RateLimitedError: Too many attempts for this address.
            ServiceError: The code is wrong, used, replaced, expired, or was never sent (400).
        """
        key = fold(email)
        await self._limits.verification(key)
        code_hash = self._codes.hash_of(key, digits)
        if not await self._users.verify(key, code_hash, self._clock.wall(), registration):
            logger.warning("wrong code for %s", masked(email))
            raise validation_error(
                "The code is wrong or no longer valid",
                {"code": "wrong or no longer valid: ask for a new one"},
            )
        logger.info("verified %s", masked(email))

    async def resend_code(self, email: str) -> None:
        """Send a new code, if this address awaits one; the old one is void.

        It takes as long for an address that awaits none.

        Raises:
            RateLimitedError: Too many codes for this address.
        """
        key, begun_at = fold(email), self._clock.now()
        await self._limits.resend(key)
        code = self._codes.issue(key, self._clock.wall())
        recipient = await self._users.replace_code(key, code)
        logger.info("new code for %s: %s", masked(email), "sent" if recipient else "not awaited")
        if recipient:
            await self._send_code(recipient, code)
        await self._sleep(max(0.0, begun_at + RESEND_TAKES - self._clock.now()))

    async def login(self, email: str, password: str, address: str, old_token: str | None) -> str:
        """Begin a session, and end the one that the client had until now.

        Returns:
            The new session's token.

        Raises:
            RateLimitedError: Too many attempts; see `Limits.login`.
            ServiceError: The address or the password is wrong (401), or the address not verified (403).
        """
        key = fold(email)
        await self._limits.login(key, address)
        user = await self._users.by_email(key)
        right = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not right:
            logger.warning("login refused for %s from %s", masked(email), address)
            raise authentication_error("The email address or the password is wrong")
        if not user.verified:
            logger.warning("login refused for the unverified %s from %s", masked(email), address)
            raise ServiceError("Please verify your email address first", ErrorCode.FORBIDDEN)
        if old_token is not None:
            await self.logout(old_token)
        logger.info("login of %s from %s", masked(email), address)
        return await self._sessions.create(user.id)

    async def logout(self, token: str) -> None:
        """End the session of this token; it is no error if there is none."""
        await self._sessions.delete(session_id_of(token))

    async def member_of(self, token: str) -> Member | None:
        """Return whose session this is, if it lasts."""
        session = await self._sessions.renew(token)
        user = None if session is None else await self._users.by_id(session.user_id)
        return None if session is None or user is None or user.disabled else Member(user, session)

    async def _send_code(self, email: str, code: OneTimeCode) -> None:
        await self._mail.send(
            email,
            "Your code",
            f"Your code is {code.digits}\n\n"
            "It works once, within ten minutes. If you have not asked for it, do not pass it on.\n",
        )


def masked(identity: str) -> str:
    """Return an identity as it may stand in a log: of an email address, what its owner recognises.

    Example:
        >>> masked("ada@example.com"), masked("192.0.2.1")
        ('a***@example.com', '192.0.2.1')
    """
    local, at, domain = identity.rpartition("@")
    return f"{local[:1]}***@{domain}" if at else identity
