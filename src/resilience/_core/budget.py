"""The arithmetic of a retry budget: tokens that retries spend and successes earn.

Rules:
    - A retry costs `retry_cost` and is refused where that much is not left.
    - A retry that succeeds gives `refund` back; a call that succeeds at once earns `success_credit`.
    - There are never more than `capacity` tokens, and never fewer than none.

When everything fails nothing is earned, so attempts per call fall to 1.0 and a storm cannot feed itself.
Counted are whole millionths of a token, so ten credits of 0.1 make exactly one. What is counted is how
much is *spent*: 0 is a full budget, and the success path has one number to look at.

Sources: Brooker, "Fixing retries with token buckets and circuit breakers" (2022); the refund after the
retry quota of the AWS SDKs.
"""

from __future__ import annotations

from typing import Final

UNITS: Final = 1_000_000
"""Units in a token."""


class Tariff:
    """What a retry costs and what successes earn, in units; it never changes.

    Args:
        capacity: Tokens when full.
        retry_cost: Tokens that a retry takes.
        refund: Tokens that come back when it succeeds.
        success_credit: Tokens that a call earns which succeeds at once.

    Example:
        >>> tariff = Tariff(capacity=5.0, retry_cost=1.0, refund=1.0, success_credit=0.1)
        >>> spent = tariff.withdraw(0)
        >>> spent, tariff.earn(spent, tariff.success_credit)
        (1000000, 900000)
    """

    __slots__ = ("capacity", "refund", "retry_cost", "success_credit")

    def __init__(self, capacity: float, retry_cost: float, refund: float, success_credit: float) -> None:
        self.capacity = round(capacity * UNITS)
        self.retry_cost = round(retry_cost * UNITS)
        self.refund = round(refund * UNITS)
        self.success_credit = round(success_credit * UNITS)

    def withdraw(self, spent: int) -> int | None:
        """Return how much is spent once a retry is paid for; None where it cannot be."""
        afterwards = spent + self.retry_cost
        return afterwards if afterwards <= self.capacity else None

    def earn(self, spent: int, units: int) -> int:
        """Return how much is spent once `units` have come back."""
        return spent - units if units < spent else 0
