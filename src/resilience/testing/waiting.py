"""Waits for a state instead of for a time: tests that sleep are slow on good days and fail on bad ones."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 5.0
"""Real seconds after which a state that has not come is taken to be lost."""

_PAUSE: Final = 0.001


def call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Let `loop` call `callback` soon, from whatever thread; if it is closed, nobody there waits any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)


def wait_until(
    condition: Callable[[], bool],
    timeout: float = PATIENCE,
    awaited: Callable[[], str] = lambda: "the condition to hold",
) -> None:
    """Block this thread until `condition` holds, asking about once a millisecond.

    Args:
        condition: What must become true.
        timeout: Real seconds.
        awaited: Says for the error what was waited for.

    Raises:
        TimeoutError: It does not hold after `timeout` seconds.

    Example:
        >>> import threading
        >>> finished = threading.Event()
        >>> threading.Thread(target=finished.set).start()
        >>> wait_until(finished.is_set)
    """
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= until:
            raise TimeoutError(f"waited {timeout} s for {awaited()}")
        time.sleep(_PAUSE)


async def wait_until_async(
    condition: Callable[[], bool],
    timeout: float = PATIENCE,  # noqa: ASYNC109 - of real time, and the twin has it too
    awaited: Callable[[], str] = lambda: "the condition to hold",
) -> None:
    """Let this loop run until `condition` holds, asking once a tick.

    Args:
        condition: What must become true.
        timeout: Real seconds.
        awaited: Says for the error what was waited for.

    Raises:
        TimeoutError: It does not hold after `timeout` seconds.
    """
    until = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= until:
            raise TimeoutError(f"waited {timeout} s for {awaited()}")
        await asyncio.sleep(0)
