"""The loops and wrappers: every kind of function, plainly and with everything switched on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import traceback
import weakref

import pytest

from resilience.breaker import CircuitBreaker
from resilience.callables import Kind, kind_of
from resilience.deadline import deadline, remaining
from resilience.errors import DeadlineExceeded
from resilience.retry.guards import guard, run, run_async
from resilience.retry.policy import Policy
from resilience.retry.stats import RetryStats
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(clock):
    def make(**options):
        return Policy(
            **{"initial_delay": 1.0, "jitter": "none", "clock": clock, "retry_on": OSError, **options}
        )

    return make


EXTRAS = [{}, {"deadline": 100.0}, {"retry_if_result": lambda result: result == "refused"}]
"""Options that choose the plain wrapper, and two that choose the general one."""


class Script:
    """What successive attempts do: raise, or return."""

    def __init__(self, *outcomes):
        self.outcomes = iter(outcomes)
        self.attempts = 0

    def sync(self, *args, **kwargs):
        self.attempts += 1
        outcome = next(self.outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def coroutine(self, *args, **kwargs):
        await asyncio.sleep(0)
        return self.sync()


async def call(kind, policy, script, guarded=None):
    """Call the script's function of this kind by `policy`."""
    if kind == "sync":
        return (guarded or guard(policy, script.sync))(1, two=2)
    return await (guarded or guard(policy, script.coroutine))(1, two=2)


both = pytest.mark.parametrize("kind", ["sync", "async"])
extras = pytest.mark.parametrize("options", EXTRAS)


@both
@extras
async def test_a_success_is_returned(kind, options, make):
    policy = make(**options)
    assert await call(kind, policy, Script("up")) == "up"
    assert policy.stats() == RetryStats()


@both
async def test_a_wrapper_is_used_again_and_again(kind, make):
    script, policy = Script("one", "two", "three"), make()
    guarded = guard(policy, script.sync if kind == "sync" else script.coroutine)
    assert [await call(kind, policy, script, guarded) for _ in range(3)] == ["one", "two", "three"]


@both
@extras
async def test_failures_are_retried_after_their_delays(kind, options, make, clock):
    policy, script = make(**options), Script(OSError(), OSError(), "up")
    assert await call(kind, policy, script) == "up"
    assert clock.sleeps == [1.0, 2.0]
    assert policy.stats() == RetryStats(total_retries=2, successful_retries=1)


@both
@extras
async def test_the_last_failure_is_raised_as_it_is(kind, options, make):
    errors = [OSError(number) for number in range(3)]
    with pytest.raises(OSError, match="2") as caught:
        await call(kind, make(**options), Script(*errors))
    assert caught.value is errors[2]
    assert caught.value.__context__ is caught.value.__cause__ is None
    assert caught.value.__notes__ == [
        "resilience: 3 attempts in 3.0 s since the first failure; stopped: no attempts left"
    ]


@both
@extras
async def test_what_is_not_retryable_is_raised_at_once(kind, options, make, clock):
    script = Script(KeyError("x"))
    with pytest.raises(KeyError):
        await call(kind, make(**options), script)
    assert (script.attempts, clock.sleeps) == (1, [])


@both
@extras
@pytest.mark.parametrize("before", [(), (OSError(),)])
async def test_what_is_no_exception_leaves_at_once(kind, options, before, make):
    policy, script = make(**options, budget=None), Script(*before, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await call(kind, policy, script)
    assert policy.stats() == RetryStats(total_retries=len(before))


@both
@pytest.mark.parametrize("options", EXTRAS[:2])
async def test_a_delay_of_zero_is_not_slept(kind, options, make, clock):
    policy = make(initial_delay=0.0, **options)
    assert await call(kind, policy, Script(OSError(), OSError(), "up")) == "up"
    assert clock.sleeps == []


@both
async def test_a_success_funds_retries_where_something_is_missing(kind, make):
    policy = make()
    policy.budget.try_withdraw()
    await call(kind, policy, Script("up"))
    assert policy.budget.tokens == 4.1


@both
@pytest.mark.parametrize("options", EXTRAS[:2])
async def test_a_delay_that_is_interrupted_gives_the_retry_back(kind, options, make):
    class Interrupted(FakeClock):
        def sleep(self, seconds):
            raise KeyboardInterrupt

        async def sleep_async(self, seconds):
            raise asyncio.CancelledError

    policy, script = make(**options, clock=Interrupted()), Script(OSError(), "up")
    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        await call(kind, policy, script)
    assert script.attempts == 1
    assert policy.budget.tokens == 5.0
    assert policy.stats() == RetryStats()


@both
async def test_a_refused_result_is_retried(kind, make):
    policy = make(retry_if_result=lambda result: result == "refused")
    assert await call(kind, policy, Script("refused", "up")) == "up"
    assert await call(kind, policy, Script("refused", "refused", "refused")) == "refused"


@both
async def test_a_deadline_of_the_context_is_obeyed(kind, make, clock):
    policy = make()
    script = Script(OSError("first"), "up")
    with deadline(0.5, clock=clock):
        with pytest.raises(OSError, match="first"):
            await call(kind, policy, script)
        clock.advance(1.0)
        with pytest.raises(DeadlineExceeded):
            await call(kind, policy, script)
    assert (script.attempts, clock.sleeps) == (1, [])
    with deadline(5.0, clock=clock):
        assert await call(kind, policy, Script(OSError(), "up")) == "up"


@both
async def test_the_function_sees_the_calls_own_deadline(kind, make, clock):
    seen = []

    def look():
        seen.append(remaining())
        if len(seen) == 1:
            raise OSError

    async def look_async():
        look()

    policy = make(deadline=10.0)
    fn = guard(policy, look if kind == "sync" else look_async)
    result = fn()
    if kind == "async":
        await result
    assert seen == [10.0, 9.0]
    assert remaining() is None


async def test_an_async_attempt_is_cancelled_at_the_deadline(make):
    async def hang():
        await asyncio.Event().wait()

    policy = make(deadline=0.01)
    with pytest.raises(DeadlineExceeded, match="Policy was cancelled at its deadline") as caught:
        await guard(policy, hang)()
    assert isinstance(caught.value.__cause__, TimeoutError)  # its traceback shows where it hung
    assert policy.stats() == RetryStats()


async def test_a_timeout_of_the_function_itself_is_its_own_failure(make):
    script = Script(TimeoutError("mine"), "up")
    assert await guard(make(deadline=100.0), script.coroutine)() == "up"


@both
async def test_a_new_exception_of_a_singleton_does_not_grow(kind, make):
    singleton = OSError("always the same")
    with pytest.raises(OSError, match="same"):
        await call(kind, make(max_attempts=30, budget=None), Script(*[singleton] * 30))
    made_by_us = [
        frame
        for frame in traceback.extract_tb(singleton.__traceback__)
        if "retry/guards.py" in frame.filename
    ]
    assert 1 <= len(made_by_us) <= 3


# --- what the wrapper looks like -----------------------------------------------------------------


def a_function():
    return 1


async def a_coroutine():
    return 1


def a_generator():
    yield 1


async def an_async_generator():
    yield 1


@pytest.mark.parametrize("fn", [a_function, a_coroutine, a_generator, an_async_generator])
@pytest.mark.parametrize("options", [{}, {"deadline": 1.0}])
def test_the_wrapper_is_of_the_same_kind(fn, options, make):
    guarded = guard(make(**options), fn)
    assert kind_of(guarded) is kind_of(fn)
    assert inspect.iscoroutinefunction(guarded) == (kind_of(fn) is Kind.ASYNC)


def test_partials_and_callable_objects_are_looked_through(make):
    class Fetch:
        async def __call__(self, url):
            return url

    assert kind_of(guard(make(), functools.partial(Fetch(), "a"))) is Kind.ASYNC


# --- generators ----------------------------------------------------------------------------------


class Source:
    """Generators that fail before or after their first item."""

    def __init__(self, failures=0):
        self.failures = failures
        self.begun = 0
        self.told = []

    def items(self):
        self.begun += 1
        if self.begun <= self.failures:
            raise OSError("before the first item")
        try:
            self.told.append((yield 1))
            self.told.append((yield 2))
        except KeyError:
            self.told.append("thrown")
            yield "after the throw"
        finally:
            self.told.append("closed")
        return "end"

    async def async_items(self):
        self.begun += 1
        if self.begun <= self.failures:
            raise OSError("before the first item")
        try:
            self.told.append((yield 1))
            self.told.append((yield 2))
        except KeyError:
            self.told.append("thrown")
            yield "after the throw"
        finally:
            self.told.append("closed")


def test_a_generator_is_retried_before_its_first_item(make, clock):
    source = Source(failures=2)
    policy = make()
    assert list(guard(policy, source.items)()) == [1, 2]
    assert source.begun == 3
    assert clock.sleeps == [1.0, 2.0]
    assert policy.stats() == RetryStats(total_retries=2, successful_retries=1)


async def test_an_async_generator_is_retried_before_its_first_item(make, clock):
    source = Source(failures=2)
    assert [item async for item in guard(make(), source.async_items)()] == [1, 2]
    assert source.begun == 3
    assert clock.sleeps == [1.0, 2.0]


def test_nothing_of_a_generator_runs_before_it_is_asked(make):
    source = Source()
    guard(make(), source.items)()
    assert source.begun == 0


def test_a_later_failure_of_a_generator_passes_untouched(make):
    def items():
        yield 1
        raise OSError("later")

    generator = guard(make(), items)()
    assert next(generator) == 1
    with pytest.raises(OSError, match="later") as caught:
        next(generator)
    assert not hasattr(caught.value, "__notes__")


async def test_a_later_failure_of_an_async_generator_passes_untouched(make):
    async def items():
        yield 1
        raise OSError("later")

    generator = guard(make(), items)()
    assert await anext(generator) == 1
    with pytest.raises(OSError, match="later") as caught:
        await anext(generator)
    assert not hasattr(caught.value, "__notes__")


def test_a_generator_can_be_sent_to_thrown_at_and_closed(make):
    source = Source()
    generator = guard(make(), source.items)()
    assert next(generator) == 1
    assert generator.send("hello") == 2
    assert generator.throw(KeyError()) == "after the throw"
    generator.close()
    assert source.told == ["hello", "thrown", "closed"]
    assert list(generator) == []


async def test_an_async_generator_can_be_sent_to_thrown_at_and_closed(make):
    source = Source()
    generator = guard(make(), source.async_items)()
    assert await anext(generator) == 1
    assert await generator.asend("hello") == 2
    assert await generator.athrow(KeyError()) == "after the throw"
    await generator.aclose()
    assert source.told == ["hello", "thrown", "closed"]


def test_a_generators_return_value_survives(make):
    def delegate(fn, seen):
        seen.append((yield from guard(make(), fn)()))

    seen = []
    assert list(delegate(Source().items, seen)) == [1, 2]

    def empty():
        return "nothing"
        yield

    assert list(delegate(empty, seen)) == []
    assert seen == ["end", "nothing"]


async def test_an_empty_async_generator_is_a_success(make):
    async def empty():
        return
        yield

    policy = make()
    assert [item async for item in guard(policy, empty)()] == []
    assert policy.stats() == RetryStats()


async def test_an_abandoned_generator_is_closed_once(make):
    source = Source()
    with contextlib.closing(guard(make(), source.items)()) as generator:
        next(generator)
    async with contextlib.aclosing(guard(make(), source.async_items)()) as generator:
        await anext(generator)
    assert source.told == ["closed", "closed"]


async def test_the_deadline_of_a_generator_ends_with_its_first_item(make):
    seen = []

    def items():
        seen.append(remaining())
        yield 1

    async def async_items():
        seen.append(remaining())
        yield 1

    for _ in guard(make(deadline=3.0), items)():
        assert remaining() is None
    async for _ in guard(make(deadline=3.0), async_items)():
        assert remaining() is None
    assert seen == [3.0, 3.0]


@pytest.mark.parametrize("fn", [a_generator, an_async_generator])
def test_a_generator_has_no_result_to_refuse(fn, make):
    with pytest.raises(TypeError, match=r"retry_if_result cannot be used with .*generator"):
        guard(make(retry_if_result=bool), fn)


# --- what cannot be guarded ----------------------------------------------------------------------


@pytest.mark.parametrize("options", EXTRAS[:2])
def test_a_sync_function_that_returns_a_coroutine_is_refused_when_that_is_seen(options, make):
    guarded = guard(make(**options), lambda: a_coroutine())  # noqa: PLW0108 - under test
    with pytest.raises(TypeError, match=r"returned a coroutine, .* pass it to AsyncRetryManager\.execute"):
        guarded()


def test_a_coroutine_is_refused_after_a_retry_too(make):
    outcomes = iter([OSError, a_coroutine])

    def fetch():
        outcome = next(outcomes)
        if outcome is OSError:
            raise OSError
        return outcome()

    with pytest.raises(TypeError, match="returned a coroutine"):
        guard(make(), fetch)()


def test_a_generator_function_cannot_be_executed(make):
    with pytest.raises(TypeError, match="a_generator makes a generator"):
        run(make(), a_generator, (), {})
    with pytest.raises(TypeError, match="an_async_generator makes a generator"):
        run(make(), an_async_generator, (), {})
    ready = run(make(), lambda: (item for item in [1, 2]), (), {})
    assert list(ready) == [1, 2]  # a function that happens to return a generator has done its work


async def test_what_cannot_be_awaited_is_refused(make):
    with pytest.raises(TypeError, match=r"a_function returned 1, .* use RetryManager\.execute"):
        await run_async(make(), a_function, (), {})
    with pytest.raises(TypeError, match=r"use RetryManager\.execute"):
        await run_async(make(deadline=5.0), a_function, (), {})
    for fn in (a_generator, an_async_generator):
        with pytest.raises(TypeError, match=r"makes a generator, .* decorate it with with_retry"):
            await run_async(make(), fn, (), {})


async def test_what_was_misused_is_no_failure_of_the_dependency_and_not_retried(make, clock):
    breaker = CircuitBreaker(1, 60.0, clock=clock)
    policy = make(retry_on=Exception, circuit_breaker=breaker)
    with pytest.raises(TypeError, match="cannot be awaited"):
        await run_async(policy, a_function, (), {})
    with pytest.raises(TypeError, match="returned a coroutine"):
        run(policy, a_coroutine, (), {})
    assert (breaker.snapshot().failures, clock.sleeps) == (0, [])


@both
async def test_a_refused_result_does_not_live_through_the_delay(kind, make):
    class Response:
        pass

    alive = []

    class Looking(FakeClock):
        def sleep(self, seconds):
            alive.append(born() is not None)

        async def sleep_async(self, seconds):
            alive.append(born() is not None)

    def fetch():
        nonlocal born
        response = Response()
        born = weakref.ref(response)
        return response

    async def fetch_async():
        return fetch()

    born = None
    policy = make(clock=Looking(), retry_if_result=lambda result: True)
    if kind == "sync":
        run(policy, fetch, (), {})
    else:
        await run_async(policy, fetch_async, (), {})
    assert alive == [False, False]


async def test_a_lambda_that_returns_a_coroutine_can_be_awaited(make):
    script = Script(OSError(), "up")
    assert await run_async(make(), lambda: script.coroutine(), (), {}) == "up"  # noqa: PLW0108 - under test
