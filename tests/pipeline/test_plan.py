"""What a pipeline makes of a function."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from resilience import AsyncRateLimiter, CircuitBreaker, CircuitOpenError, RateLimiter, RetryManager, Timeout
from resilience.callables import Kind
from resilience.pipeline.context import Context
from resilience.pipeline.plan import Held, Plan


def work(value):
    return value


async def work_async(value):
    return value


def generate():
    yield 1


async def generate_async():
    yield 1


def plan_of(*parts, **context):
    held = Held(parts)
    return Plan(held, parts, Context().changed(**context), None)


def unneeded():
    raise AssertionError("the parts are the same")


FUSED = (RateLimiter("1000/s"), RetryManager(), CircuitBreaker())
STACKED = (Timeout(1.0), RetryManager(), CircuitBreaker())
each_shape = pytest.mark.parametrize("parts", [FUSED, STACKED], ids=["fused", "stacked"])


@each_shape
def test_one_call(parts):
    plan = plan_of(*parts)
    for _ in range(2):
        assert plan.for_one(work, Kind.SYNC)(1) == 1
        assert asyncio.run(plan.for_one(work_async, Kind.ASYNC)(1)) == 1


@each_shape
def test_many_calls(parts):
    plan = plan_of(*parts)
    assert plan.for_good(work, Kind.SYNC, unneeded)(1) == 1
    assert asyncio.run(plan.for_good(work_async, Kind.ASYNC, unneeded)(1)) == 1
    if parts is FUSED:  # a Timeout has no say over a generator
        assert list(plan.for_good(generate, Kind.GENERATOR, unneeded)()) == [1]
    assert plan.fuses(Kind.SYNC) is (parts is FUSED)
    assert plan.fuses(Kind.GENERATOR) is False


def test_a_call_whose_key_is_in_its_arguments_is_stacked():
    limiter = RateLimiter("2/minute")
    plan = plan_of(limiter, RetryManager(), CircuitBreaker(), key=lambda value: value)
    assert plan.for_one(work, Kind.SYNC)("ada") == "ada"
    assert plan.for_good(work, Kind.SYNC, unneeded)("ada") == "ada"
    assert limiter.peek("ada").remaining == 0


@each_shape
def test_work_that_is_not_done_is_refused(parts):
    plan = plan_of(*parts)
    for guarded in (
        plan.for_one(work_async, Kind.SYNC),
        plan.for_good(lambda: work_async(1), Kind.SYNC, unneeded),
    ):
        with pytest.raises(TypeError, match="returned a coroutine"):
            guarded() if guarded.__class__ is type(work) else guarded(1)
    for fn in (generate, generate_async):
        with pytest.raises(TypeError, match="makes a generator"):
            plan.for_one(fn, Kind.SYNC)()
    with pytest.raises(TypeError, match="returned 1, which cannot be awaited"):
        asyncio.run(plan.for_one(work, Kind.ASYNC)(1))


@pytest.mark.parametrize("kind", [Kind.SYNC, Kind.ASYNC])
def test_where_there_is_more_to_it_the_stages_are_asked(kind):
    breaker = CircuitBreaker(1, 60.0)
    plan = plan_of(RetryManager(), breaker)
    fn = work if kind is Kind.SYNC else work_async
    breaker.force_open()
    for guarded in (plan.for_one(fn, kind), plan.for_good(fn, kind, unneeded)):
        with pytest.raises(CircuitOpenError):
            guarded(1) if kind is Kind.SYNC else asyncio.run(guarded(1))


def test_with_other_parts_what_is_for_good_is_renewed():
    parts = (RetryManager(), CircuitBreaker())
    held = Held(parts)
    plan = Plan(held, parts, Context(), None)
    guarded = plan.for_good(work, Kind.SYNC, lambda: lambda value: ("renewed", value))
    assert guarded(1) == 1
    held.parts = (RetryManager(),)
    assert guarded(1) == ("renewed", 1)


def test_what_is_known_is_taken():
    parts = (RateLimiter("1/s"), RetryManager(), CircuitBreaker())
    held = Held(parts)
    known = Plan(held, parts, Context(), None)
    other = Plan(held, parts, Context().changed(key="ada"), None, known)
    assert other._fusion.retries is known._fusion.retries
    assert other._fusion.place == "ada"


def test_a_limiter_of_tasks_is_fused_for_tasks_only():
    plan = plan_of(AsyncRateLimiter("1/s"), RetryManager(), CircuitBreaker())
    assert plan.fuses(Kind.ASYNC)
    assert not plan.fuses(Kind.SYNC)


def test_plans_leave_nothing_to_the_garbage_collector():
    plan = plan_of(*FUSED)
    plan.for_one(work, Kind.SYNC)(1)
    executes = plan._executes[Kind.SYNC]
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(executes)
        del plan
        assert sys.getrefcount(executes) == before - 1
    finally:
        gc.enable()


def test_a_fork_makes_the_lock_anew():
    held = Held(())
    before = held.lock
    held.after_fork()
    assert held.lock is not before
