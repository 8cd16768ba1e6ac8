"""What the fake telephony provider knows: calls, their recordings, and who may ask how often.

Every id of 32 hexadecimal digits that begins with `c0ffee` is a call that was recorded on a day in January
2025; it has a recording, but no list tells of it. Lists tell of the calls that were placed. A recording is a
tone, always the same for the same id.
"""

from __future__ import annotations

import array
import base64
import dataclasses
import functools
import hmac
import io
import math
import re
import secrets
import sys
import time
import wave
import zlib
from collections import deque
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from examples.backend.fakes.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Final[Mapping[str, Mapping[str, Any]]] = {
    "429": {"status": 429, "retry_after": "1"},
    **{str(status): {"status": status} for status in (500, 502, 503, 504)},
    "expired": {"on": "recordings", "status": 403, "code": "AccessDenied"},
    "wrong-type": {"on": "recordings", "content_type": "text/html"},
    "wrong-length": {"announce": 1000},
    "torn": {"cut": True},
    "slow": {"slow": 1.0},
    "reset": {"reset": True},
    "hang": {"delay": 60.0, "reset": True},
}
SAMPLE_RATE: Final = 8000
ZONE: Final = timezone(timedelta(hours=5, minutes=30))
"""The provider's clocks; what they say is written without a zone."""
LONG_AGO: Final = datetime(2025, 1, 15, 16, 0, 0, tzinfo=ZONE).timestamp()
"""When calls that were not placed began."""
VALIDITIES: Final = range(5, 61)
"""Minutes for which a presigned address may hold."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Knobs:
    """What can be turned while the provider runs. Each field is a key of the control request."""

    limit: int | None = None
    """Requests a minute, 200 at the real one; None does not count them."""
    minute: float = 60.0
    """Seconds that a minute lasts, for the limit and for presigned addresses: tests have less time."""
    ready_after: float = 0.0
    """Seconds after a placed call's end at which its recording is there; at the real one 1 to 15 minutes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that was made."""

    sid: str
    started_at: float
    """Unix seconds, as the others."""
    ended_at: float
    ready_at: float
    """When its recording is there."""
    status: str = "completed"

    @property
    def is_recorded(self) -> bool:
        """Whether it has a recording, or will have one."""
        return self.status == "completed"


@dataclasses.dataclass(frozen=True, slots=True)
class Allowance:
    """What the limit says to a request."""

    limit: int
    remaining: int
    resets_at: float
    """Unix seconds at which the first of the counted requests is forgotten."""
    allowed: bool


class Provider(Faults):
    """What the provider knows, counts and does wrong. Any number of threads may use it.

    Args:
        account: The account that there is.
        key: With `token`, what it logs in with.
        token: See `key`.
    """

    def __init__(self, account: str, key: str, token: str) -> None:
        super().__init__(KINDS)
        self.account = account
        self.authorization = "Basic " + base64.b64encode(f"{key}:{token}".encode()).decode()
        self.knobs = Knobs()
        self._signing_key = secrets.token_bytes(32)
        self._calls: dict[str, Call] = {}
        self._changes: dict[str, dict[str, Any]] = {}
        self._asked_at: deque[float] = deque()

    # --- calls -----------------------------------------------------------------------------------

    def place_call(
        self, *, sid: str | None = None, ended_ago: float = 0.0, ready_after: float | None = None,
        status: str = "completed",
    ) -> Call:  # fmt: skip
        """Make a call that has ended; return it.

        Args:
            sid: Its id; None for a new one.
            ended_ago: How many seconds ago it ended.
            ready_after: Seconds from its end until its recording is there; None for the knob's.
            status: `completed`, or why there is nothing to hear: `failed`, `busy`, `no-answer`.
        """
        sid = sid or f"c0ffee{secrets.token_hex(13)}"
        ended_at = time.time() - ended_ago
        ready_at = ended_at + (self.knobs.ready_after if ready_after is None else ready_after)
        seconds = seconds_of(sid) if status == "completed" else 0
        call = Call(
            sid=sid, started_at=ended_at - seconds, ended_at=ended_at, ready_at=ready_at, status=status
        )
        with self._lock:
            self._calls[sid] = call
        return call

    def change_call(self, sid: str, details: dict[str, Any]) -> None:
        """Answer with these details of the call from now on, in place of its usual ones."""
        with self._lock:
            self._changes.setdefault(sid, {}).update(details)

    def call(self, sid: str) -> Call | None:
        """Return a call; None if there is none of this id."""
        with self._lock:
            placed = self._calls.get(sid)
        if placed is None and re.fullmatch(r"c0ffee[0-9a-f]{26}", sid):
            return Call(sid=sid, started_at=LONG_AGO, ended_at=LONG_AGO + seconds_of(sid), ready_at=LONG_AGO)
        return placed

    def calls(self) -> list[Call]:
        """Return the calls that were placed, in the order in which they began."""
        with self._lock:
            return sorted(self._calls.values(), key=order_of)

    def details(self, call: Call, address: str, validity: int | None = None) -> dict[str, Any]:
        """Return the details of a call as the provider writes them: numbers as strings, times without zone.

        Args:
            call: Which.
            address: The provider's own.
            validity: Minutes for which a presigned address of the recording shall hold; None for none.
        """
        seconds = str(round(call.ended_at - call.started_at))
        ready = call.is_recorded and call.ready_at <= time.time()
        details: dict[str, Any] = {
            "Sid": call.sid,
            "ParentCallSid": None,
            "DateCreated": written(call.started_at),
            "DateUpdated": written(call.ended_at),
            "AccountSid": self.account,
            "To": "08030752400",
            "From": "09900112233",
            "PhoneNumberSid": "08030752400",
            "Status": call.status,
            "StartTime": written(call.started_at),
            "EndTime": written(call.ended_at),
            "Duration": seconds,
            "Price": "1.500",
            "Direction": "inbound",
            "AnsweredBy": "human",
            "RecordingUrl": f"{address}/recordings/{call.sid}.wav" if ready else None,
            "Details": {"ConversationDuration": seconds, "Legs": []},
        }
        if validity is not None:
            details["PreSignedRecordingUrl"] = self._presigned(call.sid, address, validity) if ready else None
        with self._lock:
            return details | self._changes.get(call.sid, {})

    # --- recordings ------------------------------------------------------------------------------

    def _presigned(self, sid: str, address: str, validity: int) -> str:
        expires = f"{time.time() + validity * self.knobs.minute:.3f}"
        return f"{address}/recordings/{sid}.wav?Expires={expires}&Signature={self._signature(sid, expires)}"

    def _signature(self, sid: str, expires: str) -> str:
        return hmac.digest(self._signing_key, f"{sid} {expires}".encode(), "sha256").hex()

    def is_signed(self, sid: str, expires: str, signature: str) -> bool:
        """Return whether an address was presigned here, be it that it has expired."""
        return hmac.compare_digest(self._signature(sid, expires).encode(), signature.encode())

    # --- the limit -------------------------------------------------------------------------------

    def ask(self) -> Allowance | None:
        """Count a request against the limit; return what it says, None if there is none.

        It is a window that slides: no minute, wherever it begins, has more requests than the limit.
        """
        now = time.time()
        with self._lock:
            limit, minute = self.knobs.limit, self.knobs.minute
            if limit is None:
                return None
            while self._asked_at and self._asked_at[0] <= now - minute:
                self._asked_at.popleft()
            allowed = len(self._asked_at) < limit
            if allowed:
                self._asked_at.append(now)
            first = self._asked_at[0] if self._asked_at else now
            return Allowance(limit, limit - len(self._asked_at), first + minute, allowed)

    def turn(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """Turn knobs; return how all of them stand.

        Raises:
            TypeError: There is no such knob.
        """
        with self._lock:
            self.knobs = dataclasses.replace(self.knobs, **knobs)
            return dataclasses.asdict(self.knobs)


def order_of(call: Call) -> tuple[float, str]:
    """Return what calls are listed by."""
    return call.started_at, call.sid


def written(instant: float) -> str:
    """Return a time as the provider writes it."""
    return datetime.fromtimestamp(instant, ZONE).strftime("%Y-%m-%d %H:%M:%S")


def read(text: str) -> float:
    """Return the Unix seconds of a time that the provider's way of writing has.

    Raises:
        ValueError: It is not written so.
    """
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE).astimezone(UTC).timestamp()


def seconds_of(sid: str) -> int:
    """Return how long the call lasted: 2 to 5 seconds."""
    return 2 + zlib.crc32(sid.encode()) % 4


@functools.lru_cache(maxsize=1000)
def recording_of(sid: str) -> bytes:
    """Return the call's recording: a tone as a WAV file, always the same for the same call."""
    period = 8 + zlib.crc32(sid.encode()) % 32
    wavelength = array.array("h", (round(9000 * math.sin(2 * math.pi * i / period)) for i in range(period)))
    if sys.byteorder == "big":
        wavelength.byteswap()
    samples = SAMPLE_RATE * seconds_of(sid)
    sound = (wavelength * (samples // period + 1))[:samples]
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(SAMPLE_RATE)
        wav.writeframes(sound.tobytes())
    return file.getvalue()
