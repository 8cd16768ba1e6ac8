"""What the policies tell: as lines of the log, and as a record that operators can look at.

The record of a process is bounded: the last events, ten minutes of each breaker's states and calls, and
counts that only grow. Limits' keys are people's addresses, so it holds them hashed; the log masks them.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import secrets
import threading
from collections import Counter, deque
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from examples.backend.domain.accounts import masked
from resilience.clock import SYSTEM_CLOCK
from resilience.events import (
    BreakerChanged,
    MemoryAlert,
    RateLimited,
    RetryScheduled,
    RetryStopped,
    RetrySucceeded,
    StoreOutage,
    SweepFailed,
    SweepFinished,
)
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from resilience import CircuitBreaker
    from resilience.clock import Clock

    Shown = Callable[[tuple[str, ...]], str]

logger: Final = logging.getLogger("backend.policies")

KEPT: Final = 600.0
"""Seconds for which breakers' states and calls are kept."""
STEP: Final = 10.0
"""Seconds that one figure of a breaker's calls stands for: its window's length, so each call is seen once."""
MOST_EVENTS: Final = 100
MOST_CHANGES: Final = 300
"""Of one breaker within `KEPT`: one that opens for half a second changes no more often."""
SAME: Final = 10.0
"""Seconds within which the like of an event is counted, not listed again: a flood hides nothing else."""

SAME_IN: Final = ("kind", "name", "like")

LEVELS: Final = {"warning": logging.WARNING, "info": logging.INFO, "good": logging.WARNING}
PASSING: Final = ("closed", "forced-closed")
"""The states in which calls pass and are counted; in any other a snapshot has the figures of before."""


class Told(NamedTuple):
    """An event in words."""

    kind: str
    """Of policy: `"breaker"`, `"limit"`, `"retries"` or `"janitor"`."""
    name: str
    """The policy's."""
    severity: str
    """`"warning"`, `"good"` (something has recovered) or `"info"`."""
    message: str
    like: str | None = None
    """What makes it the like of another one of the same policy; None if each is listed by itself."""


def told(event: Any, shown: Shown) -> Told | None:  # noqa: PLR0911 - one for each kind
    """Return what an operator wants to know of an event; None if nothing.

    Args:
        event: The policy's record.
        shown: How a limit's key is written, which is an address of somebody.
    """
    match event:
        case BreakerChanged():
            figures = f"; {event.failures} of {event.calls} calls failed" if has_tripped(event) else ""
            severity = {"closed": "good", "half-open": "info"}.get(event.after, "warning")
            return Told(
                "breaker",
                event.name,
                severity,
                f"{event.after}, was {event.before} ({event.reason}{figures})",
            )
        case RateLimited():
            refused = f"refused {shown(event.key)}"
            return Told("limit", event.limiter, "warning", refused, like=refused)
        case RetryScheduled():
            message = f"attempt {event.attempt} failed, another in {event.delay:.2f} s"
            return Told("retries", event.name, "info", message, like="scheduled")
        case RetrySucceeded():
            return Told(
                "retries", event.name, "info", f"succeeded with attempt {event.attempts}", like="succeeded"
            )
        case RetryStopped():
            message = f"given up after attempt {event.attempts}: {event.reason}"
            return Told("retries", event.name, "warning", message, like="stopped")
        case StoreOutage():
            return Told(
                "limit", event.limiter, "warning", f"decided {event.policy}: its store is away", like="outage"
            )
        case MemoryAlert():
            return Told(
                "janitor",
                event.janitor,
                "warning",
                f"{event.resident} of {event.limit} bytes of memory in use",
            )
        case SweepFailed():
            return Told(
                "janitor", event.janitor, "warning", f"a sweep failed: {type(event.exception).__name__}"
            )
        case SweepFinished(sessions_cleaned=cleaned) if cleaned:
            return Told("janitor", event.janitor, "info", f"{cleaned} ended sessions removed")
        case _:
            return None


def has_tripped(event: BreakerChanged) -> bool:
    """Return whether too many failures opened a breaker; until it closes again, its figures are of then."""
    return (event.before, event.after) == ("closed", "open") and event.calls > 0


def log_event(event: Any) -> None:
    """Write one line for an event that an operator wants to know of; pass over the others.

    An outage of a store is told with each call that it concerns, and logged once, by `monitoring`.
    """
    line = told(event, lambda key: ", ".join(map(masked, key)))
    if line is not None and not isinstance(event, StoreOutage):
        who = f"{line.kind} {line.name}" if line.kind == "limit" else f"{line.kind} {line.name}:"
        logger.log(LEVELS[line.severity], "%s %s", who, line.message)


class Recorder:
    """Records what the policies of this process tell; a listener for `resilience.events.subscribe`.

    Any number of threads may call it. A forked child begins a record of its own.

    Args:
        secret: Hides limits' keys: without it nobody can try out which address a hash stands for. Processes
            that share it hash alike.
        clock: Where time comes from.
    """

    def __init__(self, secret: bytes, clock: Clock = SYSTEM_CLOCK) -> None:
        self._secret = blake2b(secret, person=b"monitoring").digest()
        self._clock = clock
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin anew: what the parent process has recorded is the parent's to tell."""
        self._lock = threading.RLock()
        self.started_at = self._clock.wall()
        self.process = f"{platform.node()}:{os.getpid()}:{secrets.token_hex(4)}"
        """Tells this process from all others, also from one that had its number before."""
        self._numbers = itertools.count(1)
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._changes: dict[str, deque[tuple[float, str]]] = {}
        self._load: dict[str, dict[int, Seen]] = {}
        self._counts: Counter[tuple[str, ...]] = Counter()

    def hashed(self, key: tuple[str, ...]) -> str:
        """Return what stands for a limit's key where people see it."""
        parts = b"".join(len(part).to_bytes(4) + part for part in map(str.encode, key))
        return blake2b(parts, digest_size=6, key=self._secret).hexdigest()

    # --- recording -------------------------------------------------------------------------------

    def __call__(self, event: Any) -> None:
        """Record an event."""
        now = self._clock.wall()
        line = told(event, self.hashed)
        with self._lock:
            match event:
                case BreakerChanged():
                    self._counts["breaker_changes", event.name, event.after] += 1
                    self._change(event, now)
                case RateLimited():
                    self._counts["limiter_refusals", event.limiter] += 1
                case StoreOutage():
                    self._counts["store_outages", event.limiter, event.policy] += 1
                case _:
                    pass
            if line is not None:
                self._list(line, now)

    def _change(self, event: BreakerChanged, now: float) -> None:
        changes = self._changes.setdefault(event.name, deque(maxlen=MOST_CHANGES))
        if not changes:
            changes.append((self.started_at, event.before))
        changes.append((now, event.after))
        if has_tripped(event):  # what opened it is to be seen, also if it was too quick for `look_at`
            self._load.setdefault(event.name, {})[int(now // STEP)] = Seen(event.calls, event.failures, True)

    def _list(self, line: Told, now: float) -> None:
        if line.like is not None:
            for entry in self._events:
                if now - entry["since"] < SAME and all(
                    entry[part] == getattr(line, part) for part in SAME_IN
                ):
                    entry.update(at=now, message=line.message, times=entry["times"] + 1)
                    return
        self._events.append(
            {
                **line._asdict(),
                "id": f"{self.process}:{next(self._numbers)}",
                "since": now,
                "at": now,
                "times": 1,
            }
        )

    def look_at(self, breakers: Iterable[CircuitBreaker]) -> None:
        """Note how many calls each breaker has in its window; to be called every second or so."""
        step = int(self._clock.wall() // STEP)
        for breaker in breakers:
            snapshot = breaker.snapshot()
            with self._lock:
                seen = self._load.setdefault(breaker.name, {})
                present = seen.get(step, NOTHING_SEEN)
                if snapshot.state in PASSING and not present.final:
                    seen[step] = Seen(snapshot.calls, snapshot.failures, False)
                for old in [old for old in seen if old < step - KEPT // STEP]:
                    del seen[old]

    # --- what was recorded -----------------------------------------------------------------------

    def events(self) -> list[dict[str, Any]]:
        """Return the last events, the newest first. `at` is in Unix seconds."""
        shown = ("id", "at", "kind", "name", "severity", "message", "times")
        with self._lock:
            events = [{name: entry[name] for name in shown} for entry in self._events]
        return sorted(events, key=lambda event: event["at"], reverse=True)

    def timeline(self, breaker: CircuitBreaker) -> list[tuple[float, str]]:
        """Return since when, in Unix seconds, the breaker is and was in which state; ten minutes of it."""
        earliest = self._clock.wall() - KEPT
        with self._lock:
            changes = list(self._changes.get(breaker.name) or [(self.started_at, breaker.state)])
        first = max((place for place, (at, _) in enumerate(changes) if at <= earliest), default=0)
        return changes[first:]

    def load(self, breaker: CircuitBreaker) -> dict[int, tuple[int, int]]:
        """Return how many calls there were, and how many failed, in steps of `STEP` Unix seconds."""
        with self._lock:
            return {
                step: (seen.calls, seen.failures) for step, seen in self._load.get(breaker.name, {}).items()
            }

    def counts(self) -> dict[str, dict[str, int]]:
        """Return what was counted: how often, by what and by whose."""
        with self._lock:
            counted = dict(self._counts)
        by_family: dict[str, dict[str, int]] = {}
        for (family, *labels), number in counted.items():
            by_family.setdefault(family, {})["|".join(labels)] = number
        return by_family


class Seen(NamedTuple):
    """What was seen of a breaker's calls in one step."""

    calls: int
    failures: int
    final: bool
    """Whether they opened it: calls that come later in the same step do not hide that."""


NOTHING_SEEN: Final = Seen(0, 0, False)
