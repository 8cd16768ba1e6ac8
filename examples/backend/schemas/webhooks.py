"""Webhooks: what the provider and others send, and what they get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

CallSid = Annotated[str, Field(pattern="^[A-Za-z0-9]{1,64}$")]


class StatusCallback(BaseModel):
    """POST /api/webhooks/{secret}/telephony: what the provider tells when a call has ended."""

    call_sid: Annotated[CallSid, Field(alias="CallSid")]
    status: Annotated[Literal["completed", "failed", "busy", "no-answer"], Field(alias="Status")]
    date_updated: Annotated[str, Field(alias="DateUpdated", pattern="^[ -~]{0,32}$")] = ""


class SignedEvent(BaseModel):
    """POST /api/webhooks/{secret}/signed, in the form that Standard Webhooks advises."""

    type: Annotated[str, Field(max_length=100, examples=["call.completed", "recording.delete"])]
    data: dict[str, Any] = {}


class CallData(BaseModel):
    """The `data` of the events that we know."""

    call_sid: Annotated[CallSid, Field(alias="callSid")]


class Accepted(BaseModel):
    """The delivery was taken; whether it was the first of its kind is nobody's concern."""

    accepted: Literal[True]
