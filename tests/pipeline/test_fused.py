"""One wrapper does what the stages do: the same random outcomes go through both, and everything is compared."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import (
    AsyncRateLimiter,
    AsyncRetryManager,
    CircuitBreaker,
    RateLimiter,
    RetryBudget,
    RetryManager,
    deadline,
)
from resilience.events import subscribe
from resilience.pipeline import AsyncPipeline, Pipeline
from resilience.testing import FakeClock

OUTCOMES = {
    "ok": None,
    "transient": ConnectionError("down"),
    "timeout": TimeoutError("slow"),
    "programming": KeyError("k"),
    "cancelled": asyncio.CancelledError(),
    "interrupt": KeyboardInterrupt(),
}


class Side:
    """A pipeline's parts, and what has become of the calls through them."""

    def __init__(self, plan, *, breaker, is_async, with_limiter):
        self.clock = FakeClock()
        self.plan = iter(plan)
        self.attempts = 0
        self.log = []
        self.budget = RetryBudget(capacity=2.0)
        make = AsyncRateLimiter if is_async else RateLimiter
        self.limiter = make("20/minute", name="limiter", clock=self.clock) if with_limiter else None
        manager = AsyncRetryManager if is_async else RetryManager
        self.retries = manager(
            jitter="none", name="retries", clock=self.clock, budget=self.budget, on_retry=self.log.append
        )
        self.breaker = CircuitBreaker(
            name="breaker", clock=self.clock, random=lambda: 0.0, on_change=self.log.append, **breaker
        )
        self.is_async = is_async

    def work(self, value, *, more=0):
        self.attempts += 1
        outcome = OUTCOMES[next(self.plan, "ok")]
        if outcome is not None:
            raise type(outcome)(*outcome.args)
        return value + more

    async def work_async(self, value, *, more=0):
        return self.work(value, more=more)

    def stacked(self):
        fn = self.work_async if self.is_async else self.work
        guarded = self.retries.replace(circuit_breaker=self.breaker)(fn)
        return guarded if self.limiter is None else self.limiter.limit()(guarded)

    def fused(self):
        fn = self.work_async if self.is_async else self.work
        parts = (self.retries, self.breaker)
        parts = parts if self.limiter is None else (self.limiter, *parts)
        pipeline = (AsyncPipeline if self.is_async else Pipeline)(*parts)
        self.pipeline = pipeline
        return pipeline(fn)

    def executed(self):
        self.fused()
        fn = self.work_async if self.is_async else self.work
        return lambda *args, **kwargs: self.pipeline.execute(fn, *args, **kwargs)

    def call(self, guarded, seconds):
        async def awaited():
            return await guarded(1, more=2)

        try:
            with deadline(seconds, clock=self.clock) if seconds else deadline(1e9):
                pass
            if seconds:
                with deadline(seconds, clock=self.clock):
                    result = asyncio.run(awaited()) if self.is_async else guarded(1, more=2)
            else:
                result = asyncio.run(awaited()) if self.is_async else guarded(1, more=2)
        except BaseException as error:
            return type(error), str(error), getattr(error, "__notes__", None), error.__cause__
        return result

    def state(self):
        held = self.limiter
        limited = None
        if held is not None:
            peeked = asyncio.run(held.peek()) if self.is_async else held.peek()
            limited = (peeked.remaining, peeked.retry_after)
        return (
            self.attempts,
            self.clock.sleeps,
            self.budget.tokens,
            self.breaker.snapshot(),
            self.retries.stats(),
            limited,
            self.log,
        )


BREAKERS = [
    {"failure_threshold": 3, "recovery_time": 7.0},
    {"minimum_calls": 3, "recovery_time": 7.0},
    {"window_calls": 4, "minimum_calls": 3, "recovery_time": 7.0},
]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("by", ["fused", "executed"])
@settings(deadline=None, max_examples=60)
@given(
    plan=st.lists(st.sampled_from([*OUTCOMES, "transient", "ok", "ok"]), max_size=40),
    calls=st.lists(
        st.tuples(st.sampled_from([0.0, 0.0, 3.0, 10.0]), st.sampled_from([None, None, None, 0.3])),
        min_size=1,
        max_size=25,
    ),
    breaker=st.sampled_from(BREAKERS),
    with_limiter=st.booleans(),
)
def test_fused_and_stacked_are_the_same(is_async, by, plan, calls, breaker, with_limiter):
    sides = [
        Side(plan, breaker=breaker, is_async=is_async, with_limiter=with_limiter),
        Side(plan, breaker=breaker, is_async=is_async, with_limiter=with_limiter),
    ]
    guarded = [sides[0].stacked(), getattr(sides[1], by)()]
    heard = []
    for pause, seconds in calls:
        outcomes = []
        for side, fn in zip(sides, guarded, strict=True):
            side.clock.advance(pause)
            events = []
            unsubscribe = subscribe(events.append)
            try:
                outcomes.append((side.call(fn, seconds), [*map(_comparable, events)]))
            finally:
                unsubscribe()
        heard.append(outcomes)
        assert outcomes[0] == outcomes[1]
        first, second = (_shown(side.state()) for side in sides)
        assert first == second


def _comparable(event):
    return (type(event), *(repr(field) for field in event))


def _shown(state):
    *rest, log = state
    return (*rest, [*map(_comparable, log)])
