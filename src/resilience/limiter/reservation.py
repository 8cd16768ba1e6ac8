"""Units that a block takes when it begins, and may give back: to count only what failed, say.

Without a refund the units stay taken, however the block ends: what it did may well have been done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from resilience._core.quota import Decision


class Reservation:
    """Units that are taken when the block begins, and may be given back; made by `RateLimiter.reserve`.

    It is for one block. Threads may share it: of several refunds one gives back.
    """

    def __init__(
        self,
        take: Callable[[], Sequence[Decision]],
        required: Callable[[Sequence[Decision]], Decision],
        give_back: Callable[[Sequence[int]], None],
    ) -> None:
        self._take = take
        self._required = required
        self._give_back = give_back
        self._refundable: list[list[int]] = []
        self.decision: Decision
        """What was decided when the block began."""

    def __enter__(self) -> Self:
        """Take the units.

        Raises:
            RateLimitedError: They do not fit.
        """
        decisions = self._take()
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
        """Give back what has not lapsed of the units; a second refund does nothing.

        Raises:
            StoreUnavailable: The store could not; the units count until they lapse.
        """
        try:
            receipts = self._refundable.pop()  # atomic, also without the GIL
        except IndexError:
            return
        self._give_back(receipts)


class AsyncReservation:
    """Units that are taken when the block begins, and may be given back; made by `AsyncRateLimiter.reserve`.

    It is for one block. Tasks may share it: of several refunds one gives back. A refund that is cancelled
    still gives back.
    """

    def __init__(
        self,
        take: Callable[[], Awaitable[Sequence[Decision]]],
        required: Callable[[Sequence[Decision]], Decision],
        give_back: Callable[[Sequence[int]], Awaitable[None]],
    ) -> None:
        self._take = take
        self._required = required
        self._give_back = give_back
        self._refundable: list[list[int]] = []
        self.decision: Decision
        """What was decided when the block began."""

    async def __aenter__(self) -> Self:
        """Take the units.

        Raises:
            RateLimitedError: They do not fit.
        """
        await heed_cancellation()
        decisions = await self._take()
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
        """Give back what has not lapsed of the units; a second refund does nothing.

        Raises:
            StoreUnavailable: The store could not; the units count until they lapse.
        """
        try:
            receipts = self._refundable.pop()  # atomic, also without the GIL
        except IndexError:
            return
        await self._give_back(receipts)


async def heed_cancellation() -> None:
    """Let a cancellation that is on its way strike now, before anything is charged."""
    import asyncio  # noqa: PLC0415 - whoever gets here has it loaded

    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)
