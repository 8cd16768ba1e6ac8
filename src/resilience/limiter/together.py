"""Several limiters asked at once: all of them are charged, or none.

A login has a limit for the pair of e-mail address and network address, one for the network address and one
for the e-mail address. Asked one after the other, the first would be charged for what the second refuses,
and whoever is refused there could still use up the first. Asked together, that cannot happen.

All the limiters must count in one store, since only a store can decide in one step. Equal keys of one
limiter are charged together: `[(limit, (a,)), (limit, (b,))]` takes two units where `a` and `b` are equal.
What each does while the store is away adds up to the strictest, as `resilience.limiter.outage` explains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from resilience._core.key import canonical
from resilience._core.quota import merged
from resilience.errors import RateLimitedError
from resilience.limiter.base import Limiter
from resilience.limiter.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.outage import AsyncFailsafe, Failsafe
from resilience.limiter.reservation import AsyncReservation, Reservation, heed_cancellation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from resilience._core.counting import Charge
    from resilience._core.quota import Decision
    from resilience.limiter.decorator import Key
    from resilience.limiter.outage import Outage
    from resilience.limiter.source import AsyncSource, Source

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
    asked = _asked(RateLimiter, pairs, cost)
    return _told(asked, _take(asked))


async def acquire_all_async(pairs: AsyncPairs, *, cost: int = 1) -> Decision:
    """Do what `acquire_all` does, for `AsyncRateLimiter`s; a cancelled call charges nothing."""
    asked = _asked(AsyncRateLimiter, pairs, cost)
    await heed_cancellation()
    return _told(asked, await _take_async(asked))


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
    asked = _asked(RateLimiter, pairs, cost)

    def give_back(receipts: Sequence[int]) -> None:
        _source(asked).refund([charge for _, charge in asked], receipts)
        _stir(asked)

    return Reservation(lambda: _take(asked), lambda decisions: _required(_told(asked, decisions)), give_back)


def reserve_all_async(pairs: AsyncPairs, *, cost: int = 1) -> AsyncReservation:
    """Return an async context manager that takes all as `require_all_async` does, and can give them back."""
    asked = _asked(AsyncRateLimiter, pairs, cost)

    async def give_back(receipts: Sequence[int]) -> None:
        await _async_source(asked).refund([charge for _, charge in asked], receipts)
        _stir(asked)

    return AsyncReservation(
        lambda: _take_async(asked), lambda decisions: _required(_told(asked, decisions)), give_back
    )


def _take(asked: Sequence[tuple[RateLimiter, Charge]]) -> list[Decision]:
    """Take all if all fit and nobody waits for any of the keys; return the decision about each."""
    source = _source(asked)
    waited_for = _waited_for(asked)
    if any(waited_for):
        return _behind(waited_for, source.peek([limiter.behind(charge) for limiter, charge in asked]))
    return source.take([charge for _, charge in asked])


async def _take_async(asked: Sequence[tuple[AsyncRateLimiter, Charge]]) -> list[Decision]:
    """Take all if all fit and nobody waits for any of the keys; return the decision about each."""
    source = _async_source(asked)
    waited_for = _waited_for(asked)
    if any(waited_for):
        return _behind(waited_for, await source.peek([limiter.behind(charge) for limiter, charge in asked]))
    return await source.take([charge for _, charge in asked])


def _source(asked: Sequence[tuple[RateLimiter, Charge]]) -> Source:
    """Return the store that all have in common, with what each does while it is away."""
    store, outage = asked[0][0].store, _outage(asked)
    return store if outage is None else Failsafe(store, outage)


def _async_source(asked: Sequence[tuple[AsyncRateLimiter, Charge]]) -> AsyncSource:
    """Return the same, awaited."""
    store, outage = asked[0][0].store, _outage(asked)
    return store if outage is None else AsyncFailsafe(store, outage)


def _outage(asked: Sequence[tuple[Limiter, Charge]]) -> Outage | None:
    """Return what all do together while the store is away; None where none of them has a policy."""
    outages = [limiter.outage for limiter, _ in asked if limiter.outage is not None]
    return outages[0].with_others(outages[1:]) if outages else None


def _waited_for(asked: Sequence[tuple[Limiter, Charge]]) -> list[bool]:
    """Return for each whether somebody waits for its key already, who comes first."""
    return [limiter.first(charge.key) is not None for limiter, charge in asked]


def _behind(waited_for: list[bool], peeked: list[Decision]) -> list[Decision]:
    """Return the decisions for one who is behind others, from a peek at all that those want."""
    if not all(peeked):
        return peeked
    return [
        Limiter.refusal_behind(decision) if waited else decision
        for waited, decision in zip(waited_for, peeked, strict=True)
    ]


def _asked(
    kind: type[AnyLimiter], pairs: Iterable[tuple[AnyLimiter, Sequence[Key]]], cost: int
) -> list[tuple[AnyLimiter, Charge]]:
    """Return each charge with its limiter, those for the same counter and key as one."""
    asked: dict[tuple[str, str | bytes], tuple[AnyLimiter, Charge]] = {}
    for limiter, key in pairs:
        if not isinstance(limiter, kind):
            raise TypeError(f"{limiter!r} is not a {kind.__name__}: sync and async limiters are asked apart")
        if isinstance(key, str):
            raise TypeError(f"a key is a tuple of its parts here: write ({key!r},), not {key!r}")
        for charge in limiter.charges(canonical(tuple(key)), cost):
            place = (charge.counter.scope, charge.key)
            together = charge._replace(cost=asked[place][1].cost + cost) if place in asked else charge
            asked[place] = (limiter, together)
    if not asked:
        raise ValueError("no limiter is given")
    if len({id(limiter.counts_in) for limiter, _ in asked.values()}) > 1:
        raise ValueError(
            "limiters that are asked together must count in one store: make one, and give it to each of them"
        )
    return list(asked.values())


def _told(asked: Sequence[tuple[Limiter, Charge]], decisions: Sequence[Decision]) -> Decision:
    """Tell the listeners of each limiter that refuses, once; return one decision for all."""
    decision = merged(decisions)
    if not decision:
        of_each: dict[tuple[Limiter, str | bytes], list[Decision]] = {}
        for (limiter, charge), own in zip(asked, decisions, strict=True):
            of_each.setdefault((limiter, charge.key), []).append(own)
        for (limiter, key), own_decisions in of_each.items():
            limiter.tell(key, merged(own_decisions))
    return decision


def _required(decision: Decision) -> Decision:
    if not decision:
        raise RateLimitedError(decision)
    return decision


def _stir(asked: Sequence[tuple[Limiter, Charge]]) -> None:
    for limiter, charge in asked:
        limiter.stir(charge.key)
