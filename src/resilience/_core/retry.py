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

    def next_delay(
        self,
        attempt: int,
        drawn: float | None,
        retry_after: float | None,
        time_left: float | None,
        random: Callable[[], float],
    ) -> tuple[float, float] | str:
        """Decide what follows a failed attempt.

        Args:
            attempt: Its number, counted from 1.
            drawn: What the backoff drew last in this call; None the first time.
            retry_after: Seconds that the other side asked for; None where it did not.
            time_left: Seconds until the deadline; None without one.
            random: Draws a number from 0 up to, not including, 1.

        Returns:
            The seconds to wait before the next attempt, and those that the backoff drew; or, as a string,
            why there is no other attempt.
        """
        if attempt >= self.max_attempts:
            return NO_ATTEMPTS_LEFT
        delay = drawn = self.backoff.delay(attempt, drawn, random)
        if retry_after is not None:
            asked = f"Retry-After of {retry_after:.1f} s"
            if retry_after > self.max_retry_after:
                return f"{asked} is longer than max_retry_after, {self.max_retry_after:.1f} s"
            if time_left is not None and retry_after >= time_left:
                return f"{asked} is longer than the {time_left:.1f} s left"
            longest = retry_after * (1 + UPWARD_JITTER)
            if time_left is not None:
                longest = min(longest, time_left)
            delay = max(delay, retry_after + (longest - retry_after) * random())
        if time_left is not None and delay >= time_left:
            return f"the next delay of {delay:.1f} s would not end within the {time_left:.1f} s left"
        return delay, drawn
