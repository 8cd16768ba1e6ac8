"""Managers and the decorator, as users see them."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle

import pytest

from resilience.breaker import CircuitBreaker
from resilience.errors import CircuitOpenError
from resilience.events import RetryStopped
from resilience.retry import AsyncRetryManager, RetryManager, with_retry
from resilience.retry.budget import RetryBudget, budget_of
from resilience.retry.stats import RetryStats
from resilience.testing import FakeClock

managers = pytest.mark.parametrize("manager", [RetryManager, AsyncRetryManager])


@pytest.fixture
def clock():
    return FakeClock()


class Flaky:
    """A dependency that fails so many times, then works."""

    def __init__(self, failures):
        self.failures = failures
        self.calls = []

    def fetch(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        if len(self.calls) <= self.failures:
            raise ConnectionError("down")
        return "up"

    async def fetch_async(self, *args, **kwargs):
        return self.fetch(*args, **kwargs)


# --- execute -------------------------------------------------------------------------------------


def test_execute_passes_arguments_and_result(clock):
    flaky = Flaky(2)
    assert RetryManager(clock=clock).execute(flaky.fetch, 1, two=2) == "up"
    assert flaky.calls == [((1,), {"two": 2})] * 3


async def test_async_execute_passes_arguments_and_result(clock):
    flaky = Flaky(2)
    assert await AsyncRetryManager(clock=clock).execute(flaky.fetch_async, 1, two=2) == "up"
    assert flaky.calls == [((1,), {"two": 2})] * 3


def test_arguments_may_have_the_names_of_our_own(clock):
    assert RetryManager().execute(dict, fn=1, self=2, policy=3) == {"fn": 1, "self": 2, "policy": 3}


def test_a_sync_manager_refuses_to_execute_an_async_function():
    async def fetch(): ...

    with pytest.raises(TypeError, match=r"returned a coroutine.*AsyncRetryManager\.execute"):
        RetryManager().execute(fetch)


async def test_an_async_manager_refuses_to_execute_a_sync_function():
    with pytest.raises(TypeError, match=r"returned 1, which cannot be awaited: use RetryManager\.execute"):
        await AsyncRetryManager().execute(lambda: 1)


def test_a_manager_without_a_name_goes_by_that_of_its_class():
    assert RetryManager().name == "RetryManager"
    assert AsyncRetryManager(name="storage").name == "storage"


def test_replace_for_a_single_call_shares_budget_and_statistics(clock):
    retries = RetryManager(max_attempts=2, clock=clock)
    assert retries.replace(max_attempts=5).execute(Flaky(4).fetch) == "up"
    assert retries.stats() == RetryStats(total_retries=4, successful_retries=1)
    assert retries.budget.tokens == 2.0
    with pytest.raises(ConnectionError):
        retries.execute(Flaky(4).fetch)


# --- blocks --------------------------------------------------------------------------------------


def test_a_block(clock):
    flaky = Flaky(2)
    for attempt in RetryManager(clock=clock):
        with attempt:
            result = flaky.fetch()
    assert (result, attempt.number) == ("up", 3)


async def test_an_async_block(clock):
    flaky = Flaky(2)
    async for attempt in AsyncRetryManager(clock=clock):
        with attempt:
            result = await flaky.fetch_async()
    assert (result, attempt.number) == ("up", 3)


# --- decorating ----------------------------------------------------------------------------------


def test_the_decorator_bare_with_arguments_and_as_a_function(clock):
    @with_retry
    def bare():
        return "bare"

    flaky = Flaky(1)

    @with_retry(max_attempts=2, clock=clock, budget=None)
    def configured():
        return flaky.fetch()

    assert bare() == "bare"
    assert configured() == "up"
    assert with_retry(Flaky(1).fetch, clock=clock, budget=None)() == "up"


async def test_the_decorator_finds_out_what_it_got(clock):
    flaky = Flaky(1)

    @with_retry(clock=clock, budget=None)
    async def fetch():
        return await flaky.fetch_async()

    assert inspect.iscoroutinefunction(fetch)
    assert await fetch() == "up"


@managers
async def test_a_manager_decorates_functions_of_every_kind(manager, clock):
    retries = manager(clock=clock, name="every kind", budget=None)
    assert retries(Flaky(1).fetch)() == "up"
    assert await retries(Flaky(1).fetch_async)() == "up"
    assert retries.stats() == RetryStats(total_retries=2, successful_retries=2)


def test_the_decorated_function_looks_like_the_function():
    def fetch(url: str) -> bytes:
        """Fetch it."""

    guarded = with_retry(fetch)
    assert guarded.__name__ == "fetch"
    assert guarded.__doc__ == "Fetch it."
    assert guarded.__wrapped__ is fetch
    assert inspect.signature(guarded) == inspect.signature(fetch)


def test_methods_of_every_kind_can_be_decorated(clock):
    class Client:
        def __init__(self):
            self.flaky = Flaky(1)

        @with_retry(clock=clock, budget=None)
        def get(self, path):
            return self.flaky.fetch(path)

        @classmethod
        @with_retry(clock=clock)
        def named(cls):
            return cls.__name__

        @staticmethod
        @with_retry(clock=clock)
        def plain():
            return "plain"

        def __call__(self, path):
            return self.flaky.fetch(path)

    client = Client()
    assert client.get("/") == "up"
    assert client.flaky.calls == [(("/",), {})] * 2
    assert Client.named() == client.named() == "Client"
    assert Client.plain() == client.plain() == "plain"
    assert with_retry(Client(), clock=clock, budget=None)("/") == "up"


def test_what_has_no_name_is_called_after_what_it_calls():
    named = with_retry(functools.partial(Flaky(1).fetch, 1))
    assert (named.__name__, named.__qualname__) == ("fetch", "fetch")
    assert with_retry(len).__qualname__ == "len"
    assert with_retry(Flaky.fetch).__qualname__ == "Flaky.fetch"


def test_partials_classes_and_builtins_can_be_decorated(clock):
    assert with_retry(functools.partial(Flaky(1).fetch, 1), clock=clock, budget=None)() == "up"
    assert with_retry(Flaky)(3).failures == 3
    assert with_retry(len)("four") == 4


def test_a_classmethod_object_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match="write @classmethod above this decorator"):

        class Client:
            @with_retry
            @classmethod
            def get(cls): ...


@pytest.mark.parametrize("fn", [5, None.__class__()])
def test_what_cannot_be_called_is_refused(fn):
    with pytest.raises(TypeError, match="cannot be called"):
        RetryManager()(fn)


def test_a_wrong_option_is_reported_where_it_stands():
    with pytest.raises(ValueError, match="max_attempts must be at least 1"):
        with_retry(max_attempts=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'tries'"):
        with_retry(tries=3)


def test_a_decorated_function_has_its_own_name_and_budget(clock, resilience_events):
    @with_retry(clock=clock)
    def fetch():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fetch()
    name = "test_a_decorated_function_has_its_own_name_and_budget.<locals>.fetch"
    (stopped,) = resilience_events.of(RetryStopped)
    assert stopped.name.endswith(name)
    assert budget_of(stopped.name).tokens == 3.0


def test_an_explicit_name_names_the_budget():
    with_retry(len, name="test-explicit")
    budget = budget_of("test-explicit")
    assert RetryManager(name="test-explicit").budget is budget


def test_a_nameless_manager_lends_its_functions_their_names_and_its_budget(clock, resilience_events):
    retries = RetryManager(clock=clock)

    @retries
    def fetch():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        fetch()
    assert resilience_events.of(RetryStopped)[0].name.endswith("<locals>.fetch")
    assert retries.stats() == RetryStats(total_retries=2, failed_retries=1)
    assert retries.budget.tokens == 3.0


# --- with a real breaker -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_first_attempts_feed_the_breaker_and_an_open_one_ends_retries(kind, clock):
    breaker = CircuitBreaker(2, 60.0, name="storage", clock=clock, recovery_jitter=0.0)
    flaky = Flaky(100)
    options = {"circuit_breaker": breaker, "clock": clock, "max_attempts": 5, "budget": None}

    async def call():
        if kind == "sync":
            return RetryManager(**options).execute(flaky.fetch)
        return await AsyncRetryManager(**options).execute(flaky.fetch_async)

    with pytest.raises(ConnectionError):
        await call()
    assert breaker.snapshot().failures == 1  # five attempts, one call
    with pytest.raises(ConnectionError) as caught:
        await call()
    assert caught.value.__notes__ == ["resilience: 1 attempt; stopped: circuit open"]
    assert len(flaky.calls) == 6
    with pytest.raises(CircuitOpenError):
        await call()
    assert len(flaky.calls) == 6


# --- results, copies -----------------------------------------------------------------------------


async def test_refused_results(clock):
    statuses = iter([503, 503, 200])
    retries = RetryManager(retry_if_result=lambda status: status >= 500, clock=clock, budget=None)
    assert retries.execute(lambda: next(statuses)) == 200
    statuses = iter([503, 503, 503])
    assert retries(lambda: next(statuses))() == 503
    statuses = iter([503, 200])

    async def ask():
        return next(statuses)

    assert await retries(ask)() == 200


def test_a_response_that_asks_to_wait_is_obeyed(clock):
    class Response:
        def __init__(self, status, headers):
            self.status = status
            self.headers = headers

    responses = iter([Response(429, {"Retry-After": "30"}), Response(200, {})])
    retries = RetryManager(
        retry_if_result=lambda response: response.status == 429, clock=clock, random=lambda: 0.0
    )
    assert retries.execute(lambda: next(responses)).status == 200
    assert clock.sleeps == [30.0]


@managers
def test_copies_and_pickles(manager):
    retries = manager(budget=RetryBudget())
    assert copy.copy(retries) is copy.deepcopy(retries) is retries
    with pytest.raises(TypeError, match=f"a {manager.__name__} cannot be pickled"):
        pickle.dumps(retries)


def test_decorated_functions_of_modules_are_pickled_by_name():
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level


@with_retry
def at_module_level():
    return 1


def test_one_manager_serves_three_event_loops_in_turn(clock):
    retries = AsyncRetryManager(clock=clock, name="three loops", budget=None)
    for _ in range(3):
        assert asyncio.run(retries.execute(Flaky(1).fetch_async)) == "up"
    assert retries.stats().successful_retries == 3
