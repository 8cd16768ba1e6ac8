"""What each part adds to the worst case."""

from __future__ import annotations

from math import inf

import pytest

from resilience import (
    AdaptiveLimit,
    AdaptiveThrottle,
    AsyncBulkhead,
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    BreakerRegistry,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hedge,
    LoadShedder,
    Pipeline,
    RateLimiter,
    RetryManager,
    StreamTimeout,
    Timeout,
)
from resilience._core.compose import Role, Step
from resilience.pipeline import Waiting
from resilience.pipeline.steps import steps_of


def decorate(fn):
    return fn


class Part:
    name = 5

    def __call__(self, fn):
        return fn


ROWS = [
    (
        RetryManager(4, 1.0, name="a", jitter="none", deadline=9.0, idempotent=False, budget=None),
        Step(Role.RETRY, "'a'", 4, 7.0, 198.0, limit=9.0, budgeted=False, idempotent=False),
    ),
    (AsyncRetryManager(1), Step(Role.RETRY, "AsyncRetryManager")),
    (RateLimiter("1/s", name="a"), Step(Role.LIMITER, "'a'")),
    (AsyncRateLimiter("1/s", name="a"), Step(Role.LIMITER, "'a'")),
    (Waiting(RateLimiter("1/s", name="a"), timeout=2.0), Step(Role.LIMITER, "'a'", wait=2.0)),
    (Waiting(RateLimiter("1/s", name="a")), Step(Role.LIMITER, "'a'", wait=inf)),
    (Bulkhead(1, name="a"), Step(Role.BULKHEAD, "'a'")),
    (Bulkhead(1, 1, name="a"), Step(Role.BULKHEAD, "'a'", wait=inf)),
    (AsyncBulkhead(1, 1, 2.0, name="a"), Step(Role.BULKHEAD, "'a'", wait=2.0)),
    (Timeout(2.0, name="a"), Step(Role.TIMEOUT, "'a'", limit=2.0)),
    (Hedge(0.5, name="a", max_attempts=3), Step(Role.HEDGE, "'a'", 3, 1.0)),
    (Hedge(percentile=0.9, name="a", budget=None), Step(Role.HEDGE, "'a'", 2, inf, budgeted=False)),
    (StreamTimeout(1.0, name="a"), Step(Role.STREAM, "'a'")),
    (CircuitBreaker(name="a"), Step(Role.BREAKER, "'a'")),
    (BreakerRegistry(name="a"), Step(Role.BREAKER, "of the key")),
    (Fallback(value=None, name="a"), Step(Role.FALLBACK, "'a'")),
    (AdaptiveLimit(name="a"), Step(Role.REFUSAL, "'a'")),
    (AdaptiveThrottle(name="a"), Step(Role.REFUSAL, "'a'")),
    (LoadShedder(name="a"), Step(Role.REFUSAL, "'a'")),
    (decorate, Step(Role.OTHER, "'decorate'")),
    (Part(), Step(Role.OTHER, "Part")),
]


@pytest.mark.parametrize(
    ("part", "step"), ROWS, ids=[f"{type(row[0]).__name__}-{n}" for n, row in enumerate(ROWS)]
)
def test_a_part(part, step):
    (found,) = steps_of(part)
    assert found[:4] == step[:4]
    assert found.asked == pytest.approx(step.asked)
    assert found[5:] == step[5:]


def test_the_context_of_a_pipeline():
    pipeline = Pipeline(RetryManager(), CircuitBreaker()).with_(deadline=2.0, idempotent=False)
    deadline, retry, breaker = steps_of(pipeline)
    assert deadline == Step(Role.DEADLINE, "of the call", limit=2.0)
    assert (retry.idempotent, breaker.idempotent) == (False, True)
    (retry,) = steps_of(Pipeline(RetryManager(idempotent=False)).with_(idempotent=True))
    assert retry.idempotent


def test_a_breaker_learns_of_first_attempts_directly_after_retries_only():
    fed = [
        [step.first_attempts for step in steps_of(Pipeline(*parts)) if step.role is Role.BREAKER]
        for parts in (
            (RetryManager(), CircuitBreaker()),
            (AsyncRetryManager(), BreakerRegistry()),
            (RetryManager(), Timeout(1.0), CircuitBreaker()),
            (CircuitBreaker(), RetryManager()),
        )
    ]
    assert fed == [[True], [True], [False], [False]]


def test_pipelines_within_pipelines():
    inner = AsyncPipeline(RetryManager(name="r"), CircuitBreaker(name="b")).with_(deadline=1.0)
    roles = [step.role for step in steps_of(AsyncPipeline(AsyncRateLimiter("1/s"), inner))]
    assert roles == [Role.LIMITER, Role.DEADLINE, Role.RETRY, Role.BREAKER]
