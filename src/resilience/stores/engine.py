"""What speaks to one kind of server for `resilience.stores.remote`: what it is asked, and what it raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from resilience.stores import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.stores import Holding


class Lost(Exception):  # noqa: N818 - the name says what is the case
    """There was no connection, or no whole reply in time: unknown whether the server has done it.

    It may be asked again with the same token. The message says what happened, without a full stop; the
    client's error is its cause.
    """


class Unable(StoreUnavailable):
    """The server answered that it is not able to at the moment: it is starting, say, or was told to stop.

    For the breaker that is as bad as no answer. Other errors that a server answers are no sign of an outage.
    """


class Engine(Protocol):
    """Speaks to one kind of server. Threads may share it, and it survives a fork.

    Each method returns or raises by `until`, an instant of the store's clock. A connection on which a reply
    may still be on its way is never used again.

    Raises, each of them:
        Lost: There was no connection, or no whole reply.
        Unable: The server is not able at the moment.
        StoreUnavailable: The server answered by an error, with what to do about it. It has taken nothing.
    """

    def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself.

        Of two calls with the same `token`, 16 random bytes, the second takes nothing if the first has taken.
        """
        ...

    def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float) -> None:
        """Give back charges that were taken, once for each `token`."""
        ...

    def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        ...

    def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...

    def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        ...


class AsyncEngine(Protocol):
    """The same for event loops, each method awaited. A cancelled one leaves at once."""

    async def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself.

        Of two calls with the same `token`, 16 random bytes, the second takes nothing if the first has taken.
        """
        ...

    async def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    async def refund(
        self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float
    ) -> None:
        """Give back charges that were taken, once for each `token`."""
        ...

    async def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        ...

    async def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...

    async def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        ...
