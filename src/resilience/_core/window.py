"""What a breaker remembers of the calls of one generation: three ways to count, one interface.

Rules:

- A window counts and never judges; `_core.trip` judges what it has counted.
- Each generation has a window of its own, so a late result lands in one that nobody reads any more.
- A success is the common case and costs one addition; where it would change nothing, `success_matters`
  is false and the caller need not come at all. `note` and `success_matters` need no lock, all else does.
- Time only moves forward. A reading up to one slice older than the newest, as threads that raced for the
  lock give, is counted in the newest slice. An older one means that the clock was set back: counting
  goes on from there, and what was counted before still leaves within one window's time and a slice.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, NamedTuple, Protocol

SLICES: Final = 10
"""How many slices a time window has: it spans the last nine whole slices and the present one."""


NOTED: Final = 1000
"""How many successes wait to be taken at most: 8 kB."""


class Figures(NamedTuple):
    """What a window holds at one moment."""

    calls: int
    failures: int
    slow: int


NOTHING: Final = Figures(0, 0, 0)


class Window(Protocol):
    """What a breaker asks of a window."""

    success_matters: bool
    """Whether one more quick success would change anything. May be read without a lock."""
    last_trouble: float
    """When the last failed or slow call was counted; minus infinity if none was."""

    def note(self, now: float) -> bool:
        """Count a call that succeeded in good time, if that needs no lock; say whether it did not."""
        ...

    def succeed(self, now: float) -> None:
        """Count a call that succeeded in good time."""
        ...

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a call that failed, was slow, or both."""
        ...

    def figures(self, now: float) -> Figures:
        """Return what is in the window at `now`."""
        ...


class Streak:
    """Failures in a row: any success begins anew."""

    __slots__ = ("_failures", "last_trouble", "success_matters")

    def __init__(self) -> None:
        self._failures = 0
        self.success_matters = False
        self.last_trouble = -inf

    def note(self, now: float) -> bool:  # noqa: ARG002 - a row has no duration
        """Leave it to `succeed`: a row that has begun must end before the next failure."""
        return False

    def succeed(self, now: float) -> None:  # noqa: ARG002 - a row has no duration
        """Begin anew."""
        self._failures = 0
        self.success_matters = False

    def add(self, now: float, *, failed: bool, slow: bool) -> None:  # noqa: ARG002 - only failures are in a row
        """Count a failure."""
        if failed:
            self.success_matters = True
            self._failures += 1
            self.last_trouble = now

    def figures(self, now: float) -> Figures:  # noqa: ARG002 - a row has no duration
        """Return the row: as many calls as failures."""
        return Figures(self._failures, self._failures, 0)


class TimeWindow:
    """The calls of the last so many seconds, in `SLICES` slices.

    The sums only ever grow. At each slice's beginning they are noted, and what the window holds is the
    difference between now and the oldest note kept: so a call costs one addition, and a slice leaves
    without a subtraction.

    Successes need no lock, at which threads would queue: each appends to a list, and whoever holds the lock
    next takes what has been appended. To append to a list, to ask for its length and to delete its first
    items are atomic each, by the GIL or else by the list's own lock; what is appended between the second and
    the third stays for the next. So none is lost and none is counted twice.

    Args:
        seconds: How long a call is remembered; one that is nine tenths as old may be forgotten already.
        now: When counting begins.
    """

    __slots__ = (
        "_calls",
        "_ends",
        "_failures",
        "_noted",
        "_notes",
        "_oldest",
        "_slow",
        "_starts",
        "_width",
        "last_trouble",
        "success_matters",
    )

    def __init__(self, seconds: float, now: float) -> None:
        self.success_matters = True  # it always does: a ratio falls with it
        self._noted: list[None] = []
        self._width = seconds / SLICES
        self._calls = self._failures = self._slow = 0
        self._notes: deque[Figures] = deque([NOTHING] * SLICES, maxlen=SLICES)
        self.last_trouble = -inf
        self._begin_slice(now)

    def note(self, now: float) -> bool:
        """Count a call that succeeded in good time, if its slice is the present one."""
        if self._oldest <= now < self._ends and len(self._noted) < NOTED:
            self._noted.append(None)
            return True
        return False

    def succeed(self, now: float) -> None:
        """Count a call that succeeded in good time."""
        self._catch_up(now)
        self._calls += 1

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a call that failed, was slow, or both."""
        self.succeed(now)
        self._failures += failed
        self._slow += slow
        self.last_trouble = now

    def figures(self, now: float) -> Figures:
        """Return what is in the window at `now`."""
        self._catch_up(now)
        calls, failures, slow = self._notes[0]
        return Figures(self._calls - calls, self._failures - failures, self._slow - slow)

    def _catch_up(self, now: float) -> None:
        """Take the successes that were noted, then go to the slice that `now` lies in."""
        noted = len(self._noted)
        del self._noted[:noted]
        self._calls += noted
        if not self._oldest <= now < self._ends:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Go to the slice of `now`, noting the sums at the beginning of each one passed."""
        slices = (now - self._starts) / self._width if now >= self._ends else 1.0
        passed = int(min(slices, SLICES))
        self._notes.extend([Figures(self._calls, self._failures, self._slow)] * passed)
        moved_on = self._starts + passed * self._width
        self._begin_slice(moved_on if moved_on <= now < moved_on + self._width else now)

    def _begin_slice(self, starts: float) -> None:
        self._starts = starts
        self._ends = starts + self._width
        self._oldest = starts - self._width


class CallWindow:
    """The last so many calls.

    Args:
        size: How many calls are remembered, at least 1.
    """

    __slots__ = ("_calls", "_failures", "_next", "_ring", "_slow", "last_trouble", "success_matters")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)  # for each call: 1 if it failed, plus 2 if it was slow
        self._next = 0
        self._calls = self._failures = self._slow = 0
        self.success_matters = True
        self.last_trouble = -inf

    def note(self, now: float) -> bool:  # noqa: ARG002 - calls are counted, not seconds
        """Leave it to `succeed`: a call takes the place of another."""
        return False

    def succeed(self, now: float) -> None:  # noqa: ARG002 - calls are counted, not seconds
        """Count a call that succeeded in good time."""
        self._push(0)

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count a call that failed, was slow, or both."""
        self._push(failed + 2 * slow)
        self.last_trouble = now

    def figures(self, now: float) -> Figures:  # noqa: ARG002 - calls are counted, not seconds
        """Return what is in the window."""
        return Figures(self._calls, self._failures, self._slow)

    def _push(self, call: int) -> None:
        ring, place = self._ring, self._next
        leaving, ring[place] = ring[place], call
        self._next = (place + 1) % len(ring)
        self._calls = min(self._calls + 1, len(ring))
        self._failures += (call & 1) - (leaving & 1)
        self._slow += (call >> 1) - (leaving >> 1)
        # A full ring of quick successes looks the same after one more of them.
        self.success_matters = bool(self._failures or self._slow or self._calls < len(ring))
