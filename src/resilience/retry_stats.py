"""What a retry policy has counted so far."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from resilience.fork import survive_fork


class RetryStats(NamedTuple):
    """The counts of a retry policy at one moment.

    Example:
        >>> stats = RetryStats(total_retries=20, successful_retries=13, failed_retries=2)
        >>> stats.retry_success_percent
        '86.67%'
    """

    total_retries: int = 0
    """Attempts begun after the first."""
    successful_retries: int = 0
    """Calls that succeeded after at least one retry."""
    failed_retries: int = 0
    """Calls that failed for good after at least one retry."""
    circuit_breaker_rejections: int = 0
    """First attempts that the breaker rejected, and retries left out because it was not closed."""
    budget_rejections: int = 0
    """Retries left out because the budget was exhausted."""

    @property
    def retry_success_rate(self) -> float:
        """The share of retried calls that succeeded, 0 to 1.

        It is 1.0 while no retried call has ended: nothing has failed, so an alert on a low rate stays silent.
        """
        ended = self.successful_retries + self.failed_retries
        return self.successful_retries / ended if ended else 1.0

    @property
    def retry_success_percent(self) -> str:
        """`retry_success_rate` for people, such as `'86.67%'`."""
        return f"{self.retry_success_rate:.2%}"

    def as_dict(self) -> dict[str, Any]:
        """Return all counts and both forms of the rate, ready for JSON."""
        return {
            **self._asdict(),
            "retry_success_rate": self.retry_success_rate,
            "retry_success_percent": self.retry_success_percent,
        }


class Counts:
    """The running counts, exact under threads; shared by a policy and all that `replace` made of it."""

    __slots__ = ("__weakref__", "_breaker", "_budget", "_failed", "_lock", "_retries", "_successful")

    def __init__(self) -> None:
        self._retries = 0
        self._successful = 0
        self._failed = 0
        self._breaker = 0
        self._budget = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def retry(self) -> None:
        """Count a retry that begins."""
        with self._lock:
            self._retries += 1

    def successful(self) -> None:
        """Count a call that succeeded after a retry."""
        with self._lock:
            self._successful += 1

    def failed(self) -> None:
        """Count a call that failed for good after a retry."""
        with self._lock:
            self._failed += 1

    def breaker_rejection(self) -> None:
        """Count an attempt that the breaker did not let through."""
        with self._lock:
            self._breaker += 1

    def budget_rejection(self) -> None:
        """Count a retry that the budget did not pay for."""
        with self._lock:
            self._budget += 1

    def read(self) -> RetryStats:
        """Return all counts as they are at one moment."""
        with self._lock:
            return RetryStats(self._retries, self._successful, self._failed, self._breaker, self._budget)
