"""Bringing one recording from the telephony provider into our own store.

The rules:

- What the provider says is a claim. A recording is taken only from allowed hosts, without following
  redirects, if it is sound, and up to a size; it is stored under a name of our own, in which nothing but
  letters and digits is the provider's.
- The name is the same whenever the same sound is brought, and another one for another sound. So bringing it
  again, also at the same time, does no harm, and no object is ever written over by something else.
- An address that has expired is no failure of the provider's: its details are asked for anew, which brings a
  fresh one. That happens once.
- The whole of it has one deadline, which every attempt, pause and download below it keeps to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from examples.backend.domain.recordings import NotReady, Recording, file_name
from resilience import ErrorCode, ServiceError, deadline, not_found_error, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from examples.backend.domain.recordings import Call, Sound
    from resilience.clock import Clock

    Found = Callable[[Call], Awaitable[object]]

logger: Final = logging.getLogger("backend.recordings")

UNUSABLE: Final = ErrorCode("EXTERNAL_SERVICE_ERROR", 502, "A service we depend on failed", public=False)
"""The library's code of this name, but not worth a retry: asking again would give the same answer."""
UNFINISHED: Final = {"queued", "ringing", "in-progress"}
"""The states of a call that goes on."""
LEFT_BEHIND: Final = 10
"""A download that was last written to so many deadlines ago is nobody's."""
DISK: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""What a disk says that is full, or worse."""
LOOK_AGAIN: Final = 15.0
"""Seconds. A recording is ready one to five minutes after the call."""
LOOK_AGAIN_LATER: Final = 60.0
"""Seconds, while the call goes on; that it has ended is usually told."""


class UnusableError(ServiceError):
    """The provider's answer is nothing that we accept, so it is not asked again at once.

    Args:
        reason: What is wrong with it, for the tenant to read: no text of the provider's.
        details: More, for developers.
        final: Whether asking again later would not change that either. What cannot be read may have been the
            word of something in between, that is down.
    """

    def __init__(self, reason: str, details: str = "", *, final: bool = False) -> None:
        super().__init__(code=UNUSABLE, details={"telephony": f"{reason}: {details}" if details else reason})
        self.reason = reason
        self.final = final


class UnknownCallError(ServiceError):
    """The provider knows no such call."""

    def __init__(self) -> None:
        super().__init__("Call not found", code=ErrorCode.RESOURCE_NOT_FOUND)


class ExpiredError(Exception):
    """The recording's address has expired: the call's details have a new one."""


class Telephony(Protocol):
    """The provider. What it raises, beside the errors here, are `ServiceError`s and those of our policies."""

    async def call(self, call_sid: str) -> Call | None:
        """Return the call's details; None if there is no such call.

        Raises:
            UnusableError: They cannot be read.
        """
        ...

    async def download(self, url: str, into: Path) -> Sound | None:
        """Write the recording at `url` to the file `into`; None if it is not there yet.

        Raises:
            ExpiredError: The address opens nothing any more.
            UnusableError: It is none that we follow, or what is there is no sound.
        """
        ...


class Objects(Protocol):
    """The object store."""

    async def put(self, key: str, file: Path, sound: Sound, name: str) -> None:
        """Store `file` under `key`, whole or not at all, and make sure that it arrived.

        Args:
            key: Where.
            file: What.
            sound: What is known of it.
            name: By which a browser saves it.
        """
        ...

    async def remove(self, folder: str) -> None:
        """Remove whatever lies in a folder; nothing may."""
        ...


class Bringer:
    """Brings recordings.

    Args:
        telephony: The provider.
        objects: Where recordings are kept.
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
        downloads: Path,
        within: float,
        patience: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._telephony = telephony
        self._objects = objects
        self._downloads = downloads
        self._within = within
        self._patience = patience
        self._clock = clock
        downloads.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()

    async def bring(self, call_sid: str, tenant: str, found: Found | None = None) -> Recording | NotReady:
        """Bring the recording of a call into the store.

        Args:
            call_sid: Which call.
            tenant: Whose it is.
            found: Awaited with the call's details, before anything is downloaded.

        Raises:
            ServiceError: There is no such call or it was not recorded (404); the provider or the store
                failed (502, 503); the circuit breaker rejected the call (503).
            DeadlineExceeded: It could not be done in time (504).
        """
        with deadline(self._within):
            try:
                return await self._bring(call_sid, tenant, found)
            except ExpiredError:
                logger.info("the address of call %s's recording has expired: asking for another", call_sid)
            try:
                return await self._bring(call_sid, tenant, found)
            except ExpiredError as error:
                raise service_unavailable_error("The telephony provider", LOOK_AGAIN) from error

    async def discard(self, call_sid: str, tenant: str) -> None:
        """Remove what was stored of a call."""
        await self._objects.remove(folder_of(call_sid, tenant))

    async def _bring(self, call_sid: str, tenant: str, found: Found | None) -> Recording | NotReady:
        call = await self._telephony.call(call_sid)
        if call is None:
            raise UnknownCallError
        if found is not None:
            await found(call)
        if call.recording_url is None:
            return self._expected(call)
        with self._unfinished_download() as file:
            sound = await self._telephony.download(call.recording_url, file)
            if sound is None:
                return self._expected(call)
            object_key = f"{folder_of(call_sid, tenant)}/{sound.sha256}"
            await self._objects.put(object_key, file, sound, file_name(call_sid, sound))
        logger.info("stored the recording of call %s: %d bytes", call_sid, sound.size)
        return Recording(call=call, sound=sound, object_key=object_key, stored_at=self._clock.wall())

    def _expected(self, call: Call) -> NotReady:
        """Return when to look again.

        Raises:
            ServiceError: The recording will not come any more (404).
        """
        if call.status in UNFINISHED:
            return NotReady(call.sid, LOOK_AGAIN_LATER)
        failed = call.status != "completed"  # busy, say: nobody spoke, so nothing was recorded
        overdue = call.ended_at is not None and self._clock.wall() > call.ended_at + self._patience
        if failed or overdue:
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
        try:
            handle, name = tempfile.mkstemp(dir=self._downloads)
            os.close(handle)
            try:
                yield Path(name)
            finally:
                Path(name).unlink()
        except OSError as error:
            if error.errno not in DISK:
                raise
            logger.error("there is no keeping anything in %s: %s", self._downloads, error.strerror)  # noqa: TRY400 - all there is to say
            raise service_unavailable_error("The service", LOOK_AGAIN_LATER) from error


def folder_of(call_sid: str, tenant: str) -> str:
    """Return the folder of the object store for what belongs to a call."""
    return f"recordings/{tenant}/{call_sid}"
