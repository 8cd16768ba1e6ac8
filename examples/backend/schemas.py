"""What clients send, and what they get: the shapes of the HTTP interface, whatever framework speaks it.

Only what is named here is taken from a request; anything else in it is ignored, so no field can be set
that is not meant to be.
"""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, Field
from pydantic_core import PydanticCustomError

from examples.backend.domain.accounts import User
from examples.backend.domain.recordings import NotReady, Recording

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


class StatusCallback(BaseModel):
    """POST /api/webhooks/{tenant}/telephony: what the provider tells when a call has ended."""

    call_sid: Annotated[str, Field(alias="CallSid", pattern="^[A-Za-z0-9]{1,64}$")]
    status: Annotated[Literal["completed", "failed", "busy", "no-answer"], Field(alias="Status")]
    date_updated: Annotated[str, Field(alias="DateUpdated", max_length=32)] = ""


def user_body(user: User) -> dict[str, Any]:
    """Return what a user sees of the own account."""
    return {"id": user.id, "email": user.email, "name": user.name, "emailVerified": user.verified}


def recording_body(recording: Recording) -> dict[str, Any]:
    """Return what there is to know of a recording, and where to hear it."""
    call, sound = recording.call, recording.sound
    return {
        "status": "stored",
        "callSid": call.sid,
        "from": call.from_number,
        "to": call.to_number,
        "direction": call.direction,
        "startedAt": timestamp(call.started_at),
        "durationSeconds": call.duration,
        "contentType": sound.content_type,
        "size": sound.size,
        "sha256": sound.sha256,
        "storedAt": timestamp(recording.stored_at),
        "sound": f"/api/recordings/{call.sid}/sound",
    }


def not_ready_body(pending: NotReady) -> dict[str, Any]:
    """Return that a recording may still come, and when to look again."""
    return {"status": "processing", "callSid": pending.call_sid, "retryAfter": pending.retry_after}


def timestamp(unix_seconds: float | None) -> str | None:
    """Return an instant as ISO 8601 has it, in UTC.

    Example:
        >>> timestamp(1736937000.0)
        '2025-01-15T10:30:00Z'
    """
    if unix_seconds is None:
        return None
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
