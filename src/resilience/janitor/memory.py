"""A watch on the memory of this process: how much it uses, of how much, and whether that grows.

The rules:

- Memory is what is resident, and its limit is that of the container, or the machine's memory where that is
  less or the container has none.
- An alert is raised once, when the share passes the threshold; the next one only after it has fallen below
  a second, lower threshold.
- A reading is a few system files: about a tenth of a millisecond, and 4 ms more for each 10,000 open files.
- A forked child begins anew: its memory is its own.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from resilience._core.memory import alarming, slope
from resilience.checks import count, number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.janitor.traces import growth, tracing
from resilience.janitor.usage import SystemUsage, open_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.clock import Clock
    from resilience.janitor.traces import Growth
    from resilience.janitor.usage import Usage

_MEGABYTE: Final = 1_000_000
_LONGEST_TRACE: Final = 300.0  # seconds


class Reading(NamedTuple):
    """What a watch found at one moment."""

    resident: int | None
    """Bytes of memory in use; None where the system does not say."""
    limit: int | None
    """Bytes that may be used; None where the system does not say."""
    slope: float
    """Bytes a second by which memory has grown over the recent readings."""
    threads: int
    open_files: int | None
    tasks: int | None
    """Asyncio tasks of the loop on which the reading was taken; None outside a loop."""
    gc_counts: tuple[int, int, int]
    """Objects allocated since the last collection, and younger collections since the older ones."""
    alert: bool
    """Whether this reading raises an alert: at most one for each time the threshold is passed."""


class MemoryWatch:
    """Reads the memory of this process, and says when it becomes much.

    A janitor calls `check` by itself, once in each `interval`. Threads and event loops may share a watch.

    Args:
        interval: Seconds between two readings of a janitor.
        alert_above: The share of the limit above which an alert is raised.
        clear_below: The share below which memory is no longer high, and the next alert possible. Left out: a
            sixteenth less than `alert_above`.
        readings: How many recent readings the slope is derived from; at least 2.
        limit: Bytes that this process may use. Left out: the container's limit or the machine's memory. Set
            it where several processes share one container: each is read by itself.
        reader: Called instead of asking the system.
        clock: Tells when a reading was taken, and waits in a trace.

    Example:
        >>> from resilience.janitor.usage import Usage
        >>> sizes = iter([700, 810, 790, 700, 900])
        >>> watch = MemoryWatch(reader=lambda: Usage(next(sizes), limit=1000))
        >>> [(watch.check().alert, watch.high) for _ in range(5)]
        [(False, False), (True, True), (False, True), (False, False), (True, True)]
    """

    def __init__(
        self,
        *,
        interval: float = 60.0,
        alert_above: float = 0.8,
        clear_below: float | None = None,
        readings: int = 30,
        limit: int | None = None,
        reader: Callable[[], Usage] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.interval = number("interval", interval, above=0)
        self._alert_above = number("alert_above", alert_above, above=0, most=1)
        if clear_below is None:
            clear_below = self._alert_above * 15 / 16
        self._clear_below = number("clear_below", clear_below, least=0, most=self._alert_above)
        self._limit = None if limit is None else count("limit", limit, least=1)
        self._readings = count("readings", readings, least=2)
        self._reader = reader or SystemUsage()
        self._clock = clock
        self._alerts = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and forget what was read of the parent's memory."""
        self._lock = threading.RLock()
        self._recent: deque[tuple[float, int]] = deque(maxlen=self._readings)
        self._high = False

    @property
    def high(self) -> bool:
        """Whether memory was high at the last reading: above the one threshold, not yet below the other."""
        return self._high

    @property
    def alerts(self) -> int:
        """How many alerts there have been."""
        return self._alerts

    def resident(self) -> int | None:
        """Return the bytes of memory in use now; None where the system does not say.

        Raises:
            Exception: As `check`.
        """
        return self._reader().resident

    def check(self) -> Reading:
        """Take a reading, and say whether it raises an alert.

        Raises:
            Exception: What a reader of one's own raised; the system's raises nothing.
        """
        usage, now = self._reader(), self._clock.now()
        limit = self._limit or usage.limit
        with self._lock:
            if usage.resident is not None:
                self._recent.append((now, usage.resident))
            alert = self._raises_alert(usage.resident, limit)
            recent = tuple(self._recent)
        return Reading(
            resident=usage.resident,
            limit=limit,
            slope=slope(recent),
            threads=threading.active_count(),
            open_files=open_files(),
            tasks=_tasks(),
            gc_counts=gc.get_count(),
            alert=alert,
        )

    def trace(self, seconds: float = 10.0, top: int = 10) -> list[Growth]:
        """Return the source lines that allocate memory in the next `seconds` and keep it, the most first.

        Meanwhile every allocation of the whole process is several times as expensive.

        Args:
            seconds: How long to watch, 300 s at most.
            top: How many lines to return.

        Raises:
            RuntimeError: Somebody is tracing already: ending this trace would end theirs.
        """
        seconds, top = _box(seconds, top)
        with tracing():
            self._clock.sleep(seconds)
            return growth(top)

    async def trace_async(self, seconds: float = 10.0, top: int = 10) -> list[Growth]:
        """Do what `trace` does without holding the loop up; a cancellation ends the trace at once."""
        import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

        seconds, top = _box(seconds, top)
        with tracing():
            await self._clock.sleep_async(seconds)
            return await asyncio.to_thread(growth, top)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a memory watch belongs to the process it watches: make a new one instead")

    def _raises_alert(self, resident: int | None, limit: int | None) -> bool:
        if resident is None or limit is None:
            return False
        before = self._high
        self._high = alarming(resident / limit, before, above=self._alert_above, below=self._clear_below)
        raised = self._high and not before
        self._alerts += raised
        return raised


def for_people(size: int | None) -> str:
    """Return a number of bytes in megabytes, of a million bytes each.

    Example:
        >>> for_people(125_400_000), for_people(None)
        ('125MB', 'unknown')
    """
    return "unknown" if size is None else f"{round(size / _MEGABYTE)}MB"


def _tasks() -> int | None:
    asyncio = sys.modules.get("asyncio")  # where nobody has loaded it, there are no tasks
    if asyncio is None:
        return None
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # no loop runs in this thread
        return None


def _box(seconds: float, top: int) -> tuple[float, int]:
    return number("seconds", seconds, above=0, most=_LONGEST_TRACE), count("top", top, least=1)
