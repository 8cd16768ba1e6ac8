"""Call recordings: brought from the telephony provider into our own store, once.

The rules:

- What the provider says is a claim. A recording is taken only from allowed hosts, without following
  redirects, if it is sound, and up to a size; it is stored under a name of our own.
- A recording that is not there yet is no failure: the caller is told when to look again.
- Asking again is harmless, also at the same time: what is in the store is served from there, those who ask
  for a recording that is being fetched share its fetch, and should two processes fetch it, the one that ends
  first counts.
- The whole fetch has one deadline, which every attempt, pause and download below it keeps to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilience import deadline, not_found_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from resilience.clock import Clock

logger: Final = logging.getLogger("backend.recordings")

UNFINISHED: Final = {"queued", "ringing", "in-progress"}
"""The states of a call that goes on."""
LEFT_BEHIND: Final = 10
"""A download that was last written to so many deadlines ago is nobody's."""
LOOK_AGAIN: Final = 15.0
"""Seconds. A recording is ready one to five minutes after the call."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A recording, just downloaded and checked."""

    content_type: str
    size: int
    sha256: str


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


class Telephony(Protocol):
    """The provider. What it raises are `ServiceError`s and the errors of our policies."""

    async def call(self, call_sid: str) -> Call | None:
        """Return the call's details; None if there is no such call."""
        ...

    async def download(self, url: str, into: Path) -> Sound | None:
        """Write the recording at `url` to the file `into`; None if it is not there yet."""
        ...


class Objects(Protocol):
    """The object store."""

    async def put(self, key: str, file: Path, content_type: str) -> None:
        """Store `file` under `key`, whole or not at all."""
        ...

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Open what is stored under `key`; return its pieces."""
        ...


class Catalogue(Protocol):
    """Which recordings are in the store."""

    async def find(self, call_sid: str, tenant: str) -> Recording | None:
        """Return the recording of this call, if it is in the store."""
        ...

    async def add(self, recording: Recording, tenant: str) -> Recording:
        """Enter `recording`, unless one of the same call is there already; return the one that is."""
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
        telephony: The provider.
        objects: Where recordings are kept.
        catalogue: Which are there.
        flights: How fetches are shared.
        downloads: A folder for unfinished downloads. What a killed process has left there is removed.
        within: Seconds for one whole fetch.
        patience: Seconds after a call's end in which its recording may still appear.
        clock: Where the time comes from.
    """

    def __init__(
        self,
        *,
        telephony: Telephony,
        objects: Objects,
        catalogue: Catalogue,
        flights: Flights,
        downloads: Path,
        within: float,
        patience: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._telephony = telephony
        self._objects = objects
        self._catalogue = catalogue
        self._flights = flights
        self._downloads = downloads
        self._within = within
        self._patience = patience
        self._clock = clock
        downloads.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

    async def fetch(self, call_sid: str, tenant: str) -> Recording | NotReady:
        """Return the recording of this call, bringing it into the store first if need be.

        Raises:
            ServiceError: There is no such call or it was not recorded (404); the provider or the store
                failed (502, 503); the circuit breaker rejected the call (503).
            DeadlineExceeded: It could not be done in time (504).
        """
        return await self._flights.share(f"{tenant}/{call_sid}", partial(self._fetch, call_sid, tenant))

    async def sound(self, recording: Recording) -> AsyncIterator[bytes]:
        """Open the sound of a stored recording; return its pieces."""
        return await self._objects.get(recording.object_key)

    async def _fetch(self, call_sid: str, tenant: str) -> Recording | NotReady:
        if stored := await self._catalogue.find(
            call_sid, tenant
        ):  # asked here, or it could be stored in between
            return stored
        with deadline(self._within):
            call = await self._telephony.call(call_sid)
            if call is None:
                raise not_found_error("Call")
            if call.recording_url is None:
                return self._expected(call)
            return await self._bring(call, call.recording_url, tenant)

    async def _bring(self, call: Call, url: str, tenant: str) -> Recording | NotReady:
        with self._unfinished_download() as file:
            sound = await self._telephony.download(url, file)
            if sound is None:
                return self._expected(call)
            object_key = f"recordings/{call.sid}/{sound.sha256}"  # so none is ever written over
            await self._objects.put(object_key, file, sound.content_type)
        logger.info("stored the recording of call %s: %d bytes", call.sid, sound.size)
        return await self._catalogue.add(
            Recording(call=call, sound=sound, object_key=object_key, stored_at=self._clock.wall()),
            tenant,
        )

    def _expected(self, call: Call) -> NotReady:
        """Return when to look again.

        Raises:
            ServiceError: The recording will not come any more (404).
        """
        over = call.status not in UNFINISHED
        failed = over and call.status != "completed"  # busy, say: nobody spoke, so nothing was recorded
        overdue = call.ended_at is not None and self._clock.wall() > call.ended_at + self._patience
        if failed or (over and overdue):
            raise not_found_error("Recording")
        return NotReady(call.sid, LOOK_AGAIN)

    def _remove_leftovers(self) -> None:
        """Remove downloads that can belong to no fetch any more; younger ones may be another process's."""
        for file in self._downloads.iterdir():
            with contextlib.suppress(FileNotFoundError):  # that process may just end its own
                if file.stat().st_mtime < self._clock.wall() - LEFT_BEHIND * self._within:
                    file.unlink()
                    logger.warning("removed a download that was left unfinished: %s", file.name)

    @contextlib.contextmanager
    def _unfinished_download(self) -> Iterator[Path]:
        handle, name = tempfile.mkstemp(dir=self._downloads)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink()
