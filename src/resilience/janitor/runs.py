"""One run of a janitor, from a start to the stop that belongs to it: in a daemon thread, or in a task."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Generator


class Run(Protocol):
    """What both have in common."""

    def is_alive(self) -> bool:
        """Return whether the work is still being done."""
        ...


class ThreadRun:
    """Work in a daemon thread, which does not keep the interpreter from exiting."""

    def __init__(self, work: Callable[[threading.Event], None], name: str) -> None:
        self.stopping = threading.Event()
        self.finished = threading.Event()
        self._work = work
        self._thread = threading.Thread(target=self._do, name=name, daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Return whether the work is still being done."""
        return not self.finished.is_set()

    def is_current(self) -> bool:
        """Return whether it is the work that asks."""
        return self._thread is threading.current_thread()

    def join(self) -> None:
        """Wait for the thread, whose work is finished."""
        self._thread.join()

    def _do(self) -> None:
        try:
            self._work(self.stopping)
        finally:
            self.finished.set()


class TaskRun:
    """Work in a task of the running event loop."""

    def __init__(self, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], name: str) -> None:
        import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

        self.stopping = asyncio.Event()
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work(self.stopping), name=name)
        self._task.add_done_callback(lambda _: self.finished.set())

    def is_alive(self) -> bool:
        """Return whether the work is still being done. On a loop that was closed, it is not."""
        return not (self._task.done() or self._loop.is_closed())

    def is_here(self) -> bool:
        """Return whether the event loop that runs in this thread is the work's."""
        import asyncio  # noqa: PLC0415 - see above

        return self._loop is asyncio.get_running_loop()

    def is_current(self) -> bool:
        """Return whether it is the work that asks."""
        import asyncio  # noqa: PLC0415 - see above

        return self._task is asyncio.current_task()

    def cancel(self) -> None:
        """Cancel the task."""
        self._task.cancel()


@contextmanager
def strays_are_errors() -> Generator[None]:
    """Make an error of a cancellation that is not meant for the task which runs the block.

    It comes out of something that the block awaits and that somebody else has cancelled: a pool that is
    being closed, say. Untouched, it would end the task without a word.

    Raises:
        RuntimeError: Something that the block awaited was cancelled, and not the task itself.
    """
    import asyncio  # noqa: PLC0415 - see above

    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what it waited for was cancelled, and not the task itself") from error
