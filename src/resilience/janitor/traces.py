"""Who allocates memory and keeps it: `tracemalloc`, on demand only.

It makes every allocation of the process several times as expensive, and there is only one of it. So a trace
ends by itself, does not begin where somebody is tracing already, and does not go on in a forked child.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Generator


class Growth(NamedTuple):
    """Memory that one source line has allocated during a trace, and not released."""

    file: str
    line: int
    size: int
    """Bytes."""
    blocks: int


class _Tracer:
    """The one trace that a process can have."""

    def __init__(self) -> None:
        self._running = False
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and end the trace: whoever began it in the parent ends it only there."""
        self._lock = RLock()
        if self._running:
            self.end()

    def begin(self) -> None:
        import tracemalloc  # noqa: PLC0415 - on demand only

        with self._lock:
            if tracemalloc.is_tracing():
                raise RuntimeError(
                    "tracemalloc is running already, and ending it here would end it there: try later"
                )
            tracemalloc.start()
            self._running = True

    def end(self) -> None:
        import tracemalloc  # noqa: PLC0415 - on demand only

        with self._lock:
            tracemalloc.stop()
            self._running = False


_TRACER = _Tracer()


@contextmanager
def tracing() -> Generator[None]:
    """Trace allocations in the block.

    Raises:
        RuntimeError: Somebody is tracing already.
    """
    _TRACER.begin()
    try:
        yield
    finally:
        _TRACER.end()


def growth(top: int) -> list[Growth]:
    """Return the `top` source lines that have allocated the most since the trace began, and keep it."""
    import tracemalloc  # noqa: PLC0415 - on demand only

    # All that was traced was allocated since the trace began, so this snapshot is the difference.
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, tracemalloc.__file__)])
    return [
        Growth(frame.filename, frame.lineno, statistic.size, statistic.count)
        for statistic in snapshot.statistics("lineno")[:top]
        for frame in statistic.traceback
    ]
