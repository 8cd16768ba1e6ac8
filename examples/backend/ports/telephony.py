"""The telephony provider over HTTP, as Exotel's API has it.

Numbers come as strings and times without a zone. A recording's address is the provider's word, so it is
followed only to allowed hosts, by the API's own scheme and never through a redirect; our key and token go to
the API's host and nowhere else. What comes from there is read up to a size, and kept only if it is sound.

One attempt is one request. httpx2's own exceptions go up through the retry manager, which knows which of
them are transient and finds Retry-After in them; only what is left at the end is put in our own words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

import httpx2

from examples.backend.domain.bringing import UNUSABLE, ExpiredError, UnusableError
from examples.backend.domain.reconciliation import Listed
from examples.backend.domain.recordings import Call, Sound
from examples.backend.kit import settled
from resilience import RateLimitedError, ServiceError, is_transient, service_unavailable_error
from resilience.clock import SYSTEM_CLOCK
from resilience.transient import retry_after_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path

    from examples.backend.kit import Retries
    from examples.backend.ports.http_client import Answer, Client
    from examples.backend.settings import Settings
    from resilience import CircuitBreaker

NOT_FOUND: Final = 404
EXPIRED: Final = {403, 410}
"""How a recording's address answers whose time is over."""
MAX_ANSWER: Final = 1024 * 1024
"""Bytes. The details of a long call with many legs have some ten thousand, a page of the list some hundred
thousand."""
LONGEST_TEXT: Final = 100
"""Characters of a number or a name."""
VALIDITY: Final = 15
"""Minutes for which the address of a recording shall hold."""
PAGE: Final = 100
"""Calls that are listed at a time."""
LONGEST_TURN: Final = 60.0
"""Seconds to wait at most until the provider may be asked once more; mostly a deadline ends it before."""
SID: Final = re.compile("[A-Za-z0-9]{1,64}", re.ASCII)
WRITTEN: Final = "%Y-%m-%d %H:%M:%S"
"""How the provider writes times."""
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
LONGEST_CALL: Final = 7 * 86_400
"""Seconds. What goes beyond these two is a mistake, and would be one of ours if it were stored."""
SOUND_TYPES: Final = {"audio/wav", "audio/x-wav", "audio/wave", "audio/mpeg", "audio/mp3"}
SOUND_BEGINNINGS: Final = (b"RIFF", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
"""How WAV and MP3 files begin, whatever type was announced."""
LONGEST_BEGINNING: Final = max(map(len, SOUND_BEGINNINGS))
SHORTEST_WAIT: Final = 1.0
"""Seconds after which a client may ask again, where neither the provider nor the breaker says more."""


class Guarded(NamedTuple):
    """How requests to a host are made."""

    retries: Retries
    breaker: CircuitBreaker
    """What guards it; the retries ask it."""


class HTTPTelephony:
    """Answers `examples.backend.domain.bringing.Telephony`, and has the provider's list of calls.

    Args:
        settings: Where the provider is, how to log in, and what to bear with.
        client: Makes the requests.
        retries: How requests to a host are retried, and which breaker guards it.
        limiter: How often the provider may be asked: what it would refuse anyway is not even sent.
    """

    def __init__(
        self, settings: Settings, client: Client, retries: Callable[[str], Guarded], limiter: Any
    ) -> None:
        self._account = settings.telephony_account
        self._max_size = settings.recording_max_size
        self._zone = timezone(timedelta(seconds=settings.telephony_utc_offset))
        self._guarded = retries
        self._limiter = limiter
        self._client = client
        self._scheme = client.base_url.scheme
        self._home = client.base_url.netloc.decode()
        self._hosts = {self._home, *settings.telephony_recording_hosts}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def call(self, call_sid: str) -> Call | None:
        """Return the call's details; None if there is no such call."""
        body = await self._read(f"{self._calls}/{call_sid}.json?details=true&RecordingUrlValidity={VALIDITY}")
        if body is None:
            return None
        with _readable("the details of the call"):
            call = self._call_of(json.loads(body)["Call"])
        if call.sid != call_sid:
            raise UnusableError("the provider answered with the details of another call")
        return call

    async def calls(self, since: float) -> AsyncIterator[Sequence[Listed]]:
        """Return the calls that began at or after `since`, the oldest first, page by page."""
        beginning = datetime.fromtimestamp(since, self._zone).strftime(WRITTEN)
        query = {"DateCreated": f"gte:{beginning}", "SortBy": "DateCreated:asc", "PageSize": str(PAGE)}
        path = f"{self._calls}.json?{urlencode(query)}"
        while True:
            body = await self._read(path)
            if body is None:
                raise UnusableError("the provider has no list of calls")
            with _readable("the list of calls"):
                page = json.loads(body)
                following = page["Metadata"]["NextPageUri"]
                listed = list(map(self._listed, page["Calls"]))
            yield listed
            if following is None:
                return
            path = str(following)
            if not path.startswith(f"{self._calls}.json?"):
                raise UnusableError("the list of calls goes on elsewhere", repr(path))

    async def download(self, url: str, into: Path) -> Sound | None:
        """Write the recording at `url` to the file `into`; None if it is not there yet."""
        try:
            target = httpx2.URL(url)
        except (httpx2.InvalidURL, TypeError) as error:
            raise UnusableError("the recording's address makes no sense", final=True) from error
        host = target.netloc.decode()
        if target.scheme != self._scheme or target.userinfo or host not in self._hosts:
            raise UnusableError("the recording's address is not allowed", repr(target.host), final=True)
        with self._in_our_words(host):
            return await self._guarded(host).retries.execute(self._download, target, into)

    @property
    def _calls(self) -> str:
        return f"/v1/Accounts/{self._account}/Calls"

    async def _read(self, path: str) -> bytes | None:
        """Return a body of the API's, or None if there is nothing there."""
        with self._in_our_words(self._home):
            return await self._guarded(self._home).retries.execute(self._ask, path)

    async def _ask(self, path: str) -> bytes | None:
        """Make one request."""
        await self._take_turn()
        async with self._client.stream(path) as answer:
            if answer.response.status_code == NOT_FOUND:
                return None
            return b"".join([chunk async for chunk in _body(answer, MAX_ANSWER, "the answer")])

    async def _download(self, url: httpx2.URL, into: Path) -> Sound | None:
        """Make one request; write the sound to `into`, or return None if there is nothing there."""
        is_home = url.netloc.decode() == self._home
        if is_home:
            await self._take_turn()
        async with self._client.stream(url, as_us=is_home) as answer:
            if answer.response.status_code == NOT_FOUND:
                return None
            if answer.response.status_code in EXPIRED:
                raise ExpiredError
            size, sha256, md5, beginning = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False), b""
            with into.open("wb") as file:  # into the page cache: quicker than a thread could be told to
                async for chunk in _body(answer, self._max_size, "the recording", final=True):
                    size += len(chunk)
                    sha256.update(chunk)
                    md5.update(chunk)
                    beginning += chunk[: LONGEST_BEGINNING - len(beginning)]
                    file.write(chunk)
            content_type = answer.response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type not in SOUND_TYPES or not beginning.startswith(SOUND_BEGINNINGS):
            raise UnusableError("the recording is no sound", f"{size} bytes of type {content_type!r}")
        return Sound(content_type=content_type, size=size, sha256=sha256.hexdigest(), md5=md5.hexdigest())

    async def _take_turn(self) -> None:
        """Wait until the provider may be asked once more."""
        await settled(self._limiter.acquire(self._account, timeout=LONGEST_TURN))

    def _call_of(self, details: dict[str, Any]) -> Call:
        """Return the provider's details with numbers as numbers and times in Unix seconds.

        Raises:
            ValueError, LookupError, TypeError: They are not what the provider documents.
        """

        def text(name: str) -> str:
            return _text(details[name])

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
        url = details.get("PreSignedRecordingUrl") or details["RecordingUrl"]
        return Call(
            sid=text("Sid"),
            status=text("Status"),
            from_number=text("From"),
            to_number=text("To"),
            direction=text("Direction"),
            started_at=seconds("StartTime"),
            ended_at=seconds("EndTime"),
            duration=duration if details["Duration"] else None,
            recording_url=str(url) if url else None,
            line=_text(details.get("PhoneNumberSid") or ""),
        )

    def _listed(self, call: dict[str, Any]) -> Listed:
        """Return a call of the list.

        Raises:
            ValueError, LookupError, TypeError: It is not what the provider documents.
        """
        sid = str(call["Sid"])
        if not SID.fullmatch(sid):
            raise ValueError(f"{sid!r} is no call's id")
        began = datetime.strptime(call["DateCreated"], WRITTEN).replace(tzinfo=self._zone)
        line = _text(call["PhoneNumberSid"] or "")
        return Listed(sid=sid, status=str(call["Status"]), line=line, created_at=began.timestamp())

    @contextlib.contextmanager
    def _in_our_words(self, host: str) -> Iterator[None]:
        """Turn what is raised below into what our callers know."""
        try:
            yield
        except RateLimitedError as error:  # by our own limit: it is not our caller who asks too often
            raise service_unavailable_error("The telephony provider", error.retry_after) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if is_transient(error):
                asked = retry_after_of(error, SYSTEM_CLOCK.wall())
                waits = (asked, self._guarded(host).breaker.snapshot().time_until_retry, SHORTEST_WAIT)
                longest = max(wait for wait in waits if wait is not None)
                raise service_unavailable_error("The telephony provider", longest) from error
            refusal = "the provider refused the request"
            raise ServiceError(code=UNUSABLE, details={"telephony": refusal}) from error


def _text(value: object) -> str:
    """Return a value of the provider's as text that can be kept and shown.

    Raises:
        ValueError: It is long, or holds what no number and no state has; half a character, say.
    """
    text = str(value)
    if len(text) > LONGEST_TEXT or not text.isprintable():
        raise ValueError(f"{text[:LONGEST_TEXT]!r} is neither a number nor a name")
    return text


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn what reading an answer raises into what our callers know."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnusableError(f"{what} cannot be read") from error


async def _body(answer: Answer, max_size: int, what: str, *, final: bool = False) -> AsyncIterator[bytes]:
    """Yield the body of a good answer in pieces, and no more of it than `max_size` bytes.

    Raises:
        UnusableError: It is longer; `what` says what is, and `final` whether it will always be.
    """
    answer.response.raise_for_status()
    if "Content-Encoding" in answer.response.headers:
        raise UnusableError("the answer is compressed, which was not asked for")
    size = 0
    async for chunk in answer.pieces():
        size += len(chunk)
        if size > max_size:
            raise UnusableError(f"{what} is longer than {max_size} bytes", final=final)
        yield chunk
