"""The telephony provider over HTTP, as Exotel's API has it.

Numbers come as strings and times without a zone. A recording's address is the provider's word, so it is
followed only to allowed hosts and never through a redirect, and what comes from there is read up to a
size, and kept only if it is sound.

One attempt is one request. httpx2's own exceptions go up through the retry manager, which knows which of
them are transient and finds Retry-After in them; only what is left at the end is put in our own words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import httpx2

from examples.backend.domain.recordings import Call, Sound
from resilience import ErrorCode, ServiceError, is_transient, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK
from resilience.transient import retry_after_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from examples.backend.kit import Retries
    from examples.backend.ports.http_client import Answer, Client
    from examples.backend.settings import Settings
    from resilience import CircuitBreaker

UNUSABLE: Final = ErrorCode("EXTERNAL_SERVICE_ERROR", 502, "A service we depend on failed", public=False)
"""The library's code of this name, but not worth a retry: asking again would give the same answer."""
NOT_FOUND: Final = 404
MAX_DETAILS: Final = 256 * 1024
"""Bytes of a call's details; a long call with many legs has some ten thousand."""
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LONGEST_CALL: Final = 7 * 86_400
"""Seconds. What goes beyond these two is a mistake, and would be one of ours if it were stored."""
SOUND_TYPES: Final = {"audio/wav", "audio/x-wav", "audio/wave", "audio/mpeg", "audio/mp3"}
SOUND_BEGINNINGS: Final = (b"RIFF", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
"""How WAV and MP3 files begin, whatever type was announced."""
LONGEST_BEGINNING: Final = max(map(len, SOUND_BEGINNINGS))
SHORTEST_WAIT: Final = 1.0
"""Seconds after which a client may ask again, where neither the provider nor the breaker says more."""


class HTTPTelephony:
    """Answers `examples.backend.domain.recordings.Telephony`.

    Args:
        settings: Where the provider is, how to log in, and what to bear with.
        client: Makes the requests.
        retries: How requests are retried.
        breaker: What guards them; the retries ask it.
    """

    def __init__(self, settings: Settings, client: Client, retries: Retries, breaker: CircuitBreaker) -> None:
        self._account = settings.telephony_account
        self._max_size = settings.recording_max_size
        self._zone = timezone(timedelta(seconds=settings.telephony_utc_offset))
        self._retries = retries
        self._breaker = breaker
        self._client = client
        self._scheme = client.base_url.scheme
        self._hosts = {client.base_url.netloc.decode(), *settings.telephony_recording_hosts}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def call(self, call_sid: str) -> Call | None:
        """Return the call's details; None if there is no such call."""
        path = f"/v1/Accounts/{self._account}/Calls/{call_sid}.json?details=true"
        with self._in_our_words():
            body = await self._retries.execute(self._read, path)
        if body is None:
            return None
        try:
            call = self._call_of(json.loads(body)["Call"])
        except (ValueError, LookupError, TypeError) as error:
            raise _nonsense("the details of a call cannot be read") from error
        if call.sid != call_sid:
            raise _nonsense("these are the details of another call")
        return call

    async def download(self, url: str, into: Path) -> Sound | None:
        """Write the recording at `url` to the file `into`; None if it is not there yet."""
        with self._in_our_words():
            target = httpx2.URL(url)
            if target.scheme != self._scheme or target.netloc.decode() not in self._hosts:
                raise _nonsense(f"a recording is said to be at {target.host!r}, which is not allowed")
            return await self._retries.execute(self._download, target, into)

    async def _read(self, path: str) -> bytes | None:
        """Make one request; return the body, or None if there is nothing there."""
        async with self._client.stream("GET", path) as answer:
            if answer.response.status_code == NOT_FOUND:
                return None
            return b"".join([chunk async for chunk in _body(answer, MAX_DETAILS)])

    async def _download(self, url: httpx2.URL, into: Path) -> Sound | None:
        """Make one request; write the sound to `into`, or return None if there is nothing there."""
        async with self._client.stream("GET", url) as answer:
            if answer.response.status_code == NOT_FOUND:
                return None
            size, digest, beginning = 0, hashlib.sha256(), b""
            with into.open("wb") as file:  # into the page cache: quicker than a thread could be told to
                async for chunk in _body(answer, self._max_size):
                    size += len(chunk)
                    digest.update(chunk)
                    beginning += chunk[: LONGEST_BEGINNING - len(beginning)]
                    file.write(chunk)
            content_type = answer.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type not in SOUND_TYPES or not beginning.startswith(SOUND_BEGINNINGS):
            raise _nonsense(f"a recording of {size} bytes and type {content_type!r} is no sound")
        return Sound(content_type=content_type, size=size, sha256=digest.hexdigest())

    def _call_of(self, details: dict[str, Any]) -> Call:
        """Return the provider's details with numbers as numbers and times in Unix seconds.

        Raises:
            ValueError, LookupError, TypeError: They are not what the provider documents.
        """

        def text(name: str) -> str:
            return (
                str(details[name]).encode().decode()
            )  # JSON may hold half a character, which nothing else can

        def seconds(name: str) -> float | None:
            if not details[name] or text(name).startswith("0000"):  # the provider's way to write "unknown"
                return None
            instant = datetime.fromisoformat(text(name)).replace(tzinfo=self._zone)
            if instant < EARLIEST:
                raise ValueError(f"no call was made at {instant}")
            return instant.timestamp()

        duration = int(details["Duration"] or 0)
        if not 0 <= duration <= LONGEST_CALL:
            raise ValueError(f"no call lasts {duration} seconds")
        return Call(
            sid=text("Sid"),
            status=text("Status"),
            from_number=text("From"),
            to_number=text("To"),
            direction=text("Direction"),
            started_at=seconds("StartTime"),
            ended_at=seconds("EndTime"),
            duration=duration if details["Duration"] else None,
            recording_url=text("RecordingUrl") if details["RecordingUrl"] else None,
        )

    @contextlib.contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Turn what httpx2 raises into what our callers know."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if is_transient(error):
                asked = retry_after_of(error, SYSTEM_CLOCK.wall())
                waits = (asked, self._breaker.snapshot().time_until_retry, SHORTEST_WAIT)
                longest = max(wait for wait in waits if wait is not None)
                raise service_unavailable_error("The telephony provider", longest) from error
            raise _nonsense("the provider refused the request") from error


async def _body(answer: Answer, max_size: int) -> AsyncIterator[bytes]:
    """Yield the body of a good answer in pieces, and no more of it than `max_size` bytes."""
    answer.response.raise_for_status()
    if "Content-Encoding" in answer.response.headers:
        raise _nonsense("the answer is compressed, which was not asked for")
    size = 0
    async for chunk in answer.pieces():
        size += len(chunk)
        if size > max_size:
            raise _nonsense(f"the answer is longer than {max_size} bytes")
        yield chunk


def _nonsense(what: str) -> ServiceError:
    """Return the error for an answer that we do not accept. What it was is for developers."""
    return ServiceError(code=UNUSABLE, details={"telephony": what})
