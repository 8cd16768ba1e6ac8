"""A local share: units of hot keys are taken from a shared store in batches, and handed out without asking.

Rules:
    - How large a batch is, how long it is used, and how far a window can be overshot by that, is said in
      `resilience._core.share`. A share is for one limiter; `acquire_all` asks the store itself.
    - While a batch is fetched, whoever else wants units of that key waits for it in place of fetching one.
      What becomes of it goes for them too: a refusal of less than they want, or a store that is away. One
      who is cancelled while fetching leaves at once, and one of the others fetches anew.
    - What is unused of a batch in the end is given back by whoever asks the store next. Where that fails, or
      nobody asks any more, it counts until it lapses.
    - A refund goes to the store, and a `reset` forgets this process's batch too; those of other processes are
      used up.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from resilience._core.quota import Decision
from resilience._core.share import Batch, Fetch, Flight, Refused, Shares
from resilience.checks import number
from resilience.fork import survive_fork
from resilience.limiter.waiting import AsyncWaiter, Waiter
from resilience.stores import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Quota
    from resilience.clock import Clock
    from resilience.limiter.source import AsyncSource, Source
    from resilience.stores import AsyncStore, Store

AnyWaiter = TypeVar("AnyWaiter", bound=Waiter)

LONGEST_LIFE: Final = 1.0
"""Seconds for which a batch is used at most."""

PATIENCE: Final = 1.0
"""Seconds to wait at most for another's batch, who may have been stopped in the middle."""


class Share(NamedTuple):
    """What part of its quotas a process takes at once."""

    units: int
    """Units of a batch at most."""
    life: float
    """Seconds for which it is used."""


def share_of(share: float | None, quotas: Sequence[Quota], store: Store | AsyncStore) -> Share | None:
    """Return what `share` comes to for these quotas, all of which it must fit; None for no batches at all.

    Raises:
        TypeError: `share` is no number.
        ValueError: It is out of its range, or the store is not shared.
    """
    if share is None:
        return None
    part = number("share", share, above=0, most=1)
    if not store.shared:
        raise ValueError(
            f"a share spares round trips to a shared store, and a {type(store).__name__} has none to spare: "
            "leave share out, or give the limiter a store on a server"
        )
    units = int(min(quota.limit for quota in quotas) * part)
    life = min(LONGEST_LIFE, min(quota.per for quota in quotas) * part)
    return Share(units, life) if units > 1 else None


class _Sharing:
    """What both have in common: what is decided under the lock."""

    def __init__(self, share: Share, clock: Clock) -> None:
        self._share = share
        self._clock = clock
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin with no batch: those there are, and who waits for them, are the parent's."""
        self._lock = threading.RLock()
        self._shares = Shares(*self._share)

    def _turn(
        self, charges: Sequence[Charge], make: Callable[[], AnyWaiter]
    ) -> list[Decision] | Fetch | tuple[Flight, AnyWaiter] | None:
        """Return units of a batch, a batch to fetch, a flight to wait for, or None to ask for just these."""
        key, cost = charges[0].key, charges[0].cost
        now = self._clock.now()
        with self._lock:
            turn = self._shares.ask(key, cost, now)
            if isinstance(turn, Batch):
                return turn.decisions([cost] * len(charges), now)
            if isinstance(turn, Flight):
                waiter = make()
                turn.waiting.append(waiter)
                return turn, waiter
        return turn

    def _at_hand(self, charges: Sequence[Charge]) -> list[Decision] | None:
        costs = [charge.cost for charge in charges]
        now = self._clock.now()
        with self._lock:
            batch = self._shares.at_hand(charges[0].key, max(costs), now)
            return None if batch is None else batch.decisions(costs, now)

    def _unused(self) -> tuple[list[Charge], list[int]]:
        """Return what is to be given back: charges and receipts."""
        with self._lock:
            unused = self._shares.unused(self._clock.now())
        charges = [charge._replace(cost=rest) for batch, rest in unused for charge in batch.charges]
        return charges, [receipt for batch, _ in unused for receipt in batch.receipts]

    def _outcome(self, flight: Flight, charges: Sequence[Charge]) -> list[Decision] | None:
        """Return the refusal that a flight ended with if it goes for these charges too, or else None.

        Raises:
            StoreUnavailable: It ended with that.
        """
        outcome = flight.outcome
        if isinstance(outcome, StoreUnavailable):
            raise StoreUnavailable(outcome.message, retry_after=outcome.retry_after) from outcome
        if isinstance(outcome, Refused) and charges[0].cost >= outcome.cost:
            return _refusals(outcome.decisions, charges[0].cost)
        return None

    def _land(self, flight: Flight, batch: Batch | None) -> None:
        """End the flight, and let those who wait for it look again."""
        with self._lock:
            self._shares.land(flight, batch)
        for waiter in flight.waiting:  # nobody joins any more, now that it has landed
            waiter.wake()

    def _forget(self, key: str | bytes) -> None:
        with self._lock:
            self._shares.forget(key)


class Sharing(_Sharing):
    """Takes units of hot keys from a store in batches, for threads."""

    def __init__(self, store: Source, share: Share, clock: Clock) -> None:
        super().__init__(share, clock)
        self._store = store

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take charges for one key, all of one cost, if all fit; return the decision about each by itself."""
        while True:
            turn = self._turn(charges, Waiter)
            if isinstance(turn, list):
                return turn
            if turn is None:
                self._give_back()
                return self._store.take(charges)
            if isinstance(turn, Fetch):
                return self._fetch(turn, charges)
            flight, waiter = turn
            waiter.wait(self._clock, PATIENCE)
            refused = self._outcome(flight, charges)
            if refused is not None:
                return refused
            if not flight.has_landed:
                return self._store.take(charges)

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._at_hand(charges) or self._store.peek(charges)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        self._store.refund(charges, receipts)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        self._forget(key)
        self._store.reset(counters, key)

    def _fetch(self, fetch: Fetch, charges: Sequence[Charge]) -> list[Decision]:
        """Fetch a batch, or what remains, and return the decisions by which `charges` are taken from it."""
        units, flight = fetch
        cost = charges[0].cost
        batch = None
        try:
            self._give_back()
            while True:
                asked = self._clock.now()
                larger = [charge._replace(cost=units) for charge in charges]
                decisions = self._store.take(larger)
                if all(decisions):
                    batch = Batch(larger, decisions, units - cost, asked, self._share.life)
                    return batch.decisions([cost] * len(charges), asked)
                units = _fitting(decisions, units, cost)
                if not units:
                    flight.outcome = Refused(cost, decisions)
                    return _refusals(decisions, cost)
        except StoreUnavailable as error:
            flight.outcome = error
            raise
        finally:
            self._land(flight, batch)

    def _give_back(self) -> None:
        """Give back what is unused of batches that have ended."""
        charges, receipts = self._unused()
        if charges:
            with suppress(StoreUnavailable):  # then it counts until it lapses; the take that follows says so
                self._store.refund(charges, receipts)


class AsyncSharing(_Sharing):
    """Takes units of hot keys from a store in batches, for tasks of any number of event loops."""

    def __init__(self, store: AsyncSource, share: Share, clock: Clock) -> None:
        super().__init__(share, clock)
        self._store = store

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take charges for one key, all of one cost, if all fit; return the decision about each by itself."""
        while True:
            turn = self._turn(charges, AsyncWaiter)
            if isinstance(turn, list):
                return turn
            if turn is None:
                await self._give_back()
                return await self._store.take(charges)
            if isinstance(turn, Fetch):
                return await self._fetch(turn, charges)
            flight, waiter = turn
            await waiter.wait_async(self._clock, PATIENCE)
            refused = self._outcome(flight, charges)
            if refused is not None:
                return refused
            if not flight.has_landed:
                return await self._store.take(charges)

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._at_hand(charges) or await self._store.peek(charges)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        await self._store.refund(charges, receipts)

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        self._forget(key)
        await self._store.reset(counters, key)

    async def _fetch(self, fetch: Fetch, charges: Sequence[Charge]) -> list[Decision]:
        """Fetch a batch, or what remains, and return the decisions by which `charges` are taken from it."""
        units, flight = fetch
        cost = charges[0].cost
        batch = None
        try:
            await self._give_back()
            while True:
                asked = self._clock.now()
                larger = [charge._replace(cost=units) for charge in charges]
                decisions = await self._store.take(larger)
                if all(decisions):
                    batch = Batch(larger, decisions, units - cost, asked, self._share.life)
                    return batch.decisions([cost] * len(charges), asked)
                units = _fitting(decisions, units, cost)
                if not units:
                    flight.outcome = Refused(cost, decisions)
                    return _refusals(decisions, cost)
        except StoreUnavailable as error:
            flight.outcome = error
            raise
        finally:
            self._land(flight, batch)

    async def _give_back(self) -> None:
        """Give back what is unused of batches that have ended."""
        charges, receipts = self._unused()
        if charges:
            with suppress(StoreUnavailable):  # then it counts until it lapses; the take that follows says so
                await self._store.refund(charges, receipts)


def _fitting(decisions: Sequence[Decision], units: int, cost: int) -> int:
    """Return how many units to ask for after `units` were refused; 0 if not even `cost` fit."""
    left = min(decision.remaining for decision in decisions)
    return min(left, units - cost) // cost * cost


def _refusals(decisions: Sequence[Decision], cost: int) -> list[Decision]:
    """Return what was said to another number of units as it goes for `cost` units."""
    return [
        decision
        if decision[3] == cost
        else Decision((decision.remaining >= cost, decision[1], decision[2], cost, decision[4]))
        for decision in decisions
    ]
