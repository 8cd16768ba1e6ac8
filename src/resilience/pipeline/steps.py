"""What each part of a pipeline adds to the worst case, as the arithmetic and the rules want to know it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from resilience._core.compose import Role, Step, delays_of
from resilience.adaptive import AdaptiveLimit
from resilience.breaker import BreakerRegistry, CircuitBreaker
from resilience.bulkhead import AsyncBulkhead, Bulkhead
from resilience.fallback import Fallback
from resilience.hedging import Hedge
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.pipeline.pipeline import AsyncPipeline, Pipeline
from resilience.pipeline.waiting import Waiting
from resilience.retry.manager import AsyncRetryManager, RetryManager
from resilience.shedding import LoadShedder
from resilience.streams import StreamTimeout
from resilience.throttle import AdaptiveThrottle
from resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def steps_of(policy: Any) -> tuple[Step, ...]:
    """Return the steps of a pipeline, or of a policy by itself, outermost first."""
    return tuple(_steps(policy))


def _steps(policy: Any) -> Iterator[Step]:
    if not isinstance(policy, Pipeline | AsyncPipeline):
        yield from _of_parts([policy])
        return
    context = policy.context
    if context.deadline is not None:
        yield Step(Role.DEADLINE, "of the call", limit=context.deadline)
    steps = _of_parts(policy.parts)
    if context.idempotent is not None:
        steps = (
            step._replace(idempotent=context.idempotent) if step.role is Role.RETRY else step
            for step in steps
        )
    yield from steps


def _of_parts(parts: Sequence[Any]) -> Iterator[Step]:
    for number, part in enumerate(parts):
        if isinstance(part, Pipeline | AsyncPipeline):
            yield from _steps(part)
            continue
        before = parts[number - 1] if number else None
        step = _of_part(part)
        if step.role is Role.BREAKER and isinstance(before, RetryManager | AsyncRetryManager):
            step = step._replace(first_attempts=True)
        yield step


def _of_part(part: Any) -> Step:
    for kinds, describe in _DESCRIPTIONS:
        if isinstance(part, kinds):
            return describe(part)
    return Step(Role.OTHER, _name(part))


def _name(part: Any) -> str:
    name = getattr(part, "name", None) or getattr(part, "__qualname__", None)
    return repr(name) if isinstance(name, str) else type(part).__name__


def _retry(part: RetryManager | AsyncRetryManager) -> Step:
    by_backoff, asked = delays_of(part.limits)
    return Step(
        Role.RETRY,
        part.name if part.name == type(part).__name__ else repr(part.name),
        attempts=part.limits.max_attempts,
        delays=by_backoff,
        asked=asked,
        limit=inf if part.seconds is None else part.seconds,
        budgeted=part.budget is not None,
        idempotent=part.idempotent,
    )


def _limiter(part: RateLimiter | AsyncRateLimiter) -> Step:
    return Step(Role.LIMITER, repr(part.name))


def _waiting(part: Waiting) -> Step:
    return Step(Role.LIMITER, repr(part.limiter.name), wait=inf if part.timeout is None else part.timeout)


def _bulkhead(part: Bulkhead | AsyncBulkhead) -> Step:
    timeout = part.timeout
    wait = 0.0 if not part.stats().queue else inf if timeout is None else timeout
    return Step(Role.BULKHEAD, repr(part.name), wait=wait)


def _hedge(part: Hedge) -> Step:
    delay = part.delay() if not part.learns else None
    further = part.max_attempts - 1
    return Step(
        Role.HEDGE,
        repr(part.name),
        attempts=part.max_attempts,
        delays=inf if delay is None else further * delay,
        budgeted=part.budget is not None,
    )


def _of_role(role: Role) -> Callable[[Any], Step]:
    return lambda part: Step(role, _name(part))


_DESCRIPTIONS: tuple[tuple[Any, Callable[[Any], Step]], ...] = (
    (RetryManager | AsyncRetryManager, _retry),
    (RateLimiter | AsyncRateLimiter, _limiter),
    (Waiting, _waiting),
    (Bulkhead | AsyncBulkhead, _bulkhead),
    (Timeout, lambda part: Step(Role.TIMEOUT, repr(part.name), limit=part.seconds)),
    (Hedge, _hedge),
    (StreamTimeout, _of_role(Role.STREAM)),
    (CircuitBreaker, _of_role(Role.BREAKER)),
    (BreakerRegistry, lambda _: Step(Role.BREAKER, "of the key")),
    (Fallback, _of_role(Role.FALLBACK)),
    (AdaptiveLimit | AdaptiveThrottle | LoadShedder, _of_role(Role.REFUSAL)),
)
