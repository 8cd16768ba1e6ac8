"""One wrapper in place of three: limiter, retries and breaker, for the call that succeeds at once.

Three decorators are three calls, each of which packs and unpacks the arguments. While nothing is wrong they
have next to nothing to do: take one unit, see that the breaker is closed, note a success. The wrapper does
just that, and in everything else what the stages do:

- Where there is more to it, the stages are asked: while a deadline is set, while the breaker does not let all
  calls pass, where the limiter cannot take one unit at once. All of that is found out before anything is
  charged.
- What a failed first attempt leads to is the retries' own business (`resilience.retry.attempts.Call`). They
  get a permit of the breaker's period in which the attempt was made.

The breaker's period is read once, before the unit is taken. That is the moment at which the call counts as
admitted; why this and the report of a success need no lock is said in `resilience.breaker.gate`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilience.breaker import CircuitBreaker
from resilience.breaker.gate import Permit
from resilience.callables import Kind
from resilience.deadline import CURRENT
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.pipeline.stages import Limiting, Retrying
from resilience.retry.attempts import Call
from resilience.retry.budget import BOOKS, RetryBudget
from resilience.retry.guards import (
    SUSPECT,
    go_on,
    go_on_async,
    pause,
    pause_async,
    refuse_unguarded,
)
from resilience.retry.manager import AsyncRetryManager, RetryManager

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.breaker import Period
    from resilience.breaker.gate import Gate
    from resilience.pipeline.plan import Held
    from resilience.pipeline.stages import Stage
    from resilience.retry.policy import Policy

    Fn = Callable[..., Any]


class Fusion(NamedTuple):
    """The stages of a pipeline that one wrapper can stand for."""

    take: Callable[[str | bytes], bool]
    """Takes one unit at once, or says that it has not."""
    place: str | bytes
    """For which key, where that is the same for all calls."""
    place_of: Callable[[tuple[Any, ...], dict[str, Any]], str | bytes] | None
    """Returns the key for a call with these arguments; None where it is the same for all calls."""
    retries: RetryManager | AsyncRetryManager
    gate: Gate
    """Of the breaker that follows them."""
    kinds: frozenset[Kind]
    """Of which kinds of functions."""

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Fusion | None:
        """Return the fusion of these stages; None where they are others, or have more to do.

        Only the library's own classes are fused, since a subclass may do otherwise.
        """
        last = stages[-1] if stages else None
        if not (isinstance(last, Retrying) and (gate := _gate_of(last)) is not None):
            return None
        retries = last.retries
        if len(stages) == 1:
            return cls(_take_nothing, b"", None, retries, gate, frozenset({Kind.SYNC, Kind.ASYNC}))
        first = stages[0]
        if len(stages) > 2 or not isinstance(first, Limiting) or first.waits or first.context.cost != 1:  # noqa: PLR2004 - limiter, retries
            return None
        kinds, take = _KINDS.get(type(first.limiter)), first.limiter.entry()
        if kinds is None or take is None:
            return None
        if first.place is None:
            return cls(take, b"", first.place_of, retries, gate, kinds)
        return cls(take, first.place, None, retries, gate, kinds)


def _gate_of(stage: Retrying) -> Gate | None:
    """Return the gate of its breaker, if a success needs no look at the result and none at the time."""
    retries, breaker = stage.retries, stage.retries.breaker
    if type(retries) not in {RetryManager, AsyncRetryManager} or type(breaker) is not CircuitBreaker:
        return None
    if retries.seconds is not None or retries.retry_if_result is not None:
        return None
    return None if stage.registry is not None or breaker.gate.examines else breaker.gate


_KINDS: Final = {
    RateLimiter: frozenset({Kind.SYNC, Kind.ASYNC}),
    AsyncRateLimiter: frozenset({Kind.ASYNC}),
}


def _take_nothing(_place: str | bytes) -> bool:
    """Take nothing: there is no limiter."""
    return True


def _failed(
    policy: Policy, gate: Gate, period: Period, failure: Exception, began: int
) -> tuple[Call, float | None]:
    """Return the call whose first attempt failed, and the seconds to wait; None: raise the failure."""
    call = Call(policy, None)
    call.admitted(Permit(gate, period, 0, inf, inf))
    return call, call.failed(failure, began)


def fused(  # noqa: C901 - in one piece, since a further call would cost what this saves
    fusion: Fusion, policy: Policy, fn: Fn, held: Held, parts: tuple[Any, ...], otherwise: Fn
) -> Fn:
    """Return a function that does what the stages of `fusion` do around `fn`, a plain function.

    Args:
        fusion: What it stands for.
        policy: Its retries, by the name that they have for `fn`.
        fn: What to call.
        held: What holds the parts of the pipeline, so that a change of them is seen.
        parts: Those that it was made of.
        otherwise: What is called where there is more to it, or the parts are others by now.
    """
    take, place, place_of, _, gate, _ = fusion
    core, now = gate.core, gate.now
    tokens = (policy.budget or RetryBudget()).state  # one that nobody draws on is always full
    current_deadline, books = CURRENT.get, BOOKS

    def guarded(*args: Any, **kwargs: Any) -> Any:
        period = core.period
        if not (
            period.passes
            and held.parts is parts
            and current_deadline() is None
            and take(place if place_of is None else place_of(args, kwargs))
        ):
            return otherwise(*args, **kwargs)
        began = books.given_up
        try:
            result = fn(*args, **kwargs) if kwargs else fn(*args)  # none are spared being copied
            if type(result) in SUSPECT:
                refuse_unguarded(fn, result)
        except Exception as failure:
            call, delay = _failed(policy, gate, period, failure, began)
            if delay is None:
                raise
        else:
            window = period.window
            if window.success_matters:
                ended = now()
                if not window.note(ended):
                    with gate.lock:
                        window.succeed(ended)
            if tokens.spent:  # without the lock: see resilience.retry.guards
                policy.ledger.succeeded(1)
            return result
        if delay:
            pause(policy, call, delay)
        return go_on(policy, call, fn, args, kwargs)

    return guarded


def fused_async(
    fusion: Fusion, policy: Policy, fn: Fn, held: Held, parts: tuple[Any, ...], otherwise: Fn
) -> Fn:
    """Return a coroutine function that does what the stages of `fusion` do around `fn`, one too.

    The arguments are those of `fused`. A task that is about to be cancelled is left to the stages, which
    charge nothing for it.
    """
    from resilience.pipeline.tasks import present_task  # noqa: PLC0415 - it needs asyncio, which is here soon

    take, place, place_of, _, gate, _ = fusion
    core, now = gate.core, gate.now
    tokens = (policy.budget or RetryBudget()).state  # see fused
    current_deadline, books = CURRENT.get, BOOKS
    current_task = _no_task if take is _take_nothing else present_task

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        period = core.period
        if (
            not (period.passes and held.parts is parts and current_deadline() is None)
            or ((task := current_task()) is not None and task.cancelling())
            or not take(place if place_of is None else place_of(args, kwargs))
        ):
            return await otherwise(*args, **kwargs)
        began = books.given_up
        try:
            result = await (fn(*args, **kwargs) if kwargs else fn(*args))
        except Exception as failure:
            call, delay = _failed(policy, gate, period, failure, began)
            if delay is None:
                raise
        else:
            window = period.window
            if window.success_matters:
                ended = now()
                if not window.note(ended):
                    with gate.lock:
                        window.succeed(ended)
            if tokens.spent:
                policy.ledger.succeeded(1)
            return result
        if delay:
            await pause_async(policy, call, delay)
        return await go_on_async(policy, call, fn, args, kwargs)

    return guarded


def _no_task() -> None:
    """Stand for the present task where nobody asks for it."""
