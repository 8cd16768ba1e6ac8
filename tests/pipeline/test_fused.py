"""One wrapper does what the stages do: the same outcomes go through both, and everything is compared."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience import (
    AsyncRateLimiter,
    AsyncRetryManager,
    BreakerRegistry,
    CircuitBreaker,
    RateLimitedError,
    RateLimiter,
    RetryBudget,
    RetryManager,
    deadline,
)
from resilience.events import subscribe
from resilience.pipeline import AsyncPipeline, Pipeline, Waiting
from resilience.pipeline.context import Context
from resilience.pipeline.fused import Fusion
from resilience.pipeline.stages import arranged
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
            with contextlib.nullcontext() if seconds is None else deadline(seconds, clock=self.clock):
                result = asyncio.run(awaited()) if self.is_async else guarded(1, more=2)
        except BaseException as error:  # noqa: BLE001 - compared with the other side's
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
    runs=st.lists(st.tuples(st.sampled_from([*OUTCOMES, "transient", "ok"]), st.integers(1, 4)), max_size=15),
    calls=st.lists(
        st.tuples(st.sampled_from([0.0, 0.0, 3.0, 10.0]), st.sampled_from([None, None, 0.3, 0.0])),
        min_size=1,
        max_size=25,
    ),
    breaker=st.sampled_from(BREAKERS),
    with_limiter=st.booleans(),
)
def test_fused_and_stacked_are_the_same(is_async, by, runs, calls, breaker, with_limiter):
    plan = [outcome for outcome, times in runs for _ in range(times)]
    sides = [
        Side(plan, breaker=breaker, is_async=is_async, with_limiter=with_limiter),
        Side(plan, breaker=breaker, is_async=is_async, with_limiter=with_limiter),
    ]
    guarded = [sides[0].stacked(), getattr(sides[1], by)()]
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
        assert outcomes[0] == outcomes[1]
        first, second = (_shown(side.state()) for side in sides)
        assert first == second


def _comparable(event):
    return (type(event), *(repr(field) for field in event))


def _shown(state):
    *rest, log = state
    return (*rest, [*map(_comparable, log)])


# --- what is fused -------------------------------------------------------------------------------


class OwnBreaker(CircuitBreaker):
    pass


class OwnRetries(RetryManager):
    pass


class OwnLimiter(RateLimiter):
    pass


LIMITER, RETRIES, BREAKER = RateLimiter("9/s"), RetryManager(), CircuitBreaker()


def fusion_of(*parts, **context):
    return Fusion.of(arranged(parts, Context().changed(**context), None))


@pytest.mark.parametrize(
    "parts", [(LIMITER, RETRIES, BREAKER), (RETRIES, BREAKER), (AsyncRateLimiter("9/s"), RETRIES, BREAKER)]
)
def test_limiter_retries_and_breaker_are_fused(parts):
    assert fusion_of(*parts) is not None


def test_the_key_is_found_once_or_for_each_call():
    parts = (LIMITER, RETRIES, BREAKER)
    assert fusion_of(*parts).place == b""
    assert fusion_of(*parts, key="ada").place == "ada"
    by_function = fusion_of(*parts, key=lambda user: user)
    assert by_function.place_of(("ada",), {}) == "ada"


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (LIMITER,),
        (RETRIES,),
        (LIMITER, RETRIES),
        (BREAKER, RETRIES),
        (RETRIES, BREAKER, LIMITER),
        (BREAKER, RETRIES, CircuitBreaker()),
        (LIMITER, RateLimiter("9/s"), RETRIES, BREAKER),
        (RateLimiter("9/s", "90/minute"), RETRIES, BREAKER),
        (OwnLimiter("9/s"), RETRIES, BREAKER),
        (Waiting(LIMITER), RETRIES, BREAKER),
        (LIMITER, OwnRetries(), BREAKER),
        (LIMITER, RETRIES, OwnBreaker()),
        (LIMITER, RETRIES, CircuitBreaker(slow_after=1.0)),
        (LIMITER, RETRIES, CircuitBreaker(failure_if_result=bool)),
        (LIMITER, RetryManager(deadline=1.0), BREAKER),
        (LIMITER, RetryManager(retry_if_result=bool), BREAKER),
        (LIMITER, RETRIES, BreakerRegistry()),
    ],
)
def test_nothing_else_is(parts):
    assert fusion_of(*parts, key="ada") is None


def test_a_cost_is_not():
    assert fusion_of(LIMITER, RETRIES, BREAKER, cost=2) is None


# --- what the comparison does not reach ----------------------------------------------------------


def test_work_that_is_not_done_is_refused_and_neutral():
    breaker = CircuitBreaker(1, 60.0)

    async def forgotten():
        raise AssertionError

    guarded = Pipeline(RetryManager(), breaker)(lambda: forgotten())  # noqa: PLW0108 - a function that returns one
    with pytest.raises(TypeError, match="returned a coroutine"):
        guarded()
    with pytest.raises(TypeError, match="cannot be awaited"):
        asyncio.run(AsyncPipeline(RetryManager(), breaker).execute(abs, 1))
    assert breaker.is_closed


@pytest.mark.parametrize("is_async", [False, True])
def test_a_retry_without_a_delay_follows_at_once(is_async):
    side = Side(["transient"], breaker={"failure_threshold": 3}, is_async=is_async, with_limiter=False)
    side.retries = side.retries.replace(initial_delay=0.0)
    assert side.call(side.fused(), None) == 3
    assert side.clock.sleeps == []
    assert side.attempts == 2


async def test_a_task_that_is_to_be_cancelled_is_charged_nothing():
    limiter = AsyncRateLimiter("9/minute")
    await limiter.try_acquire()
    guarded = AsyncPipeline(limiter, AsyncRetryManager(), CircuitBreaker())(Side.work_async)

    async def cancelled_inside():
        asyncio.current_task().cancel()
        await guarded(None, 1)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_inside())
    assert (await limiter.peek()).remaining == 8


def test_a_success_in_another_slice_is_counted_under_the_lock():
    for is_async in (False, True):
        side = Side([], breaker={"minimum_calls": 1}, is_async=is_async, with_limiter=False)
        guarded = side.fused()
        assert side.call(guarded, None) == 3
        side.clock.advance(5.0)
        assert side.call(guarded, None) == 3
        assert side.breaker.snapshot().calls == 2


@pytest.mark.parametrize("by", ["stacked", "fused", "executed"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_deadline_leaves_it_to_the_stages(is_async, by):
    side = Side(["transient"] * 3, breaker={"failure_threshold": 9}, is_async=is_async, with_limiter=False)
    outcome = side.call(getattr(side, by)(), 0.3)
    assert "would not end within the 0.2 s left" in outcome[2][0]
    assert side.attempts == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_other_parts_are_seen(is_async):
    side = Side(["transient"] * 3, breaker={"failure_threshold": 9}, is_async=is_async, with_limiter=False)
    guarded = side.fused()
    side.pipeline.reconfigure(side.retries.replace(max_attempts=1), side.breaker)
    assert side.call(guarded, None)[0] is ConnectionError
    assert side.attempts == 1


@pytest.mark.parametrize("is_async", [False, True])
def test_a_key_of_the_arguments_is_charged(is_async):
    limiter = RateLimiter("3/minute")
    limiter.try_acquire()  # what counts without a key counts apart
    pipeline = Pipeline(limiter, RetryManager(), CircuitBreaker()).with_(key=lambda user: user)

    @pipeline
    async def work_async(user):
        return user

    plain = pipeline(lambda user: user)
    guarded = (lambda user: asyncio.run(work_async(user))) if is_async else plain
    assert [guarded(user) for user in ("ada", "bob", "ada", "ada")] == ["ada", "bob", "ada", "ada"]
    assert (limiter.peek("ada").remaining, limiter.peek("bob").remaining) == (0, 2)
    with pytest.raises(RateLimitedError):
        guarded("ada")
