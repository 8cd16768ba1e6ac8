"""An event loop on simulated time: it never waits, but jumps to the next instant at which something is due.

Everything of asyncio that needs no socket and no thread works on it unchanged: tasks, timeouts, events,
queues. So production code runs here as it is, and an hour takes as long as there is work to do in it.

Rules:
    - Time begins at 0.0, and moves only when nothing is left to do at the present instant; then it becomes
      exactly the instant of the next timer.
    - Nothing comes from outside: no socket is watched, no thread is waited for. So one programme with one
      seed has one course, which repeats itself to the last bit.
    - When nothing is due any more, or time has ceased to move, the programme would hang. It is told so.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from resilience.simulation.clock import SimulatedClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    T = TypeVar("T")

RESOLUTION: Final = 1e-9
"""Seconds; timers no further apart are due at once. A float can tell that apart until the 85th day."""

MOST_TURNS: Final = 1_000_000
"""After how many turns of the loop without any time passing it is taken for one that never ends."""


class StandstillError(RuntimeError):
    """Simulated time cannot move on: something waits for what will never happen, or never waits at all."""


class _Selector:
    """Stands where other loops wait for their sockets, and moves the time on instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None) -> None:
        """Move on to the next timer, if nothing is left to do before."""
        if timeout:
            self._turns = 0
            self._loop.jump()
        elif timeout is None:
            raise StandstillError(
                f"nothing is due after {self._loop.time():g} s, and something still waits: for a thread or a "
                "socket, which a simulation has none of, or for an event that nobody sets"
            )
        else:
            self._turns += 1
            if self._turns > MOST_TURNS:
                raise StandstillError(
                    f"time stands still at {self._loop.time():g} s: something repeats itself without ever "
                    "waiting, such as a retry without a delay and without a last attempt"
                )


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop on simulated time; `simulate` runs a coroutine on one."""

    _scheduled: list[asyncio.TimerHandle]  # asyncio's own heap of timers

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = RESOLUTION
        self._selector = _Selector(self)

    def time(self) -> float:
        """Return the simulated seconds since the beginning."""
        return self._now

    def jump(self) -> None:
        """Make it the instant of the next timer."""
        self._now = self._scheduled[0].when()

    def _process_events(self, event_list: None) -> None:
        """Do nothing: there are no sockets, and so nothing has come from one."""

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps, and so nobody need wake it."""


def simulate(main: Callable[[SimulatedClock], Coroutine[Any, Any, T]]) -> T:
    """Run `main` on simulated time, and return what it returns.

    Args:
        main: A coroutine function of the clock, which is to be given to every policy.

    Raises:
        RuntimeError: An event loop is running in this thread already; use `asyncio.to_thread`.
        StandstillError: It waits for what will never happen, or never waits.

    Example:
        >>> async def main(clock):
        ...     await clock.sleep_async(3600.0)
        ...     return clock.now()
        >>> simulate(main)
        3600.0
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # as it should be
        pass
    else:
        raise RuntimeError(
            "an event loop is running in this thread, and a simulation brings its own: run it in another "
            "thread, by await asyncio.to_thread(...)"
        )
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        loop = runner.get_loop()
        return runner.run(main(SimulatedClock(loop.time)))
