"""Who waits for which key, in order of arrival.

Rules:
    - Only the first in a key's line may try; the others wait for the line to move. So a call that costs
      much is not overtaken for ever by those that cost little.
    - Keys have nothing to do with each other.
    - Whoever leaves from the front, served or not, hands the place on to the next.
"""

from __future__ import annotations

from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")


class Lines(Generic[Waiter]):
    """The lines of one limiter. Its caller holds a lock.

    `by_key` is true while anybody waits, whoever for.
    """

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[str | bytes, dict[Waiter, int]] = {}

    def join(self, key: str | bytes, waiter: Waiter, cost: int) -> None:
        """Let `waiter` wait for `cost` units, behind the others."""
        self.by_key.setdefault(key, {})[waiter] = cost

    def leave(self, key: str | bytes, waiter: Waiter) -> Waiter | None:
        """Let `waiter` go; return who is first now, if that has changed."""
        line = self.by_key.get(key, {})
        was_first = self.first(key) is waiter
        line.pop(waiter, None)
        if not line:
            self.by_key.pop(key, None)
        return self.first(key) if was_first else None

    def first(self, key: str | bytes) -> Waiter | None:
        """Return who may try."""
        return next(iter(self.by_key.get(key, {})), None)

    def units_before(self, key: str | bytes, waiter: Waiter | None = None) -> int:
        """Return the units that those before `waiter` wait for, or all who wait."""
        units = 0
        for other, cost in self.by_key.get(key, {}).items():
            if other is waiter:
                break
            units += cost
        return units
