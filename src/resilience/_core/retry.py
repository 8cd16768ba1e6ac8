"""Whether another attempt follows a failure that is worth one, and after how long.

Rules, in this order:
    - No attempt above `max_attempts`.
    - What the other side asked for (Retry-After) is waited for in full, and up to a tenth longer, so that
      its clients do not come back together. It may exceed `max_delay`, and is no part of the backoff's
      own sequence. It is never shortened: where it is too long, this call gives up now.
    - No delay is begun that would not end before the deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience._core.backoff import Backoff

UPWARD_JITTER: Final = 0.1
"""The greatest share by which a Retry-After is lengthened."""

NO_ATTEMPTS_LEFT: Final = "no attempts left"
DEADLINE_PASSED: Final = "the deadline has passed"


class Wait(NamedTuple):
    """Make another attempt after a delay."""

    delay: float
    """Seconds."""
    drawn: float
    """Seconds of the backoff alone: the `previous` of its next delay."""


class Limits(NamedTuple):
    """How far retries go."""

    max_attempts: int
    """At least 1."""
    max_retry_after: float
    """Seconds; a Retry-After above this is not waited for."""
    backoff: Backoff

    def decide(
        self,
        attempt: int,
        previous: float | None,
        retry_after: float | None,
        time_left: float | None,
        random: Callable[[], float],
    ) -> Wait | str:
        """Return the wait before the next attempt or, as a string, why there is none.

        Args:
            attempt: The number of the attempt that failed, counted from 1.
            previous: `drawn` of this call's last wait; None before the first.
            retry_after: Seconds that the other side asked for; None where it did not.
            time_left: Seconds until the deadline; None without one.
            random: Draws a number from 0 up to, not including, 1.
        """
        if attempt >= self.max_attempts:
            return NO_ATTEMPTS_LEFT
        if time_left is not None and time_left <= 0:
            return DEADLINE_PASSED
        drawn = self.backoff.delay(attempt, previous, random)
        if retry_after is None:
            delay = drawn
        elif retry_after > self.max_retry_after:
            return (
                f"Retry-After of {retry_after:.1f} s exceeds max_retry_after of {self.max_retry_after:.1f} s"
            )
        elif time_left is not None and retry_after >= time_left:
            return f"Retry-After of {retry_after:.1f} s is longer than the {time_left:.1f} s left"
        else:
            delay = max(drawn, retry_after * (1 + UPWARD_JITTER * random()))
        if time_left is not None and delay >= time_left:
            return f"a delay of {delay:.1f} s would not end in the {time_left:.1f} s left"
        return Wait(delay, drawn)
