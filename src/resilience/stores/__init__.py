"""Where a limiter keeps its counts, and what it asks of the place.

A store answers in one step: it reads its own clock, decides all the charges it is given, and takes either
all of them or none. So one decision costs one round trip however many quotas and limiters it is about, and
no two processes need to agree on the time.

Each store is one module, imported by whoever wants it:
    - `resilience.stores.memory`: this process only, a few hundred nanoseconds a decision.
    - `resilience.stores.sqlite`: the processes of one machine, through a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilience.errors import ErrorCode, ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.clock import Clock


class StoreUnavailable(ServiceError):  # noqa: N818 - the name says what is the case, as DeadlineExceeded does
    """The store could not decide; nothing is known to have been charged. The engine's error is its cause.

    It is a 503 and never a 429: nobody has called too often.
    """

    internal = True  # the message names files and servers

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, ErrorCode.SERVICE_UNAVAILABLE, retry_after=retry_after)


class Entry(NamedTuple):
    """What a store holds for one key of one counter."""

    counter: Counter
    key: str | bytes
    """The canonical key; `resilience._core.key.parts_of` gives its parts back."""
    remaining: int
    """Units left."""
    reset_after: float
    """Seconds until nothing counts any more."""


class Holding(NamedTuple):
    """What a store holds for some counters."""

    size: int
    """How many keys it holds for them; those that have lapsed but are not freed yet may be among them."""
    entries: tuple[Entry, ...]
    """The keys that count, at most as many as were asked for."""


class Store(Protocol):
    """What a limiter asks of the place where it counts.

    Keys are canonical, and no two charges of one call have both the same counter and the same key. Threads
    may share a store, and it survives a fork.
    """

    @property
    def shared(self) -> bool:
        """Whether all the processes that use the store count together."""
        ...

    @property
    def blocking(self) -> bool:
        """Whether a call may wait for a disk or a network, and so must not be made on an event loop."""
        ...

    @property
    def clock(self) -> Clock:
        """What the store counts time on, and what waiting for it is done on."""
        ...

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

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...


class AsyncStore(Protocol):
    """The same for an event loop: each method is awaited.

    A cancelled call leaves at once. What it may have taken is given back; a refund or a reset is made all
    the same.
    """

    @property
    def shared(self) -> bool:
        """Whether all the processes that use the store count together."""
        ...

    @property
    def clock(self) -> Clock:
        """What the store counts time on, and what waiting for it is done on."""
        ...

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

    async def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...
