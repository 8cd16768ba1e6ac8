"""The task that runs at this moment, found out fast.

From Python 3.12 on, asyncio says so in some nanoseconds. In 3.11 most of the time goes into asking which
event loop is running, for which the process asks the system for its own number each time. So there the loop
of the last question is remembered, with its thread: while that loop runs a task, it is that thread's loop
still, since a thread runs one at a time. Else it is asked for anew.

What is remembered is one tuple, read and replaced at once, so this is right for any number of threads, also
without the GIL. The loop is not kept alive by it.

Whoever imports this module needs asyncio anyway.
"""

from __future__ import annotations

import asyncio
import sys
from threading import get_ident
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def remembering(
    running: Mapping[asyncio.AbstractEventLoop | None, asyncio.Task[Any]],
) -> Callable[[], asyncio.Task[Any] | None]:
    """Return a function that returns the task of this thread; None where its loop runs something else.

    Where no loop is running, it raises the RuntimeError of asyncio.

    Args:
        running: The tasks that run at this moment, by their loops.
    """
    seen: tuple[int, Callable[[], asyncio.AbstractEventLoop | None]] = (0, lambda: None)

    def present_task() -> asyncio.Task[Any] | None:
        nonlocal seen
        thread, loop_of = seen
        if thread == get_ident():
            task = running.get(loop_of())
            if task is not None:
                return task
        loop = asyncio.get_running_loop()
        seen = (get_ident(), ref(loop))
        return asyncio.current_task(loop)

    return present_task


present_task: Callable[[], asyncio.Task[Any] | None] = (
    asyncio.current_task
    if sys.version_info >= (3, 12)
    # No name of 3.11 will change any more, be it private.
    else remembering(vars(asyncio.tasks)["_current_tasks"])
)
"""Returns the task that runs at this moment."""
