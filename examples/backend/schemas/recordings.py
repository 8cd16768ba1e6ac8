"""Recordings and webhooks: what clients and the provider send, and what clients get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from examples.backend.domain.recordings import NotReady, Recording
from examples.backend.schemas import timestamp


class StatusCallback(BaseModel):
    """POST /api/webhooks/{secret}/telephony: what the provider tells when a call has ended."""

    call_sid: Annotated[str, Field(alias="CallSid", pattern="^[A-Za-z0-9]{1,64}$")]
    status: Annotated[Literal["completed", "failed", "busy", "no-answer"], Field(alias="Status")]
    date_updated: Annotated[str, Field(alias="DateUpdated", max_length=32)] = ""


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
