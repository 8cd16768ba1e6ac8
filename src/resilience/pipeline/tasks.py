"""The task that runs at this moment, found out fast.

From Python 3.12 on, asyncio says so in some nanoseconds. In 3.11 most of the time goes into asking which
event loop is running, for which the process asks the system for its own number each time. So there the loop
of the last question is remembered. As long as it says that this thread runs it, a thread's loop needs no
asking; else it is asked for anew. In a forked child it says so for ever, wrongly, and is forgotten.

What is remembered is one reference, read and replaced at once, so this is right for any number of threads,
also without the GIL. The loop is not kept alive by it.

Whoever imports this module needs asyncio anyway.
"""

from __future__ import annotations

import asyncio
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ref

from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class _Seen:
    """The loop of the last question."""

    __slots__ = ("__weakref__", "loop")

    loop: Callable[[], Any]

    def __init__(self) -> None:
        survive_fork(self)

    def after_fork(self) -> None:
        """Forget it."""
        self.loop = lambda: None


def remembering(
    running: Mapping[asyncio.AbstractEventLoop | None, asyncio.Task[Any]],
) -> Callable[[], asyncio.Task[Any] | None]:
    """Return a function that returns the task of this thread; None where its loop runs something else.

    Where no loop is running, it raises the RuntimeError of asyncio.

    Args:
        running: The tasks that run at this moment, by their loops.
    """
    seen = _Seen()

    def present_task() -> asyncio.Task[Any] | None:
        loop_of = seen.loop
        known = loop_of()
        if known is not None and known._thread_id == get_ident():  # noqa: SLF001 - see below
            return running.get(known)
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.BaseEventLoop):  # others need not say which thread runs them
            seen.loop = ref(loop)
        return asyncio.current_task(loop)

    return present_task


present_task: Callable[[], asyncio.Task[Any] | None] = (
    asyncio.current_task
    if sys.version_info >= (3, 12)
    # No name of 3.11 will change any more, be it private.
    else remembering(vars(asyncio.tasks)["_current_tasks"])
)
"""Returns the task that runs at this moment."""
