"""Call recordings: what people do with them.

The rules:

- A call belongs to one tenant: the one through whose webhooks it was announced, or who first asked for it. To
  all others it does not exist.
- Whoever asks for a recording that is not in the store has it brought now, by the same steps as the workers
  (`bringing`), and shares a fetch that is under way. Should two processes fetch it, the one that ends first
  counts.
- A recording that is not there yet is no failure: the caller is told when to look again, and from then on the
  workers look too.
- How many listen to sounds at the same time is bounded: a slow listener costs memory for hours, and under
  WSGI a thread. Who finds no place may come back, or take the store's own address.
- What is deleted stays deleted, whatever is on its way for it: a mark stays in its place, and the object is
  removed at once and once more when nobody can be storing it any longer (`jobs`).
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from resilience import not_found_error, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from examples.backend.domain.bringing import Bringer
    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.recordings")

URL_LIFETIME: Final = 300.0
"""Seconds for which an address of the store's own opens a recording: a download is begun at once, but a
player asks for more of it while it plays."""

LISTENERS: Final = 200
"""Who may listen at the same time in a process."""
COME_BACK: Final = 5.0
"""Seconds after which a place may be free."""
ENDINGS: Final = {"audio/mpeg": ".mp3", "audio/mp3": ".mp3"}
"""Of file names; what is no MP3 is a WAV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call, as the provider tells it."""

    sid: str
    status: str
    from_number: str
    to_number: str
    direction: str
    started_at: float | None
    """Unix seconds."""
    ended_at: float | None
    duration: int | None
    """Seconds."""
    recording_url: str | None
    line: str = ""
    """Our number, by which the provider sent or took the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A recording, just downloaded and checked."""

    content_type: str
    size: int
    sha256: str
    md5: str = ""
    """What S3 stores call the ETag of what is put in one piece; it tells whether all arrived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A recording in our store."""

    call: Call
    sound: Sound
    object_key: str
    stored_at: float


@dataclass(frozen=True, slots=True)
class NotReady:
    """The recording may still come."""

    call_sid: str
    retry_after: float
    """Seconds until it is worth looking again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A call in the catalogue, whatever has become of its recording."""

    call_sid: str
    tenant: str
    state: str
    """`expected`, `fetching`, `stored`, `missing`, `failed` or `deleted`."""
    status: str | None
    """The call's own, as the provider told it last; None, as the others, as long as it has not been asked."""
    from_number: str | None
    to_number: str | None
    direction: str | None
    started_at: float | None
    duration: int | None
    content_type: str | None
    size: int | None
    failure: str | None
    """Why it is missing or failed, for the tenant to read."""
    created_at: float
    recording: Recording | None
    """Where it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which calls are wanted; what is None does not matter."""

    state: str | None = None
    text: str | None = None
    """A part of one of its numbers, or the beginning of its id."""
    since: float | None = None
    """Unix seconds at which it began at the earliest; for one of which that is not known, was announced."""
    until: float | None = None
    """And at the latest."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the list: after this call."""

    created_at: float
    call_sid: str


class Objects(Protocol):
    """The object store."""

    async def get(self, key: str, part: range) -> AsyncIterator[bytes]:
        """Open a part of what is stored under `key`; return its pieces."""
        ...

    async def url(self, key: str, seconds: float) -> str | None:
        """Return an address that opens it for so long; None if this store has none."""
        ...


class Catalogue(Protocol):
    """Which calls there are, and what has become of their recordings."""

    async def find(self, call_sid: str) -> Entry | None:
        """Return the call, whosever it is."""
        ...

    async def page(self, tenant: str, search: Search, after: Position | None, limit: int) -> Sequence[Entry]:
        """Return some of a tenant's calls, those that were announced last before the others."""
        ...

    async def enter(self, recording: Recording, tenant: str) -> Recording | None:
        """Enter a recording that is in the store, unless the call has one; return the one that counts.

        Returns:
            None if the call is another tenant's, or was deleted.
        """
        ...

    async def expect(self, call_sid: str, tenant: str, not_before: float) -> None:
        """Have the workers look for a recording that is not there yet, unless they do already."""
        ...

    async def remove(self, call_sid: str, tenant: str) -> bool:
        """Mark a call as deleted and have the workers remove its object; return whether it was there."""
        ...


class Flights(Protocol):
    """Lets those who ask for the same at the same time share one fetch."""

    async def share(
        self, key: str, work: Callable[[], Coroutine[Any, Any, Recording | NotReady]]
    ) -> Recording | NotReady:
        """Return what `work()` returns, or what the fetch of this key that is under way does."""
        ...


class Recordings:
    """The use cases.

    Args:
        bringer: Brings a recording into the store.
        objects: Where recordings are kept.
        catalogue: Which are there.
        flights: How fetches are shared.
        listeners: How many may listen to a sound at the same time.
        wake: Tells the workers that there is something to do.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        *,
        bringer: Bringer,
        objects: Objects,
        catalogue: Catalogue,
        flights: Flights,
        listeners: int = LISTENERS,
        wake: Callable[[], object] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._places = threading.BoundedSemaphore(listeners)
        self._bringer = bringer
        self._objects = objects
        self._catalogue = catalogue
        self._flights = flights
        self._wake = wake
        self._clock = clock

    async def fetch(self, call_sid: str, tenant: str) -> Recording | NotReady:
        """Return the recording of this call, bringing it into the store first if need be.

        Raises:
            ServiceError: There is no such call or it was not recorded (404); the provider or the store
                failed (502, 503); the circuit breaker rejected the call (503).
            DeadlineExceeded: It could not be done in time (504).
        """
        return await self._flights.share(flight_of(call_sid, tenant), partial(self._fetch, call_sid, tenant))

    async def page(
        self, tenant: str, search: Search, after: Position | None, limit: int
    ) -> tuple[Sequence[Entry], Position | None]:
        """Return some of a tenant's calls, and where the next ones begin, if there are any."""
        found = await self._catalogue.page(tenant, search, after, limit + 1)
        page = found[:limit]
        more = len(found) > limit
        return page, Position(page[-1].created_at, page[-1].call_sid) if more else None

    async def stored(self, call_sid: str, tenant: str) -> Recording:
        """Return a recording that is in the store.

        Raises:
            ServiceError: It is not (404).
        """
        entry = await self._find(call_sid, tenant)
        if entry is None:
            raise not_found_error("Call")  # in the words that are used for another tenant's
        if entry.recording is None:
            raise not_found_error("Recording")
        return entry.recording

    async def sound(self, recording: Recording, part: range | None = None) -> AsyncIterator[bytes]:
        """Open the sound of a stored recording, or a part of it; return its pieces, to be closed in the end.

        Raises:
            ServiceError: Too many listen already, or the store failed (503); it has lost it (404).
        """
        if not self._places.acquire(blocking=False):
            raise service_unavailable_error("Listening", COME_BACK)
        try:
            pieces = await self._objects.get(recording.object_key, part or range(recording.sound.size))
        except BaseException:
            self._places.release()
            raise
        return Hearing(pieces, self._places.release)

    async def url(self, recording: Recording) -> str | None:
        """Return an address that opens its sound for `URL_LIFETIME` seconds; None if the store has none."""
        return await self._objects.url(recording.object_key, URL_LIFETIME)

    async def delete(self, call_sid: str, tenant: str) -> None:
        """Delete a recording. Deleting it again changes nothing.

        Raises:
            ServiceError: There is no such call (404).
        """
        if not await self._catalogue.remove(call_sid, tenant):
            raise not_found_error("Recording")
        logger.info("deleted the recording of call %s", call_sid)
        self._wake()

    async def _find(self, call_sid: str, tenant: str) -> Entry | None:
        entry = await self._catalogue.find(call_sid)
        if entry is not None and (entry.tenant != tenant or entry.state == "deleted"):
            raise not_found_error("Call")
        return entry

    async def _fetch(self, call_sid: str, tenant: str) -> Recording | NotReady:
        entry = await self._find(call_sid, tenant)  # asked here, or it could be stored in between
        if entry is not None and entry.recording is not None:
            return entry.recording
        brought = await self._bringer.bring(call_sid, tenant)
        if isinstance(brought, NotReady):
            await self._catalogue.expect(call_sid, tenant, self._clock.wall() + brought.retry_after)
            return brought
        recording = await self._catalogue.enter(brought, tenant)
        if recording is None:
            await self._bringer.discard(call_sid, tenant)
            raise not_found_error("Call")
        return recording


class Hearing:
    """The pieces of a sound, heard at a place that is given back once, when this is closed."""

    def __init__(self, pieces: AsyncIterator[bytes], leave: Callable[[], object]) -> None:
        self._pieces: Any = pieces
        self._leave: Callable[[], object] | None = leave

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece."""
        piece: bytes = await anext(self._pieces)
        return piece

    async def aclose(self) -> None:
        """Listen no longer."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
        await self._pieces.aclose()


def file_name(call_sid: str, sound: Sound) -> str:
    """Return the name by which a browser saves a recording: letters and digits, and an ending of ours.

    Example:
        >>> file_name("c0ffee1", Sound(content_type="audio/mpeg", size=1, sha256=""))
        'c0ffee1.mp3'
    """
    return call_sid + ENDINGS.get(sound.content_type, ".wav")


def flight_of(call_sid: str, tenant: str) -> str:
    """Return by what the fetches of a recording are shared."""
    return f"{tenant}/{call_sid}"
