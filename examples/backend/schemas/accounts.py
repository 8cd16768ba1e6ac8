"""Accounts: what clients send, and what they get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AliasChoices, BaseModel, Field
from pydantic_core import PydanticCustomError

from examples.backend.domain.accounts import User

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


Email = Annotated[str, AfterValidator(_email)]
NewPassword = Annotated[str, Field(min_length=8, max_length=1024)]
AnyPassword = Annotated[str, Field(min_length=1, max_length=1024)]
"""A longer one is refused before it is hashed, and none was ever accepted."""


class Registration(BaseModel):
    """POST /api/auth/register."""

    email: Email
    password: NewPassword
    name: Annotated[str, Field(max_length=100)] = ""


class Login(BaseModel):
    """POST /api/auth/login."""

    email: Email
    password: AnyPassword


class Verification(BaseModel):
    """POST /api/auth/verify-email."""

    email: Email
    code: Annotated[
        str,
        Field(pattern="^[0-9]{6}$", validation_alias=AliasChoices("code", "otp"), description="Six digits."),
    ]
    registration: Annotated[str | None, Field(max_length=100, description="As registering answered.")] = None


class Resend(BaseModel):
    """POST /api/auth/resend-otp."""

    email: Email


def user_body(user: User) -> dict[str, Any]:
    """Return what a user sees of the own account."""
    return {"id": user.id, "email": user.email, "name": user.name, "emailVerified": user.verified}
