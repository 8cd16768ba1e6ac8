"""What a limiter asks for units: its store as it is, or behind what was asked for besides.

A local share (`share`) stands before the store, and the outage policy (`outage`) before both: a batch that is
charged already is used up also while the store is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resilience.limiter.outage import AsyncFailsafe, Failsafe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision, Quota
    from resilience.limiter.outage import Outage
    from resilience.stores import AsyncStore, Store


class Source(Protocol):
    """What decides, as the methods of `resilience.stores.Store` do."""

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        ...

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        ...

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        ...


class AsyncSource(Protocol):
    """The same, awaited."""

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        ...

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        ...

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        ...


def source_of(store: Store, share: float | None, quotas: Sequence[Quota], outage: Outage | None) -> Source:
    """Return `store`, behind a share of `quotas` and an outage policy where there are any."""
    source: Source = store
    if share is not None:
        from resilience.limiter.share import Sharing, share_of  # noqa: PLC0415 - few ask for it

        batches = share_of(share, quotas, store)
        source = source if batches is None else Sharing(source, batches, store.clock)
    return source if outage is None else Failsafe(source, outage)


def async_source_of(
    store: AsyncStore, share: float | None, quotas: Sequence[Quota], outage: Outage | None
) -> AsyncSource:
    """Return the same, awaited."""
    source: AsyncSource = store
    if share is not None:
        from resilience.limiter.share import AsyncSharing, share_of  # noqa: PLC0415 - few ask for it

        batches = share_of(share, quotas, store)
        source = source if batches is None else AsyncSharing(source, batches, store.clock)
    return source if outage is None else AsyncFailsafe(source, outage)
