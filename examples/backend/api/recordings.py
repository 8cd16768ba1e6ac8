"""Recordings of calls: fetched, told about, and heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.backend.api.http import Reply, Route
from examples.backend.domain.recordings import NotReady
from examples.backend.schemas.recordings import not_ready_body, recording_body

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

ACCEPTED: Final = 202
CALL_SID: Final = {"call_sid": "[A-Za-z0-9]{1,64}"}


async def show_recording(backend: Backend, request: Request) -> Reply:
    """Bring the recording of a call into the store, and tell about it."""
    recording = await backend.recordings.fetch(request.parameters["call_sid"], request.member.user.tenant_id)
    if isinstance(recording, NotReady):
        return come_back(recording)
    return Reply(content=recording_body(recording))


async def play_recording(backend: Backend, request: Request) -> Reply:
    """Bring the recording of a call into the store, and play it."""
    recording = await backend.recordings.fetch(request.parameters["call_sid"], request.member.user.tenant_id)
    if isinstance(recording, NotReady):
        return come_back(recording)
    headers = {
        "Content-Length": str(recording.sound.size),
        "Content-Disposition": f'attachment; filename="{recording.call.sid}"',
        "X-Content-Type-Options": "nosniff",
    }
    sound = await backend.recordings.sound(recording)
    return Reply(content=sound, media_type=recording.sound.content_type, headers=headers)


def come_back(pending: NotReady) -> Reply:
    """Answer that the recording may still come: 202, since nothing has failed."""
    return Reply(
        status=ACCEPTED,
        content=not_ready_body(pending),
        headers={"Retry-After": f"{pending.retry_after:.0f}"},
    )


ROUTES: Final = (
    Route(method="GET", path="/api/recordings/{call_sid}", handler=show_recording, patterns=CALL_SID),
    Route(method="GET", path="/api/recordings/{call_sid}/sound", handler=play_recording, patterns=CALL_SID),
)
