"""The clock of a simulation: what `resilience.simulation.loop` counts, for the policies to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from resilience.clock import SystemClock

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

BEGINNING: Final = 1_700_000_000.0
"""What `wall` says at the beginning, in Unix seconds: always the same, so that runs repeat themselves."""


class SimulatedClock(SystemClock):
    """Reads the time of a simulated event loop, and waits on it.

    Args:
        now: Returns the loop's time, in seconds.

    Tasks wait as they do in production, by the loop. A thread cannot wait: there is only the one that all
    clients and servers run on, so a policy must be the async twin.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now  # the loop's own method, which spares a call

    def wall(self) -> float:
        """Return the Unix seconds that it is in the simulation."""
        return BEGINNING + self.now()

    def sleep(self, seconds: float, /) -> NoReturn:  # type: ignore[override]  # see wall
        """Refuse to block.

        Raises:
            BlockingError: Always.
        """
        raise BlockingError(f"a sleep of {seconds!r} s would stop all clients at once")

    def wait(self, event: threading.Event, timeout: float | None) -> NoReturn:  # noqa: ARG002 - it will not wait anyway
        """Refuse to block.

        Raises:
            BlockingError: Always.
        """
        raise BlockingError(f"waiting for {event!r} would stop all clients at once")


class BlockingError(RuntimeError):
    """A policy for threads was run on simulated time, which has but one."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: use the policy's async twin, such as AsyncRetryManager for RetryManager")
