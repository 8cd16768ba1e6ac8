"""Whether another attempt follows a failure that is worth one, and after how long.

Rules, in this order:
    - No attempt above `max_attempts`.
    - What the other side asked for (Retry-After) is waited for in full, and up to a tenth longer, so that
      its clients do not come back together. It may exceed `max_delay`, and is no part of the backoff's
      own sequence. It is never shortened: where it is too long, this call gives up now.
    - No delay is begun that would not end before the deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience._core.backoff import Backoff

UPWARD_JITTER: Final = 0.1
"""The greatest share by which a Retry-After is lengthened."""

NO_ATTEMPTS_LEFT: Final = "no attempts left"


class Limits:
    """How far retries go; it never changes.

    Args:
        max_attempts: At least 1, the first included.
        max_retry_after: Seconds; a longer Retry-After is not waited for.
        backoff: The delays where nobody asks for one.
    """

    __slots__ = ("backoff", "max_attempts", "max_retry_after")

    def __init__(self, max_attempts: int, max_retry_after: float, backoff: Backoff) -> None:
        self.max_attempts = max_attempts
        self.max_retry_after = max_retry_after
        self.backoff = backoff


class Progress:
    """How far one call has come.

    Args:
        limits: How far it may go.
    """

    __slots__ = ("_drawn", "_limits", "attempt")

    def __init__(self, limits: Limits) -> None:
        self.attempt = 1
        """The number of the attempt that is under way or comes next."""
        self._limits = limits
        self._drawn: float | None = None

    def next_delay(
        self, retry_after: float | None, time_left: float | None, random: Callable[[], float]
    ) -> float | str:
        """Return the seconds to wait after the failed attempt or, as a string, why it was the last.

        Args:
            retry_after: Seconds that the other side asked for; None where it did not.
            time_left: Seconds until the deadline; None without one.
            random: Draws a number from 0 up to, not including, 1.
        """
        limits = self._limits
        if self.attempt >= limits.max_attempts:
            return NO_ATTEMPTS_LEFT
        delay = self._drawn = limits.backoff.delay(self.attempt, self._drawn, random)
        if retry_after is not None:
            if retry_after > limits.max_retry_after:
                return (
                    f"Retry-After of {retry_after:.1f} s exceeds the {limits.max_retry_after:.1f} s allowed"
                )
            if time_left is not None and retry_after >= time_left:
                return f"Retry-After of {retry_after:.1f} s is longer than the {time_left:.1f} s left"
            delay = max(delay, retry_after * (1 + UPWARD_JITTER * random()))
        if time_left is not None and delay >= time_left:
            return f"the next delay of {delay:.1f} s is longer than the {time_left:.1f} s left"
        return delay
