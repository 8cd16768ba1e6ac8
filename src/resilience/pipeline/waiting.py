"""Limiters in a pipeline that wait for their units, where they would otherwise refuse."""

from __future__ import annotations

from typing import Final

from resilience.checks import number
from resilience.limiter import AsyncRateLimiter, RateLimiter


class Waiting:
    """A limiter whose calls wait for their units, in order of arrival, as `acquire` does.

    Args:
        limiter: Who counts.
        timeout: Seconds that a call waits at most, at least 0; None for as long as its deadline allows. With
            0 it is as good as the limiter by itself: what does not fit now is refused.

    Raises:
        TypeError, ValueError: `limiter` is none, or `timeout` is out of its range.

    Example:
        >>> Waiting(RateLimiter("10/second", name="search"), timeout=2.0)
        <Waiting for <RateLimiter 'search': 10/second>, at most 2 s>
    """

    def __init__(self, limiter: RateLimiter | AsyncRateLimiter, timeout: float | None = None) -> None:
        if not isinstance(limiter, RateLimiter | AsyncRateLimiter):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"limiter={limiter!r} must be a RateLimiter or an AsyncRateLimiter")
        self.limiter: Final = limiter
        """Who counts."""
        self.timeout: Final = None if timeout is None else number("timeout", timeout, least=0)
        """Seconds that a call waits at most; None for as long as its deadline allows."""

    @property
    def waits(self) -> bool:
        """Whether a call may wait at all."""
        return self.timeout != 0

    def __repr__(self) -> str:
        """Show for whom, and how long."""
        most = "" if self.timeout is None else f", at most {self.timeout:g} s"
        return f"<Waiting for {self.limiter!r}{most}>"
