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


class Tokens:
    """A bucket of tokens, full at first.

    Args:
        capacity: Tokens when full.
        retry_cost: Tokens that a retry takes.
        refund: Tokens that come back when it succeeds.
        success_credit: Tokens that a call earns which succeeds at once.

    Example:
        >>> tokens = Tokens(capacity=1.0, retry_cost=1.0, refund=1.0, success_credit=0.1)
        >>> tokens.pay(), tokens.pay()
        (True, False)
        >>> for _ in range(10):
        ...     tokens.earn(tokens.success_credit)
        >>> tokens.pay()
        True
    """

    __slots__ = ("capacity", "refund", "retry_cost", "spent", "success_credit")

    def __init__(self, capacity: float, retry_cost: float, refund: float, success_credit: float) -> None:
        self.capacity = round(capacity * UNITS)
        self.retry_cost = round(retry_cost * UNITS)
        self.refund = round(refund * UNITS)
        self.success_credit = round(success_credit * UNITS)
        self.spent = 0
        """Units that are missing; 0 when full."""

    def pay(self) -> bool:
        """Pay for a retry; return whether that was possible."""
        spent = self.spent + self.retry_cost
        if spent > self.capacity:
            return False
        self.spent = spent
        return True

    def earn(self, units: int) -> None:
        """Take `units` back."""
        self.spent = self.spent - units if units < self.spent else 0
