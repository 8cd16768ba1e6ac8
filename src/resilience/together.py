"""Several limiters asked at once: all of them are charged, or none.

A login has a limit for the pair of e-mail address and network address, one for the network address and one
for the e-mail address. Asked one after the other, the first would be charged for what the second refuses,
and whoever is refused there could still use up the first. Asked together, that cannot happen.

All the limiters must count in one store, since only a store can decide in one step. Equal keys of one
limiter are charged together: `[(limit, (a,)), (limit, (b,))]` takes two units where `a` and `b` are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from resilience._core.key import canonical
from resilience._core.quota import merged
from resilience.errors import RateLimitedError
from resilience.limiter import (
    AsyncRateLimiter,
    AsyncReservation,
    RateLimiter,
    Reservation,
    heed_cancellation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilience._core.counting import Charge
    from resilience._core.quota import Decision
    from resilience.limiter import Key
    from resilience.limiting import Limiter

    Pairs = Iterable[tuple[RateLimiter, Sequence[Key]]]
    AsyncPairs = Iterable[tuple[AsyncRateLimiter, Sequence[Key]]]

AnyLimiter = TypeVar("AnyLimiter", bound="Limiter")


def acquire_all(pairs: Pairs, *, cost: int = 1) -> Decision:
    """Take `cost` units of each limiter for its key if all fit now, or else none; never wait.

    Args:
        pairs: Limiters, each with the parts of its key.
        cost: Units of each, at least 1.

    Returns:
        One decision: `limiter` names the one that refuses longest, or else the one with the least left.
        `remaining` is the least of all.

    Raises:
        TypeError: One is not a `RateLimiter`, or its key is none.
        ValueError: There are none, or they count in different stores.
        StoreUnavailable: The store could not decide.

    Example:
        >>> from resilience.stores.memory import MemoryStore
        >>> store = MemoryStore()
        >>> login = RateLimiter("6/15 minutes", name="login", store=store)
        >>> per_address = RateLimiter("50/hour", name="address", store=store)
        >>> decision = acquire_all([(login, ("ada", "192.0.2.1")), (per_address, ("192.0.2.1",))])
        >>> decision.allowed, decision.limiter, decision.remaining
        (True, 'login', 5)
    """
    limiters, charges = _charges(RateLimiter, pairs, cost)
    return _told(limiters, charges, limiters[0].store.take(charges))


async def acquire_all_async(pairs: AsyncPairs, *, cost: int = 1) -> Decision:
    """Do what `acquire_all` does, for `AsyncRateLimiter`s; a cancelled call charges nothing."""
    limiters, charges = _charges(AsyncRateLimiter, pairs, cost)
    await heed_cancellation()
    return _told(limiters, charges, await limiters[0].store.take(charges))


def require_all(pairs: Pairs, *, cost: int = 1) -> Decision:
    """Do what `acquire_all` does, and raise if that is refused.

    Raises:
        RateLimitedError: At least one limiter refuses; nothing was charged.
    """
    return _required(acquire_all(pairs, cost=cost))


async def require_all_async(pairs: AsyncPairs, *, cost: int = 1) -> Decision:
    """Do what `require_all` does, for `AsyncRateLimiter`s; a cancelled call charges nothing."""
    return _required(await acquire_all_async(pairs, cost=cost))


def reserve_all(pairs: Pairs, *, cost: int = 1) -> Reservation:
    """Return a context manager that takes all as `require_all` does, and can give them back.

    Example:
        >>> login = RateLimiter("6/15 minutes")
        >>> with reserve_all([(login, ("ada",))]) as charge:
        ...     charge.refund()
    """
    limiters, charges = _charges(RateLimiter, pairs, cost)
    return Reservation(
        limiters[0].store, charges, lambda decisions: _required(_told(limiters, charges, decisions))
    )


def reserve_all_async(pairs: AsyncPairs, *, cost: int = 1) -> AsyncReservation:
    """Return an async context manager that takes all as `require_all_async` does, and can give them back."""
    limiters, charges = _charges(AsyncRateLimiter, pairs, cost)
    return AsyncReservation(
        limiters[0].store, charges, lambda decisions: _required(_told(limiters, charges, decisions))
    )


def _charges(
    kind: type[AnyLimiter], pairs: Iterable[tuple[AnyLimiter, Sequence[Key]]], cost: int
) -> tuple[list[AnyLimiter], list[Charge]]:
    """Return each charge with its limiter, those for the same counter and key as one."""
    limiters: dict[tuple[str, str | bytes], AnyLimiter] = {}
    charges: dict[tuple[str, str | bytes], Charge] = {}
    for limiter, key in pairs:
        if not isinstance(limiter, kind):
            raise TypeError(f"{limiter!r} is not a {kind.__name__}: sync and async limiters are asked apart")
        if isinstance(key, str):
            raise TypeError(f"a key is a tuple of its parts here: write ({key!r},), not {key!r}")
        for charge in limiter.charges(canonical(tuple(key)), cost):
            place = (charge.counter.scope, charge.key)
            before = charges[place].cost if place in charges else 0
            charges[place] = charge._replace(cost=before + cost)
            limiters[place] = limiter
    if not limiters:
        raise ValueError("no limiter is given")
    if len({id(limiter.counts_in) for limiter in limiters.values()}) > 1:
        raise ValueError(
            "limiters that are asked together must count in one store: make one, and give it to each of them"
        )
    return list(limiters.values()), list(charges.values())


def _told(limiters: Sequence[Limiter], charges: Sequence[Charge], decisions: Sequence[Decision]) -> Decision:
    """Tell the listeners of those who refuse; return one decision for all."""
    for limiter, charge, decision in zip(limiters, charges, decisions, strict=True):
        limiter.tell(charge.key, decision)
    return merged(decisions)


def _required(decision: Decision) -> Decision:
    if not decision:
        raise RateLimitedError(decision)
    return decision
