"""What the calls of a retry policy have come to: counts for people, and payments from the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from resilience.retry.budget import BOOKS

if TYPE_CHECKING:
    from resilience.retry.budget import RetryBudget


class RetryStats(NamedTuple):
    """The counts of a retry policy at one moment.

    Example:
        >>> stats = RetryStats(total_retries=20, successful_retries=13, failed_retries=2)
        >>> stats.retry_success_percent
        '86.67%'
    """

    total_retries: int = 0
    """Attempts after the first that have ended, however they did."""
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
    """The running counts, shared by a policy and all that `replace` made of it. Guarded by the books."""

    __slots__ = ("breaker", "budget", "failed", "retries", "successful")

    def __init__(self) -> None:
        self.retries = 0
        self.successful = 0
        self.failed = 0
        self.breaker = 0
        self.budget = 0


class Ledger:
    """Settles each event of a call with budget and counts at once: exact under threads, one round of a lock.

    A retry is counted when it ends, so that a count never goes back.

    Args:
        budget: What pays for retries; None if nothing limits them.
        counts: Where events are counted.
    """

    __slots__ = ("_counts", "budget")

    def __init__(self, budget: RetryBudget | None, counts: Counts) -> None:
        self.budget = budget
        self._counts = counts

    def sharing_counts(self, other: Ledger) -> Ledger:
        """Return a ledger with this budget that counts together with `other`."""
        return Ledger(self.budget, other._counts)

    def pay(self, attempt: int) -> bool:
        """Pay for the retry after the failure of `attempt`; return whether that was possible."""
        budget = self.budget
        if budget is None and attempt == 1:
            return True  # nothing to settle
        with BOOKS.lock:
            if budget is not None and not budget.state.pay():
                self._counts.budget += 1
                return False
            if attempt > 1:
                self._counts.retries += 1
            return True

    def unpay(self) -> None:
        """Give back what was paid for a retry that is not begun."""
        if self.budget is not None:
            self.budget.cancel()

    def succeeded(self, attempt: int) -> None:
        """Settle a call that succeeded with `attempt`."""
        budget = self.budget
        if attempt == 1:
            if budget is not None and budget.state.spent:
                budget.credit()
            return
        counts = self._counts
        with BOOKS.lock:
            counts.retries += 1
            counts.successful += 1
            if budget is not None:
                budget.state.earn(budget.state.refund)

    def given_up(self, attempt: int) -> int:
        """Settle a call that failed for good with `attempt`; return its number among all given up."""
        counts = self._counts
        with BOOKS.lock:
            if attempt > 1:
                counts.retries += 1
                counts.failed += 1
            BOOKS.given_up = number = BOOKS.given_up + 1
            return number

    def abandoned(self, attempt: int) -> None:
        """Settle a call that was cancelled during `attempt`."""
        if attempt > 1:
            with BOOKS.lock:
                self._counts.retries += 1

    def rejected_by_breaker(self) -> None:
        """Count an attempt that the breaker did not let through."""
        with BOOKS.lock:
            self._counts.breaker += 1

    def read(self) -> RetryStats:
        """Return all counts as they are at one moment."""
        counts = self._counts
        with BOOKS.lock:
            return RetryStats(counts.retries, counts.successful, counts.failed, counts.breaker, counts.budget)
