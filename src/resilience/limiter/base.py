"""What both limiters have in common: all that neither waits nor asks the store."""

from __future__ import annotations

import os
import threading
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from resilience import events
from resilience._core.counting import Charge
from resilience._core.key import EVERYBODY, parts_of
from resilience._core.line import Lines
from resilience._core.quota import Decision, Quota, counter_of
from resilience.checks import count, number
from resilience.deadline import CURRENT
from resilience.errors import RateLimitedError
from resilience.fork import survive_fork
from resilience.limiter.outage import is_uncounted, outage_of
from resilience.limiter.waiting import Patience
from resilience.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.clock import Clock
    from resilience.limiter.outage import OnOutage
    from resilience.limiter.waiting import Waiter
    from resilience.stores import AsyncStore, Holding, Store

AnyStore = TypeVar("AnyStore", bound="Store | AsyncStore")

GLANCE: Final = 0.1
"""Seconds after which, at the earliest, one who is not first in line looks whether those ahead are there."""

_HASH_KEY: Final = os.urandom(16)
"""Hides keys from people, who could otherwise try addresses out until the hash fits."""


class KeyUse(NamedTuple):
    """What one key has used of one quota."""

    key: tuple[str, ...]
    """Its parts; where keys are hashed, one digest."""
    quota: Quota
    count: int  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride] - a field, not tuple's
    """Units that count."""
    reset_at: float
    """Unix seconds at which nothing counts any more."""
    reset_after: float
    """Seconds until then."""


class LimiterStats(NamedTuple):
    """What a limiter's store holds for it."""

    name: str
    active_keys: int
    """Keys that count; where `entries` has not all of them, keys held, of which some may have lapsed."""
    entries: tuple[KeyUse, ...]
    complete: bool
    """Whether `entries` has them all."""


def chosen_store(store: AnyStore | None, name: str | None, clock: Clock | None) -> AnyStore | MemoryStore:
    """Return the store that a limiter was given, or one of its own.

    Raises:
        ValueError: There is a store but no name, or a clock that the store does not decide by.
    """
    if store is None:
        return MemoryStore() if clock is None else MemoryStore(clock=clock)
    if name is None:
        raise ValueError("a limiter with a store needs a name, under which its keys are counted there")
    if clock is not None and clock is not store.clock:
        raise ValueError("the store decides by its own clock: give this clock to the store instead")
    return store


class Limiter:
    """What both limiters have in common: everything that neither waits nor asks the store."""

    def __init__(
        self,
        quotas: tuple[str | Quota, ...],
        name: str | None,
        store: Store | AsyncStore,
        on_refused: events.Listener | None,
        require_shared: bool,
        on_outage: OnOutage | None = None,
        processes: int | None = None,
    ) -> None:
        parsed = [quota if isinstance(quota, Quota) else Quota.parse(quota) for quota in quotas]
        if not parsed:
            raise TypeError("a limiter needs at least one quota, such as '6/15 minutes'")
        if len(set(parsed)) < len(parsed):
            raise ValueError(f"a quota is given twice: {', '.join(map(str, parsed))}")
        if name == "" or not isinstance(name, str | None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
            raise ValueError(f"a limiter's name must be a non-empty string, not {name!r}")
        if require_shared and not store.shared:
            raise ValueError(
                f"limiter {name!r} must count all processes together, but a {type(store).__name__} counts "
                "each by itself: use a SQLiteStore on one machine, or a store on a server"
            )
        self._name = ", ".join(map(str, parsed)) if name is None else name
        self._quotas = tuple(parsed)
        self._counters = tuple(counter_of(self._name, quota) for quota in parsed)
        self._clock: Clock = store.clock
        self.counts_in = store
        """The store that was given or made, of which those who are asked together must have the same."""
        self.outage = outage_of(on_outage, processes, self._counters, store)
        """What is done while that is away; None for nothing beside raising."""
        self._hooks = events.hooks(on_refused)
        self._lines: Lines[Waiter] = Lines()
        survive_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held; nobody waits in a child."""
        self._lock = threading.RLock()
        self._lines.by_key.clear()

    @property
    def name(self) -> str:
        """What keys are counted under, and what errors, events and headers call it."""
        return self._name

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas, all of which must have room."""
        return self._quotas

    def __repr__(self) -> str:
        """Return the name and the quotas."""
        return f"<{type(self).__name__} {self._name!r}: {', '.join(map(str, self._quotas))}>"

    def __reduce__(self) -> Any:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{self!r} cannot be copied or pickled, as it would count apart from the original: make one in "
            "each process, on a shared store if they are to count together"
        )

    def charges(self, key: str | bytes, cost: int) -> list[Charge]:
        """Return what the store is asked about `cost` units for `key`."""
        count("cost", cost, least=1)
        return [Charge(counter, key, cost) for counter in self._counters]

    @property
    def is_counting(self) -> bool:
        """Whether anything counts that would be forgotten along with it, in a store in memory that is."""
        store = self.counts_in
        return isinstance(store, MemoryStore) and bool(store.holding(self._counters, 1).entries)

    def entry(self) -> Callable[[str | bytes], bool] | None:
        """Return the quickest way to take one unit for one canonical key, as `MemoryStore.entry` has it.

        None where several quotas or another store make it less simple than that.
        """
        if len(self._counters) == 1 and isinstance(self.counts_in, MemoryStore):
            return self.counts_in.entry(self._counters[0], self._lines.by_key)
        return None

    def _check_decoration(self, key: object, cost: int) -> None:
        """Refuse what a decorator could not be called with, at decoration and not at the first call."""
        if key is not None and not callable(key):
            raise TypeError(f"key must be a function of the call's arguments, or None, not {key!r}")
        self.charges(EVERYBODY, cost)

    def tell(self, key: str | bytes, decision: Decision) -> Decision:
        """Tell the listeners of a refusal; return the decision."""
        if not decision and events.is_heard(self._hooks):
            events.publish(events.RateLimited(self._name, parts_of(key), decision.retry_after), self._hooks)
        return decision

    def required(self, key: str | bytes, decision: Decision) -> Decision:
        """Return the decision if it allows the call.

        Raises:
            RateLimitedError: It does not.
        """
        if not self.tell(key, decision):
            raise RateLimitedError(decision)
        return decision

    # --- waiting in line ---

    def _join(self, key: str | bytes, cost: int, waiter: Waiter) -> None:
        with self._lock:
            self._lines.join(key, waiter, cost)

    def _leave(self, key: str | bytes, waiter: Waiter) -> None:
        """Let `waiter` go, and wake whoever is first then; one whose loop has ended has to go as well."""
        leaving: Waiter | None = waiter
        while leaving is not None:
            with self._lock:
                following = self._lines.leave(key, leaving)
            leaving = None if following is None or following.wake() else following

    def first(self, key: str | bytes) -> Waiter | None:
        """Return who is first in line, after sending away those whose loop has ended."""
        if not self._lines.by_key:  # one look without the lock: who joins meanwhile comes after us
            return None
        while True:
            with self._lock:
                first: Waiter | None = self._lines.first(key)
            if first is None or not first.is_gone:
                return first
            self._leave(key, first)

    def stir(self, key: str | bytes) -> None:
        """Let whoever is first in line look again, since units may have come back before their time."""
        first = self.first(key)
        if first is not None:
            first.wake()

    def behind(self, charge: Charge, waiter: Waiter | None = None) -> Charge:
        """Return what to peek at for one who comes after all who wait, or after those before `waiter`.

        No more than the limit is asked for, although all who wait may well want more.
        """
        with self._lock:
            units = self._lines.units_before(charge.key, waiter)
        most = max(charge.cost, charge.counter.quota.limit)
        return charge._replace(cost=min(units + charge.cost, most))

    @staticmethod
    def refusal_behind(decision: Decision) -> Decision:
        """Return the refusal for one who has others before them, from a peek at all that they want.

        Where that would fit, they are just about to take it: then the time in which a unit is earned on
        average is as good a guess as any. While nothing is counted, nobody has to come after others.
        """
        if not decision or is_uncounted(decision):
            return decision
        return Decision.of(
            False,
            decision.quota,
            decision.limiter,
            remaining=0,
            reset_after=decision.reset_after,
            retry_after=decision.quota.per / decision.limit,
        )

    def _patience(self, timeout: float | None) -> Patience:
        """Return how long a call may wait, which begins now.

        Raises:
            DeadlineExceeded: The deadline of this context has passed.
        """
        seconds = inf if timeout is None else number("timeout", timeout, least=0)
        deadline = CURRENT.get()
        if deadline is not None:
            deadline.require(f"waiting for rate limiter {self._name!r}")
        return Patience(self._clock.now() + seconds, self._clock, deadline)

    def _pause(self, key: str | bytes, decision: Decision, patience: Patience, least: float) -> float:
        """Return the seconds to wait after a refusal, `least` or more.

        Raises:
            RateLimitedError: The wait would be longer than there is patience for, so it is not begun.
        """
        left = patience.left()
        if decision.retry_after is None or decision.retry_after > left or left <= 0:
            self.required(key, decision)
        return min(max(decision.retry_after or 0.0, least), left)

    # --- what is held ---

    def _stats(self, holding: Holding, limit: int, hashed: bool) -> LimiterStats:
        wall = self._clock.wall()
        show = _hashed if hashed else parts_of
        entries = tuple(
            KeyUse(
                show(entry.key),
                entry.counter.quota,
                entry.counter.quota.limit - entry.remaining,
                wall + entry.reset_after,
                entry.reset_after,
            )
            for entry in holding.entries
        )
        complete = len(entries) < limit
        keys = len({entry.key for entry in holding.entries}) if complete else holding.size
        return LimiterStats(self._name, keys, entries, complete)


def _hashed(key: str | bytes) -> tuple[str, ...]:
    from hashlib import blake2b  # noqa: PLC0415 - OpenSSL comes with it, and few ask for it

    plain = key if isinstance(key, bytes) else key.encode()
    return (blake2b(plain, digest_size=8, key=_HASH_KEY).hexdigest(),)
