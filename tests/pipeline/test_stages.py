"""The steps that a pipeline makes of its parts."""

from __future__ import annotations

import asyncio
import functools

import pytest

from resilience import (
    AsyncRateLimiter,
    AsyncRetryManager,
    BreakerRegistry,
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Criticality,
    Pipeline,
    RateLimitedError,
    RateLimiter,
    RetryManager,
    Timeout,
    current_criticality,
    remaining,
)
from resilience.callables import Kind, kind_of, name_of
from resilience.pipeline.context import Context
from resilience.pipeline.stages import AsItIs, Framed, Keyed, Limiting, Retrying, arranged, dressed
from resilience.pipeline.waiting import Waiting
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock


def work(value):
    """Return it."""
    return value


async def work_async(value):
    return value


def items(value):
    got = yield value
    yield got
    return "end"


async def items_async(value):
    got = yield value
    yield got


def stage_of(*parts, **context):
    (stage,) = arranged(parts, Context().changed(**context), None)
    return stage


def around(stage, fn, *, for_good=True):
    return stage.around(fn, kind_of(fn), for_good=for_good)


each_way = pytest.mark.parametrize("for_good", [True, False], ids=["for good", "for one"])


# --- arranging -----------------------------------------------------------------------------------


def test_parts_become_stages_in_order():
    parts = (
        Bulkhead(1),
        RateLimiter("1/s"),
        Waiting(RateLimiter("1/s")),
        RetryManager(),
        Timeout(1.0),
        BreakerRegistry(),
        CircuitBreaker(),
    )
    stages = arranged(parts, Context(deadline=1.0, criticality=Criticality.SHEDDABLE), None)
    kinds = [Framed, Framed, AsItIs, Limiting, Limiting, Retrying, AsItIs, Keyed, AsItIs]
    assert [type(stage) for stage in stages] == kinds


@pytest.mark.parametrize("manager", [RetryManager, AsyncRetryManager])
def test_retries_adopt_the_breaker_that_follows_them(manager):
    retries, breaker = manager(name="r"), CircuitBreaker()
    stage = stage_of(retries, breaker)
    assert stage.retries.breaker is breaker
    assert stage.retries.budget is retries.budget


def test_retries_adopt_nothing_else():
    first, second = arranged((RetryManager(), Timeout(1.0)), Context(), None)
    assert first.retries.breaker is None
    assert isinstance(second, AsItIs)


def test_a_breaker_that_they_have_already_is_not_repeated():
    breaker = CircuitBreaker()
    retries = RetryManager(circuit_breaker=breaker)
    assert stage_of(retries, breaker).retries is retries
    with pytest.raises(ValueError, match="have a circuit_breaker of their own"):
        stage_of(retries, CircuitBreaker())


def test_retries_know_whether_the_call_is_idempotent():
    retries = RetryManager()
    assert stage_of(retries, idempotent=False).retries.idempotent is False
    assert stage_of(retries, idempotent=True).retries is retries


def test_nameless_retries_go_by_the_name_of_the_pipeline():
    (stage,) = arranged((RetryManager(),), Context(), "storage")
    assert stage.retries.name == "storage"
    (stage,) = arranged((RetryManager(name="own"),), Context(), "storage")
    assert stage.retries.name == "own"


def test_what_would_be_the_same_is_taken():
    parts = (RetryManager(), CircuitBreaker())
    known = arranged(parts, Context(), None)
    assert arranged(parts, Context(key=("ada",)), None, known) == known
    assert arranged(parts, Context(idempotent=False), None, known) != known
    assert arranged((RetryManager(), parts[1]), Context(), None, known) != known
    keyed = (RetryManager(), BreakerRegistry())
    assert arranged(keyed, Context(), None, arranged(keyed, Context(), None)) != arranged(
        keyed, Context(), None
    )


# --- parts as they are ---------------------------------------------------------------------------


def test_a_part_decorates_for_good():
    bulkhead = Bulkhead(1)
    guarded = around(AsItIs(bulkhead), work)
    assert guarded(1) == 1
    assert bulkhead.name == name_of(work)


def test_a_part_executes_one_call():
    timeout = Timeout(1.0)
    assert around(AsItIs(timeout), work, for_good=False) == _partial(timeout.execute, work)
    assert around(AsItIs(timeout), work_async, for_good=False) == _partial(timeout.execute_async, work_async)
    assert timeout.name.startswith("timeout-")


class _partial:  # noqa: N801 - a partial that is equal to its like
    def __init__(self, execute, fn):
        self.parts = execute, fn

    def __eq__(self, other):
        return (other.func, *other.args) == self.parts

    __hash__ = None


def test_a_pipeline_makes_one_call_of_either_kind():
    inner = Pipeline(RetryManager(), CircuitBreaker())
    assert around(AsItIs(inner), work, for_good=False)(1) == 1
    assert asyncio.run(around(AsItIs(inner), work_async, for_good=False)(1)) == 1


def test_a_part_without_the_right_execute_decorates_one_call_too():
    assert around(AsItIs(lambda fn: fn), work, for_good=False) is work
    with pytest.raises(TypeError, match="use AsyncBulkhead"):
        around(AsItIs(Bulkhead(1)), work_async, for_good=False)


def test_a_part_must_keep_the_kind():
    with pytest.raises(TypeError, match=r"made a function of .*work_async, a coroutine function"):
        around(AsItIs(lambda fn: lambda: fn), work_async)


# --- limiters ------------------------------------------------------------------------------------


@each_way
def test_a_limiter_is_asked_first(for_good):
    limiter = RateLimiter("2/minute")
    limited = around(stage_of(limiter, key="ada", cost=2), work, for_good=for_good)
    assert limited(1) == 1
    assert limiter.peek("ada").remaining == 0
    with pytest.raises(RateLimitedError):
        limited(1)


def test_a_limited_function_looks_like_itself():
    limited = around(stage_of(RateLimiter("2/minute")), work)
    assert (limited.__name__, limited.__doc__) == ("work", "Return it.")


def test_the_key_may_come_from_the_arguments():
    limiter = RateLimiter("1/minute")
    limited = around(stage_of(limiter, key=lambda value: value), work)
    assert (limited("ada"), limited("bob")) == ("ada", "bob")
    with pytest.raises(RateLimitedError):
        limited("ada")
    stage = stage_of(limiter, key=lambda value: value)
    assert stage.place is None
    assert stage.place_of(("ada",), {}) == "ada"
    assert stage_of(limiter, key="ada").place == "ada"


def test_a_waiting_limiter_waits():
    clock = FakeClock()
    limiter = RateLimiter("1/minute", clock=clock)
    limited = around(stage_of(Waiting(limiter, timeout=60.0)), work)
    assert (limited(1), limited(2)) == (1, 2)
    assert clock.now() >= 59.0


@pytest.mark.parametrize("make", [RateLimiter, AsyncRateLimiter])
def test_awaited_functions(make):
    async def run():
        limited = around(stage_of(make("1/minute")), work_async)
        assert await limited(1) == 1
        with pytest.raises(RateLimitedError):
            await limited(1)

    asyncio.run(run())


@pytest.mark.parametrize("make", [RateLimiter, AsyncRateLimiter])
async def test_a_task_that_is_to_be_cancelled_is_charged_nothing(make):
    limiter = make("2/minute")
    limited = around(stage_of(limiter), work_async)
    task = asyncio.ensure_future(limited(1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def cancelled_inside():
        asyncio.current_task().cancel()
        await limited(1)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_inside())
    left = limiter.peek()
    assert (left if isinstance(limiter, RateLimiter) else await left).remaining == 2


def test_a_generator_is_charged_when_its_first_item_is_asked_for():
    limiter = RateLimiter("1/minute")
    limited = around(stage_of(limiter, key=lambda value: value), items)
    stream = limited("ada")
    assert limiter.peek("ada").remaining == 1
    assert (next(stream), stream.send(2)) == ("ada", 2)
    assert limiter.peek("ada").remaining == 0
    with pytest.raises(RateLimitedError):
        next(limited("ada"))


@pytest.mark.parametrize("make", [RateLimiter, AsyncRateLimiter])
async def test_an_async_generator_too(make):
    limited = around(stage_of(make("1/minute"), key="ada"), items_async)
    stream = limited(1)
    assert (await anext(stream), await stream.asend(2)) == (1, 2)
    assert [item async for item in stream] == []
    with pytest.raises(RateLimitedError):
        await anext(limited(1))


def test_an_async_generator_has_no_key_of_its_arguments():
    with pytest.raises(TypeError, match="cannot be a function of its arguments"):
        around(stage_of(AsyncRateLimiter("1/s"), key=lambda value: value), items_async)


class Blocking(MemoryStore):
    blocking = True


def test_limiters_of_the_wrong_kind():
    with pytest.raises(TypeError, match="is awaited, and so guards no function: use RateLimiter"):
        around(stage_of(AsyncRateLimiter("1/s")), work)
    blocking = RateLimiter("1/s", name="a", store=Blocking())
    for part in (Waiting(RateLimiter("1/s")), blocking):
        with pytest.raises(TypeError, match="would block the event loop of a coroutine function"):
            around(stage_of(part), work_async)


# --- retries -------------------------------------------------------------------------------------


@each_way
def test_retries_repeat(for_good):
    replies = iter([ConnectionError(), 5])

    def fetch():
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    assert around(stage_of(RetryManager(initial_delay=0)), fetch, for_good=for_good)() == 5


@each_way
def test_retries_with_a_registry_ask_the_breaker_of_the_key(for_good):
    registry = BreakerRegistry(1, 60.0)
    stage = stage_of(RetryManager(), registry, key=lambda value: value)

    def fail(value):
        raise ConnectionError

    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017 - the second is the rejection
            around(stage, fail, for_good=for_good)("a")
    assert registry.get("a").state == "open"
    assert registry.get("b").state == "closed"
    assert around(stage, work, for_good=for_good)("b") == "b"
    assert asyncio.run(around(stage, work_async, for_good=for_good)("b")) == "b"


# --- registries ----------------------------------------------------------------------------------


@each_way
def test_a_registry_guards_by_the_breaker_of_the_key(for_good):
    registry = BreakerRegistry(1, 60.0)
    stage = stage_of(registry, key="a")
    assert around(stage, work, for_good=for_good)(1) == 1
    assert asyncio.run(around(stage, work_async, for_good=for_good)(1)) == 1
    registry.get("a").force_open()
    with pytest.raises(CircuitOpenError):
        around(stage, work, for_good=for_good)(1)


@pytest.mark.parametrize("parts", [(BreakerRegistry(),), (RetryManager(), BreakerRegistry())])
def test_a_registry_needs_a_key_and_a_call(parts):
    with pytest.raises(TypeError, match="the call has none: say it by with_"):
        around(stage_of(*parts), work)
    with pytest.raises(TypeError, match="use KeyedPipelines"):
        around(stage_of(*parts, key="a"), items)


# --- blocks --------------------------------------------------------------------------------------


@each_way
def test_a_deadline_and_a_criticality_are_around_the_call(for_good):
    def look():
        return remaining(), current_criticality()

    async def look_async():
        return look()

    for fn in (look, look_async):
        left, level = None, None
        for stage in arranged(
            (RetryManager(),), Context().changed(deadline=5, criticality="sheddable"), None
        )[:2]:
            outcome = around(stage, fn, for_good=for_good)()
            now_left, now_level = asyncio.run(outcome) if fn is look_async else outcome
            left, level = left or now_left, now_level
        assert 4 < left <= 5
        assert level is Criticality.SHEDDABLE
    assert remaining() is None


def test_no_block_is_around_a_generator():
    stage, _ = arranged((RetryManager(),), Context(deadline=1.0), None)
    with pytest.raises(TypeError, match="a deadline around it would be its reader's too"):
        around(stage, items)


# --- looks ---------------------------------------------------------------------------------------


class Echo:
    def __call__(self, value):
        return value


@pytest.mark.parametrize("fn", [work, functools.partial(work), Echo(), Echo().__call__, int])
def test_what_is_dressed_has_the_name_of_what_it_stands_for(fn):
    made = dressed(lambda *args: None, fn)
    assert name_of(made) == name_of(fn)
    assert kind_of(made) is Kind.SYNC
