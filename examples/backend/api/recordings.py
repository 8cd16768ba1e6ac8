"""Recordings of calls: listed, fetched, told about, heard, handed on and deleted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from examples.backend.api.http import Access, Reply, Route
from examples.backend.domain.recordings import URL_LIFETIME, NotReady, Search, file_name
from examples.backend.domain.tickets import LIFETIME, Purpose
from examples.backend.schemas import timestamp
from examples.backend.schemas.recordings import (
    CallPage,
    DownloadUrl,
    NotReadyBody,
    RecordingBody,
    RecordingSearch,
    Ticketed,
    call_body,
    cursor_of,
    not_ready_body,
    recording_body,
    seconds_of,
)
from resilience import ErrorCode, ServiceError
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from pydantic import BaseModel

    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend
    from examples.backend.domain.recordings import Recording

ACCEPTED: Final = 202
NO_CONTENT: Final = 204
PARTIAL: Final = 206
CALL_SID: Final = {"call_sid": "[A-Za-z0-9]{1,64}"}
RANGE: Final = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)
NOT_SATISFIABLE: Final = ErrorCode("RANGE_NOT_SATISFIABLE", 416, "The recording has no such part")


async def list_recordings(backend: Backend, request: Request) -> Reply:
    """List the calls of the tenant, page by page; those that were announced last come first."""
    asked: RecordingSearch = request.query
    search = Search(
        state=asked.state, text=asked.q, since=seconds_of(asked.since), until=seconds_of(asked.until)
    )
    entries, following = await backend.recordings.page(
        request.member.user.tenant_id, search, asked.position(), asked.limit
    )
    return Reply(content={"recordings": list(map(call_body, entries)), "next": cursor_of(following)})


async def show_recording(backend: Backend, request: Request) -> Reply:
    """Bring the recording of a call into the store, unless it is there, and tell about it."""
    recording = await backend.recordings.fetch(request.parameters["call_sid"], request.member.user.tenant_id)
    if isinstance(recording, NotReady):
        return come_back(recording)
    return Reply(content=recording_body(recording))


async def play_recording(backend: Backend, request: Request) -> Reply:
    """Bring the recording of a call into the store, unless it is there, and play it."""
    recording = await backend.recordings.fetch(request.parameters["call_sid"], request.member.user.tenant_id)
    if isinstance(recording, NotReady):
        return come_back(recording)
    return await play(backend, request, recording)


async def make_download_url(backend: Backend, request: Request) -> Reply:
    """Return an address that opens a stored recording without a login, for a while.

    It is the store's own where it has such, or one of ours with a ticket in it.
    """
    member, call_sid = request.member, request.parameters["call_sid"]
    recording = await backend.recordings.stored(call_sid, member.user.tenant_id)
    now = SYSTEM_CLOCK.wall()
    url = await backend.recordings.url(recording)
    if url is not None:
        return Reply(content={"url": url, "expiresAt": timestamp(now + URL_LIFETIME)})
    ticket = backend.tickets.issue(member, Purpose.DOWNLOAD, call_sid)
    own = f"{backend.settings.public_url}/api/recordings/{call_sid}/download?ticket={ticket}"
    return Reply(content={"url": own, "expiresAt": timestamp(now + LIFETIME)})


async def download_recording(backend: Backend, request: Request) -> Reply:
    """Play a stored recording to whoever has a ticket for it."""
    call_sid = request.parameters["call_sid"]
    ticket = await backend.tickets.redeem(request.query.ticket, Purpose.DOWNLOAD, call_sid)
    recording = await backend.recordings.stored(call_sid, ticket.tenant_id)
    return await play(backend, request, recording)


async def delete_recording(backend: Backend, request: Request) -> Reply:
    """Delete a recording for good, and what is known of its call. Deleting it again changes nothing."""
    await backend.recordings.delete(request.parameters["call_sid"], request.member.user.tenant_id)
    return Reply(status=NO_CONTENT, media_type=None)


async def play(backend: Backend, request: Request, recording: Recording) -> Reply:
    """Answer with the sound of a recording, or with the part of it that is asked for."""
    size = recording.sound.size
    part = part_of(request.incoming.headers.get("range"), size)
    name = file_name(recording.call.sid, recording.sound)
    headers = {
        "Content-Length": str(size if part is None else len(part)),
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    sound = await backend.recordings.sound(recording, part)
    status = 200 if part is None else PARTIAL
    return Reply(status=status, content=sound, media_type=recording.sound.content_type, headers=headers)


def part_of(header: str | None, size: int) -> range | None:
    """Return which part of something a header Range asks for; None for the whole.

    One part is understood, which is what players ask for; anything else is answered with the whole, as
    RFC 9110 allows.

    Raises:
        ServiceError: There is no such part (416).

    Example:
        >>> part_of("bytes=10-", 50), part_of("bytes=-5", 50), part_of("bytes=0-1,4-5", 50)
        (range(10, 50), range(45, 50), None)
    """
    matched = RANGE.fullmatch(header or "")
    if matched is None:
        return None
    first, last, length = matched.groups()
    if length is not None:
        part = range(max(0, size - int(length)), size)
    else:
        part = range(int(first), min(size, int(last) + 1) if last else size)
        if last and int(last) < int(first):
            return None
    if not part:
        raise ServiceError(code=NOT_SATISFIABLE)
    return part


def come_back(pending: NotReady) -> Reply:
    """Answer that the recording may still come: 202, since nothing has failed."""
    return Reply(
        status=ACCEPTED,
        content=not_ready_body(pending),
        headers={"Retry-After": f"{pending.retry_after:.0f}"},
    )


SOUND: Final[dict[int, type[BaseModel] | str | None]] = {200: "audio/*", 202: NotReadyBody, 206: "audio/*"}
FETCHING: Final = (404, 502, 503, 504)
PLAYERS_ASK: Final = {"Range": "Which part of the sound, as players ask: `bytes=0-1023`."}
ROUTES: Final = (
    Route(method="GET", path="/api/recordings", handler=list_recordings, query=RecordingSearch,
          answers={200: CallPage}, errors=(400,)),
    Route(method="GET", path="/api/recordings/{call_sid}", handler=show_recording, patterns=CALL_SID,
          answers={200: RecordingBody, 202: NotReadyBody}, errors=FETCHING),
    Route(method="GET", path="/api/recordings/{call_sid}/sound", handler=play_recording, patterns=CALL_SID,
          headers=PLAYERS_ASK, answers=SOUND, errors=(*FETCHING, 416)),
    Route(method="POST", path="/api/recordings/{call_sid}/download-url", handler=make_download_url,
          patterns=CALL_SID, answers={200: DownloadUrl}, errors=(404,)),
    Route(method="GET", path="/api/recordings/{call_sid}/download", handler=download_recording,
          access=Access.ANYBODY, patterns=CALL_SID, query=Ticketed, headers=PLAYERS_ASK,
          answers={200: "audio/*", 206: "audio/*"}, errors=(401, 404, 416, 502, 503)),
    Route(method="DELETE", path="/api/recordings/{call_sid}", handler=delete_recording, patterns=CALL_SID,
          status=NO_CONTENT, answers={204: None}, errors=(404,)),
)  # fmt: skip
