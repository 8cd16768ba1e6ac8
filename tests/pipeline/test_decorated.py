"""Functions that a pipeline decorates, which go by the parts of the moment."""

from __future__ import annotations

import asyncio

import pytest

from resilience import CircuitBreaker, CircuitOpenError, RetryManager, Timeout
from resilience.pipeline.context import Context
from resilience.pipeline.decorated import Decorated
from resilience.pipeline.plan import Held, Plan


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


class Source:
    """The plan of the moment, as a pipeline has it."""

    def __init__(self, *parts):
        self.held = Held(parts)
        self.plan = Plan(self.held, parts, Context(), None)

    def __call__(self, parts=None):
        if parts is not None:
            return Plan(self.held, parts, Context(), None)
        if self.plan.parts is not self.held.parts:
            self.plan = Plan(self.held, self.held.parts, Context(), None)
        return self.plan


def tagging(tag, calls):
    """Return a part that notes each call."""

    def part(fn):
        from resilience.guarding import async_generator_in, generator_in

        class Block:
            def __enter__(self):
                calls.append(tag)

            def __exit__(self, *_):
                pass

            async def __aenter__(self):
                calls.append(tag)

            async def __aexit__(self, *_):
                pass

        def sync(*args):
            calls.append(tag)
            return fn(*args)

        async def awaited(*args):
            calls.append(tag)
            return await fn(*args)

        makers = {
            work: sync,
            work_async: awaited,
            items: generator_in(Block, fn),
            items_async: async_generator_in(Block, fn),
        }
        return makers[getattr(fn, "__wrapped__", fn)]

    return part


def outcome_of(guarded, fn):
    if fn is work:
        return guarded(1)
    if fn is work_async:
        return asyncio.run(guarded(1))
    if fn is items:
        stream = guarded(1)
        return [next(stream), stream.send(2)]

    async def read():
        stream = guarded(1)
        found = [await anext(stream), await stream.asend(2)]
        await stream.aclose()
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("fn", [work, work_async, items, items_async])
def test_each_call_goes_by_the_parts_of_the_moment(fn):
    calls = []
    source = Source(tagging("first", calls))
    guarded = Decorated(fn, source).wrapper()
    expected = outcome_of(fn, fn)
    assert outcome_of(guarded, fn) == expected
    source.held.parts = (tagging("second", calls),)
    assert outcome_of(guarded, fn) == expected
    assert outcome_of(guarded, fn) == expected
    assert calls == ["first", "second", "second"]


def test_a_fused_function_sees_changes_by_itself():
    source = Source(RetryManager(), CircuitBreaker())
    guarded = Decorated(work, source).wrapper()
    assert guarded(1) == 1
    breaker = CircuitBreaker()
    breaker.force_open()
    source.held.parts = (RetryManager(), breaker)
    with pytest.raises(CircuitOpenError):
        guarded(1)


def test_parts_may_be_tried_on():
    decorated = Decorated(work, Source(Timeout(1.0)))
    decorated.try_on((RetryManager(),))
    with pytest.raises(TypeError, match="made a coroutine function"):
        decorated.try_on((lambda fn: work_async,))


def test_it_looks_like_the_function():
    for parts in ((Timeout(1.0),), (RetryManager(), CircuitBreaker())):
        guarded = Decorated(work, Source(*parts)).wrapper()
        assert (guarded.__name__, guarded.__doc__, guarded.__wrapped__) == ("work", "Return it.", work)
