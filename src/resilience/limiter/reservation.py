"""Units that a block takes when it begins, and may give back: to count only what failed, say.

Without a refund the units stay taken, however the block ends: what it did may well have been done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from resilience._core.counting import Charge
    from resilience._core.quota import Decision
    from resilience.stores import AsyncStore, Store


class Reservation:
    """Units that are taken when the block begins, and may be given back; made by `RateLimiter.reserve`.

    It is for one block. Threads may share it: of several refunds one gives back.
    """

    def __init__(
        self, store: Store, charges: list[Charge], required: Callable[[Sequence[Decision]], Decision]
    ) -> None:
        self._store = store
        self._charges = charges
        self._required = required
        self._refundable: list[list[int]] = []
        self.decision: Decision
        """What was decided when the block began."""

    def __enter__(self) -> Self:
        """Take the units.

        Raises:
            RateLimitedError: They do not fit.
        """
        decisions = self._store.take(self._charges)
        self.decision = self._required(decisions)
        self._refundable.append([decision.receipt for decision in decisions])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the units taken."""

    def refund(self) -> None:
        """Give back what has not lapsed of the units; a second refund does nothing."""
        try:
            receipts = self._refundable.pop()  # atomic, also without the GIL
        except IndexError:
            return
        self._store.refund(self._charges, receipts)


class AsyncReservation:
    """Units that are taken when the block begins, and may be given back; made by `AsyncRateLimiter.reserve`.

    It is for one block. Tasks may share it: of several refunds one gives back. A refund that is cancelled
    still gives back.
    """

    def __init__(
        self, store: AsyncStore, charges: list[Charge], required: Callable[[Sequence[Decision]], Decision]
    ) -> None:
        self._store = store
        self._charges = charges
        self._required = required
        self._refundable: list[list[int]] = []
        self.decision: Decision
        """What was decided when the block began."""

    async def __aenter__(self) -> Self:
        """Take the units.

        Raises:
            RateLimitedError: They do not fit.
        """
        await heed_cancellation()
        decisions = await self._store.take(self._charges)
        self.decision = self._required(decisions)
        self._refundable.append([decision.receipt for decision in decisions])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the units taken."""

    async def refund(self) -> None:
        """Give back what has not lapsed of the units; a second refund does nothing."""
        try:
            receipts = self._refundable.pop()  # atomic, also without the GIL
        except IndexError:
            return
        await self._store.refund(self._charges, receipts)


async def heed_cancellation() -> None:
    """Let a cancellation that is on its way strike now, before anything is charged."""
    import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)
