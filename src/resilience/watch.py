"""Ends a block of the present task at an instant, and tells its own cancellation from others'.

A timer cancels the task, as asyncio's own `timeout` does it. At the end of the block the task's requests
for cancellation are counted: where there is one beyond our own and those from before the block, somebody else
wants the task to end, and the `CancelledError` goes on to him. So of nested blocks that end in the same tick
the outer one wins.

Blocks with the same number of seconds have to end in the order in which they began. So they stand in line,
and each loop has one timer for the whole line, not one for each block: nearly all are over long before.

Model: CPython's `Lib/asyncio/timeouts.py`, for the counting.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from resilience.deadline import CURRENT, Instant, leave
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from resilience.clock import Clock

_new_instant: Final[Any] = cast("Any", tuple).__new__  # half the time of `Instant(...)`; each block makes one


class Limit(Protocol):
    """Whose time is watched."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def seconds(self) -> float:
        """How long a block may take; always the same."""
        ...

    @property
    def clock(self) -> Clock:
        """What deadlines are read on."""
        ...

    def ended(self, seconds: float) -> Exception:
        """Return the error for a block that was cancelled after so many seconds."""
        ...


class Line:
    """The blocks of one limit on one loop, in the order in which they will have to end.

    Only the thread of the loop uses it, but for what says whose it is.

    Args:
        loop: The loop, which it does not keep alive.
    """

    __slots__ = ("_context", "_time", "is_armed", "is_of", "pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_of: Callable[[], asyncio.AbstractEventLoop | None] = weakref.ref(loop)
        self.pending: dict[Watch, None] = {}
        self.is_armed = False
        self._context = Context()  # not that of whoever comes first, which it would keep alive

    def arm(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        """Look at the line at this instant of the loop."""
        self.is_armed = True
        loop.call_at(at, self._ring, loop, context=self._context)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the blocks whose time is up, and look again when that of the next one is."""
        self.is_armed = False
        now = loop.time()
        due: list[Watch] = []
        for watch in self.pending:
            if watch.at > now:
                self.arm(loop, watch.at)
                break
            due.append(watch)
        for watch in due:
            del self.pending[watch]
            watch.strike()


class Lines:
    """The lines of one limit, on each loop that it is used on.

    Args:
        limit: It.
    """

    __slots__ = ("__weakref__", "_by_loop", "_lock", "latest", "limit")

    def __init__(self, limit: Limit) -> None:
        self.limit: Final = limit
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Line] = (
            weakref.WeakKeyDictionary()
        )
        self.latest: Line | None = None
        """The line used last, which is nearly always the one that is used next.

        Read and replaced without the lock: whoever reads it looks whether it is of his loop.
        """
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    def of(self, loop: asyncio.AbstractEventLoop) -> Line:
        """Return the line on `loop`."""
        with self._lock:
            line = self._by_loop.get(loop)
            if line is None:
                line = self._by_loop[loop] = Line(loop)
        self.latest = line
        return line

    def watch(self) -> Watch:
        """Return what ends one block of the present task, to be used by `with`."""
        return Watch(self)


class Watch:
    """Ends one block of the present task when its time is up, and sets the context's deadline for it.

    It is for a plain `with`, around whatever is awaited; made for a single block.

    Args:
        lines: Those of the limit whose time it is.
    """

    __slots__ = (
        "_instant",
        "_lines",
        "_pending",
        "_requests",
        "_seconds",
        "_struck",
        "_task",
        "_timer",
        "at",
    )

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._pending: dict[Watch, None] | None

    def __enter__(self) -> None:
        """Set the deadline, and see to it that the block ends by then.

        Raises:
            DeadlineExceeded: The context's deadline has passed.
            RuntimeError: This is no task of a running event loop.
        """
        lines = self._lines
        limit = lines.limit
        loop = asyncio.get_running_loop()
        task: asyncio.Task[Any] | None = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError(
                f"{limit.name} ends what takes too long by cancelling its task, and this is none"
            )
        self._task = task
        self._requests = task.cancelling()
        self._struck = False
        seconds = limit.seconds
        outer = CURRENT.get()
        if outer is not None and (left := outer.left()) < seconds:
            outer.require(limit.name)
            self._end_with(outer, left, loop)
            return
        self._seconds = seconds
        self.at = at = loop.time() + seconds
        line = lines.latest
        if line is None or line.is_of() is not loop:
            line = lines.of(loop)
        self._pending = pending = line.pending
        pending[self] = None
        if not line.is_armed:
            line.arm(loop, at)
        clock = limit.clock
        self._instant = instant = _new_instant(Instant, (clock.now() + seconds, clock, outer, self))
        CURRENT.set(instant)

    def _end_with(self, outer: Instant, left: float, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that the block ends with the deadline of the context, by a timer of its own."""
        self._seconds = left
        self._pending = None
        self._timer = loop.call_at(loop.time() + left, self.strike)
        self._instant = outer._replace(outer=outer, block=self)
        CURRENT.set(self._instant)

    def strike(self) -> None:
        """Cancel the task: the time is up."""
        self._struck = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Return to the deadline from before, and tell whether the time was up.

        Raises:
            Exception: That of the limit: its timer ended the block, and nobody else wanted it to end.
        """
        if self._pending is None:
            self._timer.cancel()
        else:
            self._pending.pop(self, None)
        instant = self._instant
        del self._instant  # it names this block: without each other, both are gone at once
        leave(instant, self)
        if self._struck and self._task.uncancel() <= self._requests and kind is asyncio.CancelledError:
            raise self._lines.limit.ended(self._seconds) from error
