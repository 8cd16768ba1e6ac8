"""Recordings: what clients ask for, and what they get."""

# pydantic reads the annotations at run time, so there is no `from __future__ import annotations` here.

import base64
import math
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from examples.backend.domain.recordings import Entry, NotReady, Position, Recording
from examples.backend.schemas import timestamp
from resilience import validation_error

State = Literal["expected", "fetching", "stored", "missing", "failed"]
CURSOR: Final = re.compile(r"([0-9.e+-]{1,32}) ([A-Za-z0-9]{1,64})", re.ASCII)


class RecordingSearch(BaseModel):
    """GET /api/recordings: which, and how many at a time."""

    state: Annotated[State | None, Field(description="What has become of the recording.")] = None
    q: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")] | None,
        Field(description="A part of a number, or the beginning of a call's id."),
    ] = None
    since: Annotated[
        AwareDatetime | None, Field(alias="from", description="When the call began, at the earliest.")
    ] = None
    until: Annotated[AwareDatetime | None, Field(alias="to", description="And at the latest.")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[
        Annotated[str, StringConstraints(max_length=200)] | None,
        Field(description="As `next` of the page before."),
    ] = None

    def position(self) -> Position | None:
        """Return where the page begins; None at the beginning.

        Raises:
            ServiceError: The cursor is none of ours (400).
        """
        return None if self.cursor is None else _position_of(self.cursor)


class RecordingBody(BaseModel):
    """A recording that is in the store."""

    status: Literal["stored"]
    callSid: str  # noqa: N815 - as JSON has it, here and below
    from_: Annotated[str, Field(alias="from")]
    to: str
    direction: str
    startedAt: str | None  # noqa: N815
    durationSeconds: int | None  # noqa: N815
    contentType: str  # noqa: N815
    size: int
    sha256: str
    storedAt: str  # noqa: N815
    sound: Annotated[str, Field(description="Where to hear it.")]


class NotReadyBody(BaseModel):
    """A recording that may still come."""

    status: Literal["processing"]
    callSid: str  # noqa: N815
    retryAfter: float  # noqa: N815


class CallBody(BaseModel):
    """A call in the list, whatever has become of its recording."""

    callSid: str  # noqa: N815
    state: State
    callStatus: str | None  # noqa: N815
    from_: Annotated[str | None, Field(alias="from")]
    to: str | None
    direction: str | None
    startedAt: str | None  # noqa: N815
    durationSeconds: int | None  # noqa: N815
    contentType: str | None  # noqa: N815
    size: int | None
    failure: Annotated[str | None, Field(description="Why there is no recording.")]
    announcedAt: str  # noqa: N815


class CallPage(BaseModel):
    """A page of calls, those that were announced last before the others."""

    recordings: list[CallBody]
    next: Annotated[str | None, Field(description="The cursor of the next page; null on the last.")]


class Ticketed(BaseModel):
    """GET /api/recordings/{call_sid}/download: what the address carries in place of a login."""

    ticket: Annotated[str, Field(max_length=1024)]


class DownloadUrl(BaseModel):
    """An address that opens a recording without a login, for a while."""

    url: str
    expiresAt: str  # noqa: N815


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


def call_body(entry: Entry) -> dict[str, Any]:
    """Return what there is to know of a call in the list."""
    return {
        "callSid": entry.call_sid,
        "state": entry.state,
        "callStatus": entry.status,
        "from": entry.from_number,
        "to": entry.to_number,
        "direction": entry.direction,
        "startedAt": timestamp(entry.started_at),
        "durationSeconds": entry.duration,
        "contentType": entry.content_type,
        "size": entry.size,
        "failure": entry.failure,
        "announcedAt": timestamp(entry.created_at),
    }


def cursor_of(position: Position | None) -> str | None:
    """Return what stands for a place in the list. It opens nothing: who makes one up sees their own calls.

    Example:
        >>> cursor_of(Position(1736937000.25, "c0ffee1"))
        'MTczNjkzNzAwMC4yNSBjMGZmZWUx'
        >>> _position_of('MTczNjkzNzAwMC4yNSBjMGZmZWUx')
        Position(created_at=1736937000.25, call_sid='c0ffee1')
    """
    if position is None:
        return None
    text = f"{position.created_at!r} {position.call_sid}"
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def seconds_of(instant: datetime | None) -> float | None:
    """Return Unix seconds."""
    return None if instant is None else instant.timestamp()


def _position_of(cursor: str) -> Position:
    refusal = validation_error("The cursor is none of ours", {"cursor": "take it from the page before"})
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        matched = CURSOR.fullmatch(text)
        created_at = float(matched[1]) if matched else math.nan
    except ValueError:
        raise refusal from None
    if matched is None or not math.isfinite(created_at):
        raise refusal
    return Position(created_at, matched[2])
