"""Passwords: which ones are taken, and how they are changed.

The rules:

- Length is what counts: at least 8 characters, better 15 or more, at most 1,024; none is cut off, none must
  be of a certain kind. A password that is among the commonest, or is known to have leaked, is refused.
- Where leaked passwords are looked up elsewhere, that service's absence keeps nobody out.
- To change a password one needs the current one, or a code that was sent to the account's address. The owner
  is told by mail in any case.
- After a change the caller has a new session, and may end all others; after a reset all have ended.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from examples.backend.domain import letters
from examples.backend.domain.accounts import UseCases, masked, wrong_code
from examples.backend.domain.codes import Purpose
from resilience import conflict_error, fold, validation_error

if TYPE_CHECKING:
    from examples.backend.domain.accounts import Member, Origin

logger: Final = logging.getLogger("backend.accounts")

SHORTEST: Final = 8
ADVISED: Final = 15
LONGEST: Final = 1024
"""Characters."""


class KnownPasswords(Protocol):
    """Passwords that too many know."""

    async def has(self, password: str) -> bool:
        """Return whether `password` is one of them."""
        ...


class PasswordRules:
    """Tells whether a new password is taken.

    Args:
        common: Those that many people use.
        breached: Those that have leaked from elsewhere; None if nobody can be asked.
    """

    def __init__(self, common: KnownPasswords, breached: KnownPasswords | None = None) -> None:
        self._common = common
        self._breached = breached

    async def check(self, password: str, field: str = "password") -> None:
        """Let a password pass.

        Args:
            password: To be used from now on.
            field: Where it stands in the request, for the answer.

        Raises:
            ServiceError: It is too short, too long, or known to too many (400); says which.
        """
        reason = None
        if len(password) < SHORTEST:
            reason = f"too short: use at least {SHORTEST} characters, better {ADVISED} or more"
        elif len(password) > LONGEST:
            reason = f"too long: use at most {LONGEST} characters"
        elif await self._common.has(password):
            reason = f"too common: it is guessed first; {ADVISED} characters or more are better"
        elif self._breached is not None and await self._breached.has(password):
            reason = "it has leaked from another service and is tried by attackers: choose another one"
        if reason is not None:
            raise validation_error("This password cannot be used", {field: reason})


class PasswordChanges(UseCases):
    """The use cases."""

    async def change(
        self, member: Member, current: str, new: str, origin: Origin, *, end_others: bool
    ) -> str:
        """Change the password of somebody who knows the current one; return the token of a new session.

        Args:
            member: Whose password it is. The session that this came with ends.
            current: The password until now.
            new: The password from now on.
            origin: Where the new session begins.
            end_others: Whether the user's other sessions end too.

        Raises:
            RateLimitedError: Too many attempts for this user.
            ServiceError: The current password is wrong, or the new one cannot be used (400), or it has
                changed meanwhile (409).
        """
        user = member.user
        await self._limits.password(user.id)
        if not await self._passwords.verify(current, user.password_hash):
            logger.warning("password change refused for %s from %s", masked(user.email), origin.address)
            raise validation_error("The current password is wrong", {"currentPassword": "wrong"})
        await self._rules.check(new, "newPassword")
        new_hash = await self._passwords.hash(new)
        changed = await self._users.change_password(
            user, new_hash, self._clock.wall(), end_sessions=end_others
        )
        if changed is None:
            raise conflict_error("The password has just been changed by somebody else")
        logger.info("password of %s changed from %s", masked(user.email), origin.address)
        try:
            if end_others:
                await self._sessions.delete_user(user.id)
            else:
                await self._sessions.delete(member.session.session_id)
        finally:
            await self._mail.send(letters.password_changed(user.email))
        return await self.begin_session(changed, origin)

    async def reset(self, email: str, digits: str, new: str, address: str) -> None:
        """Set a new password by the code that was sent to `email`, and end all sessions.

        Raises:
            RateLimitedError: Too many attempts for this email address, or from this network address.
            ServiceError: The code is wrong, used, replaced, expired, or was never sent, or the password
                cannot be used (400).
        """
        begun_at, key = self._pace.begin(), fold(email)
        await self._limits.verification(Purpose.RESET_PASSWORD, key, address)
        await self._rules.check(new)
        new_hash = await self._passwords.hash(new)  # before the code is spent, since this may be refused
        code_hash = self._codes.hash_of(Purpose.RESET_PASSWORD, key, digits)
        user = await self._users.reset_password(key, code_hash, self._clock.wall(), new_hash)
        if user is None:
            logger.warning("password reset refused for %s from %s", masked(email), address)
            await self._pace.even_out(begun_at)
            raise wrong_code()
        logger.info("password of %s reset from %s", masked(email), address)
        try:
            await self._sessions.delete_user(user.id)
        finally:
            await self._mail.send(letters.password_changed(user.email))
