"""Accounts: what clients send, and what they get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

import re
from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, Field
from pydantic_core import PydanticCustomError

from examples.backend.domain.accounts import User
from examples.backend.domain.passwords import ADVISED, LONGEST, SHORTEST
from examples.backend.schemas import Shown, timestamp
from resilience.janitor.sessions import Session

ADDRESS: Final = re.compile(
    r"""(?!.*=\?)[^@\s<>()\[\],;:\\"]+@[^@\s<>()\[\],;:\\"]+\.[^@\s<>()\[\],;:\\".]+"""
)
"""Loose on purpose: only the code in the mail proves an address. It keeps out what could forge a header,
encoded words (RFC 2047) included: they would be decoded to an address that nobody has checked."""
MAX_ADDRESS: Final = 254
"""Characters; RFC 5321 allows a path of 256 with its angle brackets."""


def _email(text: str) -> str:
    if len(text) > MAX_ADDRESS or not text.isprintable() or not ADDRESS.fullmatch(text):
        raise PydanticCustomError("email", "this is not an email address")
    return text


def _new_password(text: str) -> str:
    if not SHORTEST <= len(text) <= LONGEST:
        raise PydanticCustomError(
            "password",
            "use at least {shortest} characters, better {advised} or more, and at most {longest}",
            {"shortest": SHORTEST, "advised": ADVISED, "longest": LONGEST},
        )
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("text", "use letters, digits, signs and spaces only")
    return text


OneLine = Annotated[str, AfterValidator(_printable)]
"""Without what ends a line or does worse in a log, a mail or a terminal; not every database holds a NUL."""
Email = Annotated[
    str, AfterValidator(_email), Field(json_schema_extra={"format": "email", "maxLength": MAX_ADDRESS})
]
NewPassword = Annotated[
    str,
    AfterValidator(_new_password),
    Field(json_schema_extra={"minLength": SHORTEST, "maxLength": LONGEST}),
]
AnyPassword = Annotated[str, Field(min_length=1, max_length=LONGEST)]
"""A longer one is refused before it is hashed, and none was ever accepted."""
Code = Annotated[
    str,
    Field(pattern="^[0-9]{6}$", validation_alias=AliasChoices("code", "otp"), description="Six digits."),
]


class Registration(BaseModel):
    """POST /api/auth/register."""

    email: Email
    password: NewPassword
    name: Annotated[OneLine, Field(max_length=100)] = ""
    invitation: Annotated[str | None, Field(max_length=100, description="As the mail has it.")] = None


class Registered(Shown):
    """Whether or not the address has an account."""

    message: str
    registration: str


class Login(BaseModel):
    """POST /api/auth/login."""

    email: Email
    password: AnyPassword


class LoggedIn(Shown):
    """A session has begun."""

    token: str


class Verification(BaseModel):
    """POST /api/auth/verify-email."""

    email: Email
    code: Code
    registration: Annotated[str | None, Field(max_length=100, description="As registering answered.")] = None


class CodeRequest(BaseModel):
    """POST /api/auth/resend-otp and /api/auth/forgot-password."""

    email: Email


class PasswordChange(BaseModel):
    """POST /api/auth/password."""

    current_password: Annotated[AnyPassword, Field(alias="currentPassword")]
    new_password: Annotated[NewPassword, Field(alias="newPassword")]
    end_others: Annotated[
        bool, Field(alias="endOthers", strict=True, description="Whether all other sessions end too.")
    ] = False


class PasswordReset(BaseModel):
    """POST /api/auth/reset-password."""

    email: Email
    code: Code
    password: NewPassword


class Account(Shown):
    """What a user sees of the own account."""

    id: str
    email: str
    name: str
    email_verified: bool
    role: str

    @classmethod
    def of(cls, user: User) -> Self:
        """Return what is shown of a user."""
        return cls(id=user.id, email=user.email, name=user.name, email_verified=user.verified, role=user.role)


class SessionShown(Shown):
    """Where a user is logged in."""

    id: str
    device: str
    address: str
    created_at: str
    expires_at: str
    current: bool
    """Whether it is the one that asks."""


class SessionList(Shown):
    """All that are alive, the newest first."""

    sessions: list[SessionShown]

    @classmethod
    def of(cls, sessions: Sequence[Session], current: str) -> Self:
        """Return what is shown of sessions, of which the one with the id `current` asks."""
        return cls(
            sessions=[
                SessionShown(
                    id=session.session_id,
                    device=session.data.get("device", ""),
                    address=session.data.get("address", ""),
                    created_at=timestamp(session.created_at),
                    expires_at=timestamp(session.expires_at),
                    current=session.session_id == current,
                )
                for session in sessions
            ]
        )
