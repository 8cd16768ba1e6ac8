"""Rate limiters: how much of something each key may take, in which window.

Rules:
    - A decision is made by the store, in one step, by the store's clock. A refusal charges nothing, and of
      several quotas all are charged or none.
    - Only `acquire` waits, in order of arrival for each key. While anybody waits for a key, nobody else
      gets that key's units through the same limiter.
    - Keys are counted under the limiter's name and the quota. So two limiters with the same name and quota
      on one store count together, and a limiter whose quota was changed begins to count anew.
    - Listeners and decorated functions run when nothing is locked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from resilience._core.key import canonical
from resilience._core.quota import merged
from resilience.callables import Kind, kind_of
from resilience.checks import count
from resilience.errors import RateLimitedError
from resilience.limiter.base import GLANCE, Limiter, chosen_store
from resilience.limiter.decorator import limiting, limiting_async
from resilience.limiter.reservation import AsyncReservation, Reservation, heed_cancellation
from resilience.limiter.source import async_source_of, source_of
from resilience.limiter.waiting import AsyncWaiter, Waiter
from resilience.stores.memory import MemoryStore
from resilience.stores.on_loop import on_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from resilience._core.counting import Charge
    from resilience._core.quota import Decision, Quota
    from resilience.clock import Clock
    from resilience.events import Listener
    from resilience.limiter.base import LimiterStats
    from resilience.limiter.decorator import Key, KeyFunction
    from resilience.limiter.outage import OnOutage
    from resilience.stores import AsyncStore, Store


P = ParamSpec("P")
R = TypeVar("R")


class RateLimiter(Limiter):
    """Limits how much each key may take, for threads.

    Args:
        quotas: One or more, as `Quota` or in its notation; a call must fit all of them, or none is charged.
        name: What keys are counted under, and what errors and events call it; the quotas where left out.
            Needed with a `store`.
        store: Where it counts; a `MemoryStore` of its own where left out.
        clock: What time is counted on, where no store is given.
        on_refused: Gets an `events.RateLimited` for each refusal.
        require_shared: Refuse a store in which each process counts by itself.
        on_outage: What a call meets while the store is away. `"open"` lets it pass, uncounted. `"closed"`
            raises `StoreUnavailable`, as None does. `"local"` counts in this process, at a part of the limit.
        processes: How many processes share the limit, as far as expected, at least 1; for `"local"`, whose
            part is `max(1, limit // processes)`.
        share: The part of a quota, above 0 and up to 1, that this process takes from a shared store at once
            for keys that are hot, to hand it out without asking again. It makes `processes * share` of the
            limit the most that a window can be overshot by. None takes each unit when it is used.

    Raises:
        TypeError: No quota is given, or what is given is none; or `processes` or `share` is no number, or
            missing.
        ValueError: A quota cannot be read or is given twice, there is a store but no name, the store is
            not shared though it must be, `clock` is not the store's, or an argument is out of its range.

    Threads may share it. With a `MemoryStore` no call but `acquire` ever blocks.

    Example:
        >>> login = RateLimiter("6/15 minutes", name="login")
        >>> [bool(login.try_acquire("ada", "192.0.2.1")) for _ in range(7)]
        [True, True, True, True, True, True, False]
    """

    def __init__(
        self,
        *quotas: str | Quota,
        name: str | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        on_refused: Listener | None = None,
        require_shared: bool = False,
        on_outage: OnOutage | None = None,
        processes: int | None = None,
        share: float | None = None,
    ) -> None:
        if store is not None and kind_of(store.take) is Kind.ASYNC:
            raise TypeError(f"{type(store).__name__} is awaited: use AsyncRateLimiter, or its sync twin")
        self.store: Store = chosen_store(store, name, clock)
        """Where it counts."""
        super().__init__(quotas, name, self.store, on_refused, require_shared, on_outage, processes)
        self._source = source_of(self.store, share, self._quotas, self.outage)
        is_plain = len(self._counters) == 1 and type(self).try_acquire is RateLimiter.try_acquire
        if is_plain and isinstance(self.store, MemoryStore):
            # One call in place of three on the hottest path there is.
            self.try_acquire = self.store.fast_path(  # type: ignore[method-assign]
                self._counters[0], self._lines.by_key, self._hooks, self._try_acquire
            )

    def try_acquire(self, *key: Key, cost: int = 1) -> Decision:
        """Take `cost` units for `key` if they fit now; never wait.

        Args:
            key: What is counted, in parts; without any, everybody counts together.
            cost: Units, at least 1.

        Returns:
            The decision, true where the call is allowed. A cost above the limit is refused for ever, and
            its `retry_after` is None.

        Raises:
            TypeError: A part is neither str nor int, or `cost` is no whole number.
            ValueError: A part is empty, or `cost` is less than 1.
            StoreUnavailable: The store could not decide.
        """
        return self._try_acquire(*key, cost=cost)

    def acquire(self, *key: Key, cost: int = 1, timeout: float | None = None) -> Decision:
        """Take `cost` units for `key`, waiting for them in order of arrival.

        Whoever waits for other keys is not waited for. A wait that would end after `timeout`, or after the
        deadline of the context, is not begun. Whoever gives up gives up their place in line.

        Args:
            key: As for `try_acquire`.
            cost: Units, at least 1.
            timeout: Seconds to wait at most, from 0; None waits as long as it takes.

        Raises:
            TypeError: `timeout` is no number, or as for `try_acquire`.
            ValueError: `timeout` is negative or not finite, or as for `try_acquire`.
            RateLimitedError: The wait would be too long, or the cost is above the limit.
            DeadlineExceeded: The deadline of the context has passed already.
            StoreUnavailable: The store could not decide.
        """
        patience = self._patience(timeout)
        place = canonical(key)
        decision = self._decide(place, cost)
        if decision:
            return decision
        charges = self.charges(place, cost)
        waiter = Waiter()
        self._join(place, cost, waiter)
        try:
            while True:
                if self.first(place) is waiter:
                    decision = merged(self._source.take(charges))
                    if decision:
                        return decision
                    pause = self._pause(place, decision, patience, 0.0)
                else:
                    behind = self._source.peek([self.behind(charge, waiter) for charge in charges])
                    pause = self._pause(place, self.refusal_behind(merged(behind)), patience, GLANCE)
                waiter.wait(self._clock, pause)
        finally:
            self._leave(place, waiter)

    def require(self, *key: Key, cost: int = 1) -> Decision:
        """Take `cost` units for `key` if they fit now, and raise if they do not.

        Raises:
            RateLimitedError: They do not fit; it carries the decision and its `retry_after`.
        """
        decision = self.try_acquire(*key, cost=cost)
        if not decision:
            raise RateLimitedError(decision)
        return decision

    def peek(self, *key: Key, cost: int = 1) -> Decision:
        """Return what `try_acquire` would decide now, and take nothing."""
        charges = self.charges(canonical(key), cost)
        if self.first(charges[0].key) is not None:
            return self.refusal_behind(merged(self._source.peek(list(map(self.behind, charges)))))
        return merged(self._source.peek(charges))

    def reset(self, *key: Key) -> None:
        """Forget what counts for `key`, after a successful login, say."""
        place = canonical(key)
        self._source.reset(self._counters, place)
        self.stir(place)

    def reserve(self, *key: Key, cost: int = 1) -> Reservation:
        """Return a context manager that takes `cost` units, and can give them back.

        Entering it raises as `require` does. Without a `refund` the units stay taken, whatever happens.

        Example:
            >>> login = RateLimiter("6/15 minutes", name="login")
            >>> with login.reserve("ada") as charge:          # count only what failed
            ...     password_is_right = True
            ...     if password_is_right:
            ...         charge.refund()
            >>> login.peek("ada").remaining
            6
        """
        charges = self.charges(canonical(key), cost)
        place = charges[0].key

        def give_back(receipts: Sequence[int]) -> None:
            self._source.refund(charges, receipts)
            self.stir(place)

        return Reservation(
            lambda: self._take(charges), lambda decisions: self.required(place, merged(decisions)), give_back
        )

    def limit(
        self, *, key: KeyFunction | None = None, cost: int = 1
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that lets each call of a function take `cost` units, or raises.

        Args:
            key: A function of the call's arguments that returns the key, or a tuple of its parts; without
                it, all calls count together. What it raises goes to the caller, and nothing is charged.
            cost: Units a call takes.

        Raises:
            TypeError: The function is a coroutine or generator function, `key` is no function, or `cost`
                no whole number.
            ValueError: `cost` is less than 1.

        Example:
            >>> searches = RateLimiter("10/second", name="searches")
            >>> @searches.limit(key=lambda user, text: user)
            ... def search(user: str, text: str) -> list[str]:
            ...     return []
            >>> search("ada", "engines")
            []
        """
        self._check_decoration(key, cost)
        return limiting(self.require, key, cost)

    def stats(self, limit: int = 100, *, hashed: bool = False) -> LimiterStats:
        """Return how many keys count, and the figures of at most `limit` of them.

        Args:
            limit: Entries, at least 1. A key has one for each quota.
            hashed: Whether to show a digest for each key, which is the same within this process only.
        """
        count("limit", limit, least=1)
        return self._stats(self.store.holding(self._counters, limit), limit, hashed)

    def _try_acquire(self, *key: Key, cost: int = 1) -> Decision:
        place = canonical(key)
        return self.tell(place, self._decide(place, cost))

    def _decide(self, place: str | bytes, cost: int) -> Decision:
        return merged(self._take(self.charges(place, cost)))

    def _take(self, charges: list[Charge]) -> Sequence[Decision]:
        """Take charges for one key if they fit and nobody waits for it; return the decision about each."""
        if self.first(charges[0].key) is not None:
            return [self.refusal_behind(merged(self._source.peek(list(map(self.behind, charges)))))]
        return self._source.take(charges)


class AsyncRateLimiter(Limiter):
    """Limits how much each key may take, for tasks of any number of event loops.

    Args:
        quotas: One or more, as `Quota` or in its notation; a call must fit all of them, or none is charged.
        name: What keys are counted under, and what errors and events call it; the quotas where left out.
            Needed with a `store`.
        store: Where it counts; a `MemoryStore` of its own where left out. One that blocks, such as a
            `SQLiteStore`, is asked in a worker thread.
        clock: What time is counted on, where no store is given.
        on_refused: Gets an `events.RateLimited` for each refusal.
        require_shared, on_outage, processes, share: As for `RateLimiter`.

    Raises:
        TypeError, ValueError: As for `RateLimiter`.

    Tasks, loops and threads may share it. A cancelled call leaves at once and charges nothing.

    Example:
        >>> import asyncio
        >>> login = AsyncRateLimiter("6/15 minutes", name="login")
        >>> asyncio.run(login.try_acquire("ada", "192.0.2.1")).remaining
        5
    """

    def __init__(
        self,
        *quotas: str | Quota,
        name: str | None = None,
        store: Store | AsyncStore | None = None,
        clock: Clock | None = None,
        on_refused: Listener | None = None,
        require_shared: bool = False,
        on_outage: OnOutage | None = None,
        processes: int | None = None,
        share: float | None = None,
    ) -> None:
        chosen = chosen_store(store, name, clock)
        self.store: AsyncStore = on_loop(chosen)
        """Where it counts, as one that is awaited."""
        super().__init__(quotas, name, chosen, on_refused, require_shared, on_outage, processes)
        self._source = async_source_of(self.store, share, self._quotas, self.outage)
        self._quick: Callable[..., Decision | None] = _unanswered
        if len(self._counters) == 1 and isinstance(chosen, MemoryStore):
            self._quick = chosen.fast_path(self._counters[0], self._lines.by_key, self._hooks, _unanswered)

    async def try_acquire(self, *key: Key, cost: int = 1) -> Decision:
        """Take `cost` units for `key` if they fit now; never wait.

        Args:
            key: What is counted, in parts; without any, everybody counts together.
            cost: Units, at least 1.

        Returns:
            The decision, true where the call is allowed. A cost above the limit is refused for ever, and
            its `retry_after` is None.

        Raises:
            TypeError: A part is neither str nor int, or `cost` is no whole number.
            ValueError: A part is empty, or `cost` is less than 1.
            StoreUnavailable: The store could not decide.
        """
        await heed_cancellation()
        decision = self._quick(*key, cost=cost)
        if decision is not None:
            return decision
        place = canonical(key)
        return self.tell(place, await self._decide(place, cost))

    async def acquire(self, *key: Key, cost: int = 1, timeout: float | None = None) -> Decision:  # noqa: ASYNC109 - as the twin
        """Take `cost` units for `key`, waiting for them in order of arrival.

        Whoever waits for other keys is not waited for. A wait that would end after `timeout`, or after the
        deadline of the context, is not begun. Whoever gives up gives up their place in line.

        Args:
            key: As for `try_acquire`.
            cost: Units, at least 1.
            timeout: Seconds to wait at most, from 0; None waits as long as it takes.

        Raises:
            TypeError: `timeout` is no number, or as for `try_acquire`.
            ValueError: `timeout` is negative or not finite, or as for `try_acquire`.
            RateLimitedError: The wait would be too long, or the cost is above the limit.
            DeadlineExceeded: The deadline of the context has passed already.
            StoreUnavailable: The store could not decide.
        """
        patience = self._patience(timeout)
        place = canonical(key)
        await heed_cancellation()
        decision = await self._decide(place, cost)
        if decision:
            return decision
        charges = self.charges(place, cost)
        waiter = AsyncWaiter()
        self._join(place, cost, waiter)
        try:
            while True:
                if self.first(place) is waiter:
                    decision = merged(await self._source.take(charges))
                    if decision:
                        return decision
                    pause = self._pause(place, decision, patience, 0.0)
                else:
                    behind = await self._source.peek([self.behind(charge, waiter) for charge in charges])
                    pause = self._pause(place, self.refusal_behind(merged(behind)), patience, GLANCE)
                await waiter.wait_async(self._clock, pause)
        finally:
            self._leave(place, waiter)

    async def require(self, *key: Key, cost: int = 1) -> Decision:
        """Take `cost` units for `key` if they fit now, and raise if they do not.

        Raises:
            RateLimitedError: They do not fit; it carries the decision and its `retry_after`.
        """
        decision = await self.try_acquire(*key, cost=cost)
        if not decision:
            raise RateLimitedError(decision)
        return decision

    async def peek(self, *key: Key, cost: int = 1) -> Decision:
        """Return what `try_acquire` would decide now, and take nothing."""
        charges = self.charges(canonical(key), cost)
        if self.first(charges[0].key) is not None:
            return self.refusal_behind(merged(await self._source.peek(list(map(self.behind, charges)))))
        return merged(await self._source.peek(charges))

    async def reset(self, *key: Key) -> None:
        """Forget what counts for `key`, after a successful login, say."""
        place = canonical(key)
        await self._source.reset(self._counters, place)
        self.stir(place)

    def reserve(self, *key: Key, cost: int = 1) -> AsyncReservation:
        """Return an async context manager that takes `cost` units, and can give them back.

        Entering it raises as `require` does. Without a `refund` the units stay taken, whatever happens.
        """
        charges = self.charges(canonical(key), cost)
        place = charges[0].key

        async def give_back(receipts: Sequence[int]) -> None:
            await self._source.refund(charges, receipts)
            self.stir(place)

        return AsyncReservation(
            lambda: self._take(charges), lambda decisions: self.required(place, merged(decisions)), give_back
        )

    def limit(
        self, *, key: KeyFunction | None = None, cost: int = 1
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Return a decorator that lets each call of a coroutine function take `cost` units, or raises.

        Args:
            key: A function of the call's arguments that returns the key, or a tuple of its parts; without
                it, all calls count together. What it raises goes to the caller, and nothing is charged.
            cost: Units a call takes.

        Raises:
            TypeError: The function is no coroutine function, `key` is no function, or `cost` no whole
                number.
            ValueError: `cost` is less than 1.
        """
        self._check_decoration(key, cost)
        return limiting_async(self.require, key, cost)

    async def stats(self, limit: int = 100, *, hashed: bool = False) -> LimiterStats:
        """Return how many keys count, and the figures of at most `limit` of them.

        Args:
            limit: Entries, at least 1. A key has one for each quota.
            hashed: Whether to show a digest for each key, which is the same within this process only.
        """
        count("limit", limit, least=1)
        return self._stats(await self.store.holding(self._counters, limit), limit, hashed)

    async def _decide(self, place: str | bytes, cost: int) -> Decision:
        return merged(await self._take(self.charges(place, cost)))

    async def _take(self, charges: list[Charge]) -> Sequence[Decision]:
        """Take charges for one key if they fit and nobody waits for it; return the decision about each."""
        if self.first(charges[0].key) is not None:
            return [self.refusal_behind(merged(await self._source.peek(list(map(self.behind, charges)))))]
        return await self._source.take(charges)


def _unanswered(*_key: Key, cost: int = 1) -> None:
    """Leave the question to the long way."""
