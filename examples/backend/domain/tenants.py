"""Tenants: who belongs to one, who runs it, and where its webhooks come.

The rules:

- Everything is asked and done by a member, within the member's own tenant. Another tenant's things are not
  found, like those that do not exist.
- Whoever runs a tenant invites others by mail. An invitation is bound to the address that it was sent to,
  works once, within seven days, and only its hash is kept. It is void while whoever sent it is disabled, who
  would come back by it under another name. It is answered alike whether or not the address has an account,
  here or elsewhere.
- Whoever is disabled is logged out at once, everywhere. The last administrator cannot be.
- The webhooks' address has an unguessable part. A new one voids the old one and its signing secret; it is
  shown once, and only its hash is kept. The signing secret is made of the backend's secret whenever it is
  needed, so it is not kept at all.
"""

from __future__ import annotations

import base64
import enum
import hmac
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from examples.backend.domain import letters
from examples.backend.domain.accounts import masked
from examples.backend.domain.tokens import hash_of, new_token
from resilience import conflict_error, fold, not_found_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from examples.backend.domain.accounts import Mail, Member, Role, Sessions, User
    from examples.backend.domain.limits import Limits
    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.tenants")

INVITED_FOR: Final = 7 * 86_400.0
"""Seconds."""
PAGE: Final = 100
"""Users in one answer."""


class SigningSecrets:
    """The secrets that tenants' webhooks are signed with: Standard Webhooks' `whsec_` and 32 bytes in base64.

    They are made of one key whenever they are needed, so none is stored. They change with the webhooks'
    address: each has a version.

    Args:
        key: For this purpose only; at least 32 bytes.

    Example:
        >>> signing = SigningSecrets(b"k" * 32)
        >>> signing.of("a tenant", 1)[:12], signing.of("a tenant", 1) == signing.of("a tenant", 2)
        ('whsec_O1tzDu', False)
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, tenant_id: str, version: int) -> str:
        """Return the secret of a tenant while its webhooks' address has this version."""
        made = hmac.digest(self._key, f"{tenant_id}\0{version}".encode(), "sha256")
        return f"whsec_{base64.b64encode(made).decode()}"


class WebhookAddress(NamedTuple):
    """What an administrator is shown, once."""

    secret: str
    """The part of the address that nobody can guess."""
    signing_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What is kept of an invitation."""

    hash: str
    tenant_id: str
    email: str
    """As it was typed: the invitation is sent there, so that is the address which it proves."""
    email_key: str
    role: Role
    inviter_id: str
    expires_at: float
    """Unix seconds."""


class Page(NamedTuple):
    """A part of a tenant's users, in the order of their addresses."""

    users: list[User]
    after: str | None
    """What to ask with for those that follow; None if these are the last."""


class Switched(enum.Enum):
    """What has become of a user who was to be disabled or enabled."""

    DONE = enum.auto()
    NOT_FOUND = enum.auto()
    LAST_ADMINISTRATOR = enum.auto()


class Tenants(Protocol):
    """The tenants and those who belong to them. Each method is one transaction."""

    async def name_of(self, tenant_id: str) -> str:
        """Return a tenant's name."""
        ...

    async def users_of(self, tenant_id: str, after: str, limit: int) -> list[User]:
        """Return users by their `email_key`, from the first one beyond `after`."""
        ...

    async def user_of(self, tenant_id: str, user_id: str) -> User | None:
        """Return one of a tenant's users."""
        ...

    async def switch(self, tenant_id: str, user_id: str, disabled_at: float | None) -> Switched:
        """Disable a user, unless no administrator would be left, or enable one.

        The sessions of one who was disabled are void.
        """
        ...

    async def invite(self, invitation: Invitation, now: float) -> None:
        """Keep an invitation, in place of older ones for the address; forget the expired ones."""
        ...

    async def put_webhook(self, tenant_id: str, webhook_hash: str) -> int:
        """Give the webhooks another address; return its version."""
        ...

    async def webhook_version(self, tenant_id: str) -> int:
        """Return the version of the webhooks' address."""
        ...


class Administration:
    """The use cases of those who belong to a tenant, and of those who run it: routes let only these in."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        sessions: Sessions,
        signing: SigningSecrets,
        mail: Mail,
        limits: Limits,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._tenants = tenants
        self._sessions = sessions
        self._signing = signing
        self._mail = mail
        self._limits = limits
        self._clock = clock

    async def name(self, member: Member) -> str:
        """Return the name of the member's tenant."""
        return await self._tenants.name_of(member.user.tenant_id)

    async def users(self, member: Member, after: str = "") -> Page:
        """Return users of the member's tenant."""
        users = await self._tenants.users_of(member.user.tenant_id, after, PAGE + 1)
        return Page(users[:PAGE], users[PAGE - 1].email_key if len(users) > PAGE else None)

    async def invite(self, member: Member, email: str, role: Role) -> None:
        """Invite whoever reads the mail of an address.

        Raises:
            RateLimitedError: Too many invitations by this tenant, or for this address.
        """
        tenant_id, now = member.user.tenant_id, self._clock.wall()
        await self._limits.invitation(tenant_id, fold(email))
        token = new_token()
        invitation = Invitation(
            hash=hash_of(token),
            tenant_id=tenant_id,
            email=email,
            email_key=fold(email),
            role=role,
            inviter_id=member.user.id,
            expires_at=now + INVITED_FOR,
        )
        await self._tenants.invite(invitation, now)
        logger.info("%s was invited as %s by %s", masked(email), role, masked(member.user.email))
        await self._mail.send(letters.invited(email, member.user.email, token, INVITED_FOR))

    async def disable(self, member: Member, user_id: str) -> User:
        """Keep a user out from now on, and end all sessions.

        Raises:
            ServiceError: The tenant has no such user (404), or no administrator would be left (409).
        """
        user = await self._switch(member, user_id, self._clock.wall())
        await self._sessions.delete_user(user_id)
        return user

    async def enable(self, member: Member, user_id: str) -> User:
        """Let a user in again.

        Raises:
            ServiceError: The tenant has no such user (404).
        """
        return await self._switch(member, user_id, None)

    async def _switch(self, member: Member, user_id: str, disabled_at: float | None) -> User:
        tenant_id = member.user.tenant_id
        switched = await self._tenants.switch(tenant_id, user_id, disabled_at)
        if switched is Switched.LAST_ADMINISTRATOR:
            raise conflict_error("The last administrator of a tenant cannot be disabled")
        user = await self._tenants.user_of(tenant_id, user_id)
        if switched is Switched.NOT_FOUND or user is None:
            raise not_found_error("User")
        done = "enabled" if disabled_at is None else "disabled"
        logger.info("%s was %s by %s", masked(user.email), done, masked(member.user.email))
        return user

    async def new_webhook(self, member: Member) -> WebhookAddress:
        """Give the tenant's webhooks another address; the old one, and its signing secret, are void."""
        tenant_id, secret = member.user.tenant_id, new_token()
        version = await self._tenants.put_webhook(tenant_id, hash_of(secret))
        logger.info("webhook address number %d was made by %s", version, masked(member.user.email))
        return WebhookAddress(secret, self._signing.of(tenant_id, version))

    async def signing_secret(self, tenant_id: str) -> str:
        """Return what signed webhooks of a tenant are signed with at present."""
        return self._signing.of(tenant_id, await self._tenants.webhook_version(tenant_id))
