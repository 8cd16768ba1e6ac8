"""What a limiter does while its store is away: let nobody pass, let everybody pass, or count by itself.

Rules:
    - Only a `StoreUnavailable` is an outage. The store is asked anew each time: how soon it says that it is
      away, and how often it tries to come back, is the store's own affair.
    - "closed" raises it, as a limiter without a policy does: a 503, never a 429.
    - "open" lets the call pass, uncounted: the decision has the whole limit left. What costs more than the
      limit is refused, as ever.
    - "local" counts in this process's memory, each quota at its limit divided by the processes, and at least
      one unit. A call that costs more than this part, though not more than the limit, takes all of the part.
      These counts are of no use while the store is there, and are kept for the next outage, till they lapse.
    - Of several limiters that are asked together, one that is "closed" raises. Those that are "local" are
      charged together, all or none, and those that are "open" refuse nothing. So the strictest decides.
    - A receipt says who gave it. What the store has not taken is never given back to it.
    - While the store is away, a limiter that is not "closed" lets refunds to it and resets go: the units
      count until they lapse. `stats` raises, whatever the policy.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args
from weakref import WeakKeyDictionary

from resilience import events
from resilience._core.counting import Charge
from resilience._core.quota import Decision, Quota, counter_of
from resilience.checks import count
from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from resilience._core.counting import Counter
    from resilience.limiter.source import AsyncSource, Source
    from resilience.stores import AsyncStore, Store

OnOutage = Literal["open", "closed", "local"]

_POLICIES: Final[tuple[str, ...]] = get_args(OnOutage)


class _Elsewhere(int):
    """A receipt for units that the store has not taken."""


class _Local:
    """In place of an algorithm in the decisions of a limiter that counts by itself."""

    __slots__ = ("_rules", "fits_at", "remaining", "whole_at")

    def __init__(self, counter: Counter) -> None:
        rules = counter.rules
        self._rules = rules
        self.remaining = rules.remaining
        self.fits_at = rules.fits_at
        self.whole_at = rules.whole_at

    def receipt(self, state: Any) -> int:
        return _Elsewhere(self._rules.receipt(state))


class _Open:
    """In place of an algorithm where nothing is counted: everything is left."""

    __slots__ = ("_limit",)

    def __init__(self, counter: Counter) -> None:
        self._limit = counter.quota.limit

    def remaining(self, state: None, now: int) -> int:  # noqa: ARG002 - as in Rules
        return self._limit

    def fits_at(self, state: None, now: int, cost: int) -> None:
        """Return None: only what costs more than the limit is refused, for ever."""

    def whole_at(self, state: None, now: int) -> int:  # noqa: ARG002 - as in Rules
        return now

    def receipt(self, state: None) -> int:  # noqa: ARG002 - as in Rules
        return _Elsewhere()


class _Plan(NamedTuple):
    """What is done about one quota of one limiter."""

    policy: OnOutage
    counter: Counter
    """What is counted under here, if anything is."""
    shown: Counter
    """The same for decisions, whose receipts tell that they are from here."""


class _Standbys:
    """Where those limiters count that are cut off from one store: together, as they do there."""

    def __init__(self) -> None:
        self._by_store: WeakKeyDictionary[Store | AsyncStore, MemoryStore] = WeakKeyDictionary()
        survive_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.RLock()

    def of(self, store: Store | AsyncStore) -> MemoryStore:
        with self._lock:
            return self._by_store.setdefault(store, MemoryStore(clock=store.clock))


_STANDBYS: Final = _Standbys()


def outage_of(
    on_outage: OnOutage | None,
    processes: int | None,
    counters: Sequence[Counter],
    store: Store | AsyncStore,
) -> Outage | None:
    """Return what to do about these counters while `store` is away; None for nothing beside raising.

    Raises:
        TypeError: `processes` is missing or no whole number.
        ValueError: The policy is unknown, or `processes` is given for none that needs it, or less than 1.
    """
    if on_outage is not None and on_outage not in _POLICIES:
        raise ValueError(f"on_outage must be one of {', '.join(_POLICIES)} or None, not {on_outage!r}")
    if on_outage != "local":
        if processes is not None:
            raise ValueError(
                "processes is for on_outage='local', which counts one process's part: leave it out"
            )
        parts = 1
    elif processes is None:
        raise TypeError("on_outage='local' needs processes=…: how many share the limit, as far as expected")
    else:
        parts = count("processes", processes, least=1)
    if on_outage is None:
        return None
    plans = {counter.scope: _plan(on_outage, counter, parts) for counter in counters}
    return Outage(plans, _STANDBYS.of(store))


def _plan(policy: OnOutage, counter: Counter, parts: int) -> _Plan:
    quota = counter.quota
    local = counter_of(counter.limiter, Quota(max(1, quota.limit // parts), quota.per, quota.algorithm))
    rules: Any = (_Open if policy == "open" else _Local)(local)  # they answer all that a decision asks
    return _Plan(policy, local, local._replace(rules=rules))


class Outage:
    """What is done about some counters while their store is away. Threads and loops may share it."""

    def __init__(self, plans: Mapping[str, _Plan], standby: MemoryStore) -> None:
        self.plans = plans
        """By scope; without a plan, an outage is raised."""
        self._standby = standby

    def with_others(self, others: Iterable[Outage]) -> Outage:
        """Return what is done about all their counters, which are in one store."""
        plans = {scope: plan for outage in (self, *others) for scope, plan in outage.plans.items()}
        return Outage(plans, self._standby)

    def take(self, charges: Sequence[Charge], error: StoreUnavailable) -> list[Decision]:
        """Decide about charges without the store.

        Raises:
            StoreUnavailable: It is `error`, and a limiter is closed.
        """
        self.bear([charge.counter for charge in charges], error)
        fits = all(charge.cost <= charge.counter.quota.limit for charge in charges)
        return self._decide(charges, self._standby.take if fits else self._standby.peek)

    def peek(self, charges: Sequence[Charge], error: StoreUnavailable) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        self.bear([charge.counter for charge in charges], error)
        return self._decide(charges, self._standby.peek)

    def give_back(self, charges: Sequence[Charge], receipts: Sequence[int]) -> bool:
        """Give back what was taken here; return whether that is so, or else the store has taken it."""
        if not isinstance(receipts[0], _Elsewhere):  # what was taken together is all from one place
            return False
        counted = [pair for pair in zip(charges, receipts, strict=True) if self._is_local(pair[0].counter)]
        self._standby.refund(
            [self._here(charge) for charge, _ in counted], [receipt for _, receipt in counted]
        )
        return True

    def forget(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key` here."""
        here = [self.plans[counter.scope].counter for counter in counters if self._is_local(counter)]
        self._standby.reset(here, key)

    def bear(self, counters: Sequence[Counter], error: StoreUnavailable) -> None:
        """Tell the listeners that the store is away; return if that can be borne, or else raise `error`."""
        plans = [self.plans.get(counter.scope) for counter in counters]
        if events.is_heard(()):
            for limiter, policy in {(plan.counter.limiter, plan.policy): None for plan in plans if plan}:
                events.publish(events.StoreOutage(limiter, policy, error))
        if any(plan is None or plan.policy == "closed" for plan in plans):
            raise error

    def _decide(
        self, charges: Sequence[Charge], ask: Callable[[Sequence[Charge]], list[Decision]]
    ) -> list[Decision]:
        counted = iter(ask([self._here(charge) for charge in charges if self._is_local(charge.counter)]))
        decisions: list[Decision] = []
        for charge in charges:
            counter = charge.counter
            shown = self.plans[counter.scope].shown
            if self._is_local(counter):
                allowed, state, now, cost, _ = next(counted)
                decisions.append(Decision((allowed, state, now, cost, shown)))
            else:
                decisions.append(Decision((charge.cost <= counter.quota.limit, None, 0, charge.cost, shown)))
        return decisions

    def _is_local(self, counter: Counter) -> bool:
        return self.plans[counter.scope].policy == "local"

    def _here(self, charge: Charge) -> Charge:
        """Return what is asked here; what fits the quota at all costs no more than this process's part."""
        counter, key, cost = charge
        here = self.plans[counter.scope].counter
        return Charge(here, key, cost if cost > counter.quota.limit else min(cost, here.quota.limit))


class Failsafe:
    """A source with an outage policy behind it, for threads."""

    def __init__(self, source: Source, outage: Outage) -> None:
        self._source = source
        self._outage = outage

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        try:
            return self._source.take(charges)
        except StoreUnavailable as error:
            return self._outage.take(charges, error)

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        try:
            return self._source.peek(charges)
        except StoreUnavailable as error:
            return self._outage.peek(charges, error)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges to whom they were taken from; what has lapsed is not given back again."""
        if self._outage.give_back(charges, receipts):
            return
        try:
            self._source.refund(charges, receipts)
        except StoreUnavailable as error:
            self._outage.bear([charge.counter for charge in charges], error)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        self._outage.forget(counters, key)
        try:
            self._source.reset(counters, key)
        except StoreUnavailable as error:
            self._outage.bear(counters, error)


class AsyncFailsafe:
    """A source with an outage policy behind it, for tasks of any number of event loops."""

    def __init__(self, source: AsyncSource, outage: Outage) -> None:
        self._source = source
        self._outage = outage

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        try:
            return await self._source.take(charges)
        except StoreUnavailable as error:
            return self._outage.take(charges, error)

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        try:
            return await self._source.peek(charges)
        except StoreUnavailable as error:
            return self._outage.peek(charges, error)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges to whom they were taken from; what has lapsed is not given back again."""
        if self._outage.give_back(charges, receipts):
            return
        try:
            await self._source.refund(charges, receipts)
        except StoreUnavailable as error:
            self._outage.bear([charge.counter for charge in charges], error)

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        self._outage.forget(counters, key)
        try:
            await self._source.reset(counters, key)
        except StoreUnavailable as error:
            self._outage.bear(counters, error)


def is_uncounted(decision: Decision) -> bool:
    """Return whether the call passes since the store is away, and nothing is counted."""
    return isinstance(decision[4].rules, _Open)
