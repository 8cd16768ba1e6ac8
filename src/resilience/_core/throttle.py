"""How much of its own traffic a client holds back from what refuses it; driven by `resilience.throttle`.

The rule is that of the SRE book, "Handling Overload", "Client-Side Throttling": of the calls that would be
made, refuse with the probability

    p = max(0, (requests - K * accepts) / (requests + 1))

where both are counted over the last seconds, and what is refused here is a request as well. With K = 2,
the dependency gets about one call to refuse for each that it accepts, so it is soon known when it takes more.

Rules:
    - A call is counted when its outcome is known, not when it is made: else a burst at the beginning would
      look like requests that nobody accepts. One whose outcome says nothing is not counted at all.
    - p stays below a bound, and the window is short: after a total failure the share that is let through has
      to grow from what little it sees accepted.

The caller holds its lock around every call of a method here, but for `is_calm` and `note_accepted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilience._core.window import TimeWindow

if TYPE_CHECKING:
    from resilience._core.window import Figures


class Policy(NamedTuple):
    """The settings of a throttle; checked by who makes it."""

    ratio: float
    """K: how many requests are made for each one that is accepted, before any is held back."""
    window: float
    """Seconds that a request counts."""
    most: float
    """What p never exceeds."""


class Throttle:
    """What became of the last requests, and how many of the next are to be refused.

    Args:
        policy: The settings.
        now: When counting begins.

    Example:
        >>> throttle = Throttle(Policy(ratio=2.0, window=10.0, most=0.9), now=0.0)
        >>> throttle.accepted(0.0)
        >>> for _ in range(5):
        ...     throttle.rejected(0.0)
        >>> round(throttle.probability(0.0), 3)          # (6 - 2) / 7
        0.571
        >>> throttle.admits(0.0, draw=0.5), throttle.admits(0.0, draw=0.7)
        (False, True)
    """

    __slots__ = ("_policy", "_window")

    def __init__(self, policy: Policy, now: float) -> None:
        self._policy = policy
        self._window = TimeWindow(policy.window, now)

    def is_calm(self, now: float) -> bool:
        """Whether no request that counts was refused, so that p is 0. Needs no lock.

        It reads one attribute, which is replaced as a whole. A refusal that is just being counted is seen by
        the next call.
        """
        return self._window.last_trouble + self._policy.window < now

    def figures(self, now: float) -> Figures:
        """Return the requests that count, and as failures those of them that were not accepted."""
        return self._window.figures(now)

    def probability(self, now: float) -> float:
        """Return p."""
        requests, refused, _ = self._window.figures(now)
        excess = requests - self._policy.ratio * (requests - refused)
        return min(self._policy.most, max(0.0, excess / (requests + 1)))

    def admits(self, now: float, draw: float) -> bool:
        """Say whether a call may be made; one that may not counts as a request.

        Args:
            now: When it would be made.
            draw: A random number from 0 up to, not including, 1.
        """
        if draw >= self.probability(now):
            return True
        self.rejected(now)
        return False

    def note_accepted(self, now: float) -> bool:
        """Count a request that was accepted, if that needs no lock; say whether it did not."""
        return self._window.note(now)

    def accepted(self, now: float) -> None:
        """Count a request that was accepted."""
        self._window.succeed(now)

    def rejected(self, now: float) -> None:
        """Count a request that was not accepted, by the dependency or here."""
        self._window.add(now, failed=True, slow=False)
