"""When answers come that must not tell anything by their time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.clock import Clock

STEP: Final = 0.1
"""Seconds. What one case takes longer than another, a message to write, say, is a small part of it."""


class Pace:
    """Has answers come at whole steps after their requests, whatever took how long meanwhile.

    Args:
        sleep: Waits.
        clock: What the steps are counted on.
    """

    def __init__(self, sleep: Callable[[float], Awaitable[None]], clock: Clock = SYSTEM_CLOCK) -> None:
        self._sleep = sleep
        self._clock = clock

    def begin(self) -> float:
        """Return when a request came."""
        return self._clock.now()

    async def even_out(self, begun_at: float) -> None:
        """Wait until a whole number of steps have passed since then, one at least."""
        taken = self._clock.now() - begun_at
        await self._sleep((taken // STEP + 1) * STEP - taken)
