"""Accounts: sign up, prove the email address, log in, see and end one's sessions.

The rules:

- Nobody learns from an answer whether an address has an account: registering and asking for a code always
  answer alike; so do logging in with a wrong password, as an unknown user, and as one who was disabled. All
  of these do the same work, and answer at whole tenths of a second, see `pace`.
- A limit is charged before anything costly or telling is done, so it guards the hashing too.
- Until an address is verified, the newest registration of it counts; afterwards none does. A code belongs
  to its registration: who sends the registration's id along cannot be made to prove the address for
  somebody who registered it later, with a password of their own.
- Whoever registers opens a tenant and is its administrator, unless the address was invited to another one.
- A session is ended on the server, its sockets with it. A login gives a new token and ends the old one.
- Sessions have the number of their generation, and each user that of the one which counts. What voids all
  sessions begins the next in its own transaction, so none outlives it, even if they cannot be deleted then.
- Every attempt is logged, with the address masked; passwords, codes and tokens never are.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from examples.backend.domain import letters
from examples.backend.domain.codes import Purpose
from examples.backend.domain.tokens import hash_of
from resilience import (
    ErrorCode,
    ServiceError,
    authentication_error,
    fold,
    not_found_error,
    validation_error,
)
from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.sessions import session_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.backend.domain.codes import OneTimeCode, OneTimeCodes
    from examples.backend.domain.letters import Letter
    from examples.backend.domain.limits import Limits
    from examples.backend.domain.pace import Pace
    from examples.backend.domain.passwords import PasswordRules
    from resilience.clock import Clock
    from resilience.janitor.sessions import Session

    Role = Literal["administrator", "member"]

logger: Final = logging.getLogger("backend.accounts")

UNPROVEN_FOR: Final = 7 * 86_400.0
"""Seconds for which a registration is kept whose address was not proved."""
MOST_SESSIONS: Final = 1000
"""Of one user, in a list."""
DEMO: Final = "demo@example.com"


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
    password_changed_at: float = 0.0
    """Unix seconds."""
    generation: int = 0
    """The one of the sessions that count."""
    tenant_id: str
    role: Role = "administrator"
    verified: bool = False
    disabled: bool = False

    @property
    def is_administrator(self) -> bool:
        """Whether this user runs the tenant."""
        return self.role == "administrator"

    def joining(self, tenant_id: str, role: Role, email: str) -> User:
        """Return the user as one of another tenant; an invitation has proved the address `email`."""
        return replace(self, tenant_id=tenant_id, role=role, email=email, verified=True)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is logged in."""

    user: User
    session: Session


class Origin(NamedTuple):
    """Where a request came from, as far as that can be known."""

    address: str
    """The client's network address."""
    device: str = ""
    """What the client says that it is, on one line."""


class Users(Protocol):
    """The users and their codes. Each method is one transaction."""

    async def register(self, user: User, code: OneTimeCode) -> User | None:
        """Add `user`, or put it in place of one who never proved the address; else return who did."""
        ...

    async def join(self, user: User, invitation: str, now: float) -> User | None:
        """Add `user`, verified, to the tenant whose `invitation` (a hash) its address has, and spend that.

        Return who has the address then: who had proved it before, and has it still, or the new user; None if
        there is no such invitation, or if whoever sent it has been disabled.
        """
        ...

    async def ensure(self, user: User, now: float) -> None:
        """Add `user`, or give who has the address its password."""
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

    async def reset_password(
        self, email_key: str, code_hash: bytes, now: float, password_hash: str
    ) -> User | None:
        """Spend one attempt at the code of this address; if it is right, set the password, return whose.

        The sessions of before are void.
        """
        ...

    async def change_password(
        self, user: User, password_hash: str, now: float, *, end_sessions: bool
    ) -> User | None:
        """Set the password, and return the user as it is then; the sessions of before may be void.

        None if the password has changed since `user` was read.
        """
        ...

    async def upgrade_hash(self, user: User, password_hash: str) -> None:
        """Put another hash of the same password in place of the one that `user` was read with."""
        ...

    async def forget_unproven(self, before: float) -> int:
        """Forget those who registered before then and never proved their address; return how many."""
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

    def is_outdated(self, hash_: str) -> bool:
        """Return whether a password would be hashed in another way today."""
        ...


class Sessions(Protocol):
    """Logins, known by tokens of which only hashes are kept."""

    async def create(self, user_id: str, data: Mapping[str, Any]) -> str:
        """Begin a session; return its token, the only copy there is."""
        ...

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off."""
        ...

    async def of_user(self, user_id: str, limit: int) -> list[Session]:
        """Return a user's sessions that are alive, the newest first."""
        ...

    async def delete(self, session_id: str) -> bool:
        """End one session and its sockets; return whether it was there."""
        ...

    async def delete_user(self, user_id: str) -> int:
        """End all sessions of a user and their sockets; return how many."""
        ...


class Mail(Protocol):
    """Hands messages to whoever delivers them."""

    async def send(self, letter: Letter) -> None:
        """Accept a message for delivery; whether it arrives is known later, if ever."""
        ...


class UseCases:
    """What `Accounts` and `PasswordChanges` have in common: what they work with, and how a session begins."""

    def __init__(
        self,
        *,
        users: Users,
        passwords: Passwords,
        rules: PasswordRules,
        sessions: Sessions,
        codes: OneTimeCodes,
        mail: Mail,
        limits: Limits,
        pace: Pace,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._rules = rules
        self._sessions = sessions
        self._codes = codes
        self._mail = mail
        self._limits = limits
        self._pace = pace
        self._clock = clock

    async def begin_session(self, user: User, origin: Origin) -> str:
        """Begin a session for who has just shown to be `user`; return its token.

        Raises:
            ServiceError: The user was disabled, or the password changed, since `user` was read (401). Whoever
                did that has ended the sessions that there were, and must not miss this one.
        """
        token = await self._sessions.create(user.id, origin._asdict() | {"generation": user.generation})
        now = await self._users.by_id(user.id)
        if now is None or now.disabled or now.password_changed_at != user.password_changed_at:
            await self._sessions.delete(session_id_of(token))
            logger.warning("login refused for %s, who has just changed", masked(user.email))
            raise wrong_login()
        return token


class Accounts(UseCases):
    """The use cases."""

    async def register(
        self, email: str, password: str, name: str, address: str, invitation: str | None = None
    ) -> str:
        """Open an account, and send a code to prove the address; with an invitation, that has proved it.

        Returns:
            The registration's id, for `verify_email`; one as good as any if the address has an account.

        Raises:
            RateLimitedError: Too many registrations from this network address, or of this email address.
            ServiceError: The password is known to too many, or the invitation is not valid (400).
        """
        begun_at = self._pace.begin()
        await self._limits.registration(fold(email), address)
        await self._rules.check(password)
        user = User(
            id=secrets.token_hex(16),
            tenant_id=secrets.token_hex(16),
            email=email,
            email_key=fold(email),
            name=name,
            password_hash=await self._passwords.hash(password),
        )
        if invitation is None:
            letter = await self._open_tenant(user)
        else:
            letter = await self._accept(user, invitation)
        logger.info("registration of %s from %s: %s", masked(email), address, letter.subject)
        await self._mail.send(letter)
        await self._pace.even_out(begun_at)
        return user.id

    async def _open_tenant(self, user: User) -> Letter:
        code = self._codes.issue(Purpose.VERIFY_EMAIL, user.email_key, self._clock.wall())
        owner = await self._users.register(user, code)
        return letters.code(user.email, code) if owner is None else letters.known_already(owner.email)

    async def _accept(self, user: User, invitation: str) -> Letter:
        owner = await self._users.join(user, hash_of(invitation), self._clock.wall())
        if owner is None:
            logger.warning("wrong invitation for %s", masked(user.email))
            raise validation_error(
                "The invitation is not valid",
                {"invitation": "wrong, used, expired, or for another address: ask for a new one"},
            )
        return letters.joined(owner.email) if owner.id == user.id else letters.known_already(owner.email)

    async def verify_email(self, email: str, digits: str, registration: str | None, address: str) -> None:
        """Accept the code that was sent to `email`, for its `registration` if that is given.

        Raises:
            RateLimitedError: Too many attempts for this email address, or from this network address.
            ServiceError: The code is wrong, used, replaced, expired, or was never sent (400).
        """
        begun_at, key = self._pace.begin(), fold(email)
        await self._limits.verification(Purpose.VERIFY_EMAIL, key, address)
        code_hash = self._codes.hash_of(Purpose.VERIFY_EMAIL, key, digits)
        if not await self._users.verify(key, code_hash, self._clock.wall(), registration):
            logger.warning("wrong code for %s from %s", masked(email), address)
            await self._pace.even_out(begun_at)
            raise wrong_code()
        logger.info("verified %s from %s", masked(email), address)

    async def send_code(self, purpose: Purpose, email: str, address: str) -> None:
        """Send a new code, if this address may have one; the old one is void.

        It takes as long for an address that may not.

        Raises:
            RateLimitedError: Too many codes for this email address, or from this network address.
        """
        begun_at, key = self._pace.begin(), fold(email)
        await self._limits.code(purpose, key, address)
        code = self._codes.issue(purpose, key, self._clock.wall())
        recipient = await self._users.replace_code(key, code)
        outcome = "sent" if recipient else "not awaited"
        logger.info("code to %s for %s from %s: %s", purpose, masked(email), address, outcome)
        if recipient:
            await self._mail.send(letters.code(recipient, code))
        await self._pace.even_out(begun_at)

    async def login(self, email: str, password: str, origin: Origin, old_token: str | None) -> str:
        """Begin a session, and end the one that the client had until now.

        Returns:
            The new session's token.

        Raises:
            RateLimitedError: Too many attempts; see `Limits.login`.
            ServiceError: The address or the password is wrong, or the user disabled (401); or, told to who
                knows the password, the address is not verified (403).
        """
        begun_at, key = self._pace.begin(), fold(email)
        await self._limits.login(key, origin.address)
        user = await self._users.by_email(key)
        right = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not right or user.disabled:
            logger.warning("login refused for %s from %s", masked(email), origin.address)
            await self._pace.even_out(begun_at)
            raise wrong_login()
        if not user.verified:
            logger.warning("login refused for the unverified %s from %s", masked(email), origin.address)
            raise ServiceError("Please verify your email address first", ErrorCode.FORBIDDEN)
        if self._passwords.is_outdated(user.password_hash):
            await self._users.upgrade_hash(user, await self._passwords.hash(password))
        token = await self.begin_session(user, origin)
        if old_token is not None:
            await self.logout(old_token)
        logger.info("login of %s from %s", masked(email), origin.address)
        return token

    async def logout(self, token: str) -> None:
        """End the session of this token; it is no error if there is none."""
        await self._sessions.delete(session_id_of(token))

    async def logout_everywhere(self, member: Member) -> int:
        """End all sessions of a user; return how many."""
        ended = await self._sessions.delete_user(member.user.id)
        logger.info("logout of %s everywhere: %d sessions", masked(member.user.email), ended)
        return ended

    async def sessions_of(self, member: Member) -> list[Session]:
        """Return where a user is logged in, the newest first."""
        sessions = await self._sessions.of_user(member.user.id, MOST_SESSIONS)
        return [session for session in sessions if counts(session, member.user)]

    async def end_session(self, member: Member, session_id: str) -> None:
        """End one of a user's own sessions.

        Raises:
            ServiceError: The user has no such session (404).
        """
        if session_id not in {session.session_id for session in await self.sessions_of(member)}:
            raise not_found_error("Session")
        await self._sessions.delete(session_id)
        logger.info("session of %s ended by its owner", masked(member.user.email))

    async def member_of(self, token: str) -> Member | None:
        """Return whose session this is, if it lasts."""
        session = await self._sessions.renew(token)
        user = None if session is None else await self._users.by_id(session.user_id)
        if session is None or user is None or user.disabled or not counts(session, user):
            return None
        return Member(user, session)

    async def forget(self) -> None:
        """Forget those who registered long ago and never proved their address."""
        forgotten = await self._users.forget_unproven(self._clock.wall() - UNPROVEN_FOR)
        logger.info("forgot %d registrations whose address was never proved", forgotten)

    async def ensure_demo(self, tenant_id: str, password: str) -> None:
        """Have an account ready for whoever wants to look around: `DEMO`, an administrator of this tenant.

        If it is there already, it gets this password.
        """
        user = User(
            id=secrets.token_hex(16),
            tenant_id=tenant_id,
            email=DEMO,
            email_key=fold(DEMO),
            name="Demo",
            password_hash=await self._passwords.hash(password),
            verified=True,
        )
        await self._users.ensure(user, self._clock.wall())


def counts(session: Session, user: User) -> bool:
    """Return whether nothing has voided a session of this user."""
    return session.data.get("generation") == user.generation


def wrong_code() -> ServiceError:
    """Return the answer to a code that is wrong, for whatever reason."""
    return validation_error(
        "The code is wrong or no longer valid",
        {"code": "wrong or no longer valid: ask for a new one"},
    )


def wrong_login() -> ServiceError:
    """Return the answer to whoever may not log in, for whatever reason."""
    return authentication_error("The email address or the password is wrong")


def masked(identity: str) -> str:
    """Return an identity as it may stand in a log: of an email address, what its owner recognises.

    Example:
        >>> masked("ada@example.com"), masked("192.0.2.1")
        ('a***@example.com', '192.0.2.1')
    """
    local, at, domain = identity.rpartition("@")
    return f"{local[:1]}***@{domain}" if at else identity
