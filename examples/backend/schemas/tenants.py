"""Tenants: what clients send, and what they get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from examples.backend.domain.accounts import User
from examples.backend.domain.tenants import Page
from examples.backend.schemas import Shown
from examples.backend.schemas.accounts import Email, OneLine


class UsersQuery(BaseModel):
    """GET /api/tenant/users."""

    after: Annotated[OneLine, Field(max_length=1000, description="As the answer before said.")] = ""


class InvitationRequest(BaseModel):
    """POST /api/tenant/invitations."""

    email: Email
    role: Literal["administrator", "member"] = "member"


class TenantShown(Shown):
    """The own tenant."""

    id: str
    name: str
    role: str
    """The own role in it."""


class UserShown(Shown):
    """Somebody of the same tenant."""

    id: str
    email: str
    name: str
    role: str
    disabled: bool

    @classmethod
    def of(cls, user: User) -> Self:
        """Return what is shown of a user."""
        return cls(id=user.id, email=user.email, name=user.name, role=user.role, disabled=user.disabled)


class UserList(Shown):
    """A part of a tenant's users, in the order of their addresses."""

    users: list[UserShown]
    after: str | None
    """What to ask with for those that follow; null if these are the last."""

    @classmethod
    def of(cls, page: Page) -> Self:
        """Return what is shown of a page."""
        return cls(users=[UserShown.of(user) for user in page.users], after=page.after)


class WebhookShown(Shown):
    """Shown once: only hashes are kept."""

    url: str
    """Where the telephony provider's status callbacks go."""
    signed_url: str
    """Where webhooks go that are signed as Standard Webhooks says."""
    signing_secret: str
