"""The two pipelines: order, context, what is shared, and how they change while they run."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading

import pytest

from resilience import (
    AsyncBulkhead,
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    DeadlineExceeded,
    Fallback,
    Pipeline,
    RateLimitedError,
    RateLimiter,
    RetryManager,
    Timeout,
    remaining,
)
from resilience.pipeline import Waiting
from resilience.testing import FakeClock


def fetch(value):
    """Fetch it."""
    return value


async def fetch_async(value):
    return value


class Down:
    """What fails for so many attempts."""

    def __init__(self, failures=10**9):
        self.failures = failures
        self.attempts = 0

    def __call__(self):
        self.attempts += 1
        if self.attempts <= self.failures:
            raise ConnectionError("down")
        return "up"

    async def awaited(self):
        return self()


def retries(**options):
    return RetryManager(initial_delay=0, budget=None, **options)


# --- order ---------------------------------------------------------------------------------------


def test_parts_run_from_left_to_right():
    order = []

    def part(tag):
        def decorate(fn):
            def guarded(*args):
                order.append(tag)
                return fn(*args)

            return guarded

        return decorate

    assert Pipeline(part("a"), part("b"), part("c"))(fetch)(1) == 1
    assert Pipeline(part("a"), part("b")).execute(fetch, 1) == 1
    assert order == [*"abc", *"ab"]


def test_a_limiter_outside_is_charged_once_a_call_and_inside_once_an_attempt():
    for outside in (True, False):
        limiter = RateLimiter("100/minute")
        down = Down(2)
        parts = (limiter, retries()) if outside else (retries(), limiter)
        assert Pipeline(*parts).execute(down) == "up"
        assert limiter.peek().remaining == (99 if outside else 97)


def test_a_breaker_after_retries_is_fed_first_attempts_only_and_stops_them():
    breaker = CircuitBreaker(2, 60.0)
    pipeline = Pipeline(retries(max_attempts=5), breaker)
    down = Down()
    with pytest.raises(ConnectionError):
        pipeline.execute(down)
    assert (down.attempts, breaker.snapshot().failures) == (5, 1)
    with pytest.raises(ConnectionError):
        pipeline.execute(down)
    assert (down.attempts, breaker.state) == (6, "open")
    with pytest.raises(CircuitOpenError):
        pipeline.execute(down)
    assert down.attempts == 6


def test_a_breaker_elsewhere_stands_where_it_was_put():
    for parts, failures in (((lambda b: (b, retries())), 1), ((lambda b: (retries(), Timeout(9.0), b)), 3)):
        breaker = CircuitBreaker(100, 60.0)
        with pytest.raises(ConnectionError):
            Pipeline(*parts(breaker)).execute(Down())
        assert breaker.snapshot().failures == failures


def test_a_fallback_outermost_gets_the_arguments():
    pipeline = Pipeline(Fallback(call=lambda value: ("instead", value)), retries(), CircuitBreaker())

    def down(value):
        raise ConnectionError

    assert pipeline(down)(1) == ("instead", 1)
    assert pipeline.with_(key="ada").execute(down, 1) == ("instead", 1)


def test_pipelines_are_parts():
    inner = Pipeline(retries(), CircuitBreaker())
    outer = Pipeline(RateLimiter("1/minute"), inner)
    assert outer(Down(1))() == "up"
    with pytest.raises(RateLimitedError):
        outer.execute(Down(1))
    both = AsyncPipeline(AsyncRateLimiter("9/minute"), inner, AsyncPipeline(AsyncBulkhead(1)))
    assert asyncio.run(both(fetch_async)(1)) == 1
    assert asyncio.run(both.execute(fetch_async, 1)) == 1


# --- functions -----------------------------------------------------------------------------------


class Store:
    breaker = CircuitBreaker()
    pipeline = Pipeline(RetryManager(), breaker)

    @pipeline
    def get(self, key):
        return self, key

    @pipeline
    async def get_async(self, key):
        return self, key

    @classmethod
    @pipeline
    def make(cls):
        return cls

    @staticmethod
    @pipeline
    def idle(*, more=1):
        return more


def test_methods():
    store = Store()
    assert store.get("a") == (store, "a")
    assert asyncio.run(store.get_async("a")) == (store, "a")
    assert Store.make() is Store
    assert store.idle(more=2) == 2


def test_partials_lambdas_and_generators():
    pipeline = Pipeline(retries(), CircuitBreaker())
    assert pipeline(functools.partial(fetch, 1))() == 1
    assert pipeline(lambda: 1)() == 1

    @pipeline
    def stream():
        yield 1
        yield 2

    assert list(stream()) == [1, 2]
    with pytest.raises(TypeError, match="makes a generator"):
        pipeline.execute(stream)


def test_kinds_are_found_and_refused_at_decoration():
    pipeline = Pipeline(Bulkhead(1))
    with pytest.raises(TypeError, match="use AsyncBulkhead"):
        pipeline(fetch_async)
    with pytest.raises(TypeError, match="use Bulkhead"):
        Pipeline(AsyncBulkhead(1))(fetch)


def test_a_decorated_function_looks_like_itself():
    guarded = Pipeline(RetryManager(), CircuitBreaker())(fetch)
    assert (guarded.__name__, guarded.__doc__, guarded.__module__) == ("fetch", "Fetch it.", __name__)


@pytest.mark.parametrize(
    "pipeline", [AsyncPipeline(AsyncRetryManager(), CircuitBreaker()), AsyncPipeline(Timeout(5.0))]
)
def test_awaited_calls(pipeline):
    assert asyncio.run(pipeline.execute(fetch_async, 1)) == 1
    assert asyncio.run(pipeline(fetch_async)(1)) == 1
    with pytest.raises(TypeError, match="cannot be awaited"):
        asyncio.run(pipeline.execute(fetch, 1))


async def test_a_cancellation_leaves_at_once():
    limiter, bulkhead, breaker = AsyncRateLimiter("9/minute"), AsyncBulkhead(1), CircuitBreaker()
    pipeline = AsyncPipeline(limiter, AsyncRetryManager(), breaker, bulkhead)
    started = asyncio.Event()

    async def hang():
        started.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(pipeline.execute(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bulkhead.stats().running == 0
    assert breaker.snapshot().failures == 0
    assert (await limiter.peek()).remaining == 8


# --- context -------------------------------------------------------------------------------------


def test_context_reaches_the_parts():
    limiter = RateLimiter("10/minute")
    manager = retries()
    pipeline = Pipeline(limiter, manager, CircuitBreaker(100, 1.0), name="storage")
    ada = pipeline.with_(key="ada", cost=3, deadline=5.0, idempotent=False)
    assert ada.parts is pipeline.parts
    assert ada.name == "storage"
    assert (ada.context.cost, pipeline.context.cost) == (3, 1)
    assert 4 < ada.execute(remaining) <= 5
    assert (limiter.peek("ada").remaining, limiter.peek().remaining) == (7, 10)

    def reset():
        nonlocal attempts
        attempts += 1
        raise ConnectionResetError

    for pipe, expected in ((ada, 1), (pipeline, 3)):
        attempts = 0
        with pytest.raises(ConnectionResetError):
            pipe.execute(reset)
        assert attempts == expected
    assert manager.stats().total_retries == 2
    assert ada.with_(cost=1).context.key == ("ada",)


def test_context_for_good():
    limiter = RateLimiter("1/minute")

    @Pipeline(limiter, RetryManager(), CircuitBreaker()).with_(key=lambda user: user)
    def search(user):
        return user

    assert (search("ada"), search("bob")) == ("ada", "bob")
    with pytest.raises(RateLimitedError):
        search("ada")


def test_a_deadline_that_has_passed_begins_nothing():
    down = Down()
    with pytest.raises(DeadlineExceeded):
        Pipeline(retries(), CircuitBreaker()).with_(deadline=0).execute(down)
    assert down.attempts == 0


# --- changes -------------------------------------------------------------------------------------


def test_new_parts_are_for_new_calls():
    pipeline = Pipeline(retries(max_attempts=2))
    ada = pipeline.with_(key="ada")
    for guarded in (pipeline(Down(4).__call__), ada(Down(4).__call__)):
        with pytest.raises(ConnectionError):
            guarded()
    guarded = pipeline(Down(4).__call__)
    pipeline.reconfigure(retries(max_attempts=5), CircuitBreaker(100, 1.0))
    assert guarded() == "up"
    assert ada.execute(Down(4)) == "up"
    ada.reconfigure(retries(max_attempts=1))
    with pytest.raises(ConnectionError):
        pipeline.execute(Down(4))


def test_calls_under_way_end_by_the_old_parts():
    pipeline = Pipeline(retries(max_attempts=2), CircuitBreaker(100, 1.0))
    attempts = []

    @pipeline
    def changes():
        attempts.append(1)
        pipeline.reconfigure(retries(max_attempts=7), CircuitBreaker(100, 1.0))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        changes()
    assert len(attempts) == 2
    with pytest.raises(ConnectionError):
        changes()
    assert len(attempts) == 9


def test_state_is_kept_by_name():
    clock = FakeClock()
    pipeline = Pipeline(
        RateLimiter("3/minute", name="api", clock=clock),
        retries(name="api", max_attempts=1),
        CircuitBreaker(2, 60.0, name="api", clock=clock, recovery_jitter=0.0),
    )
    guarded = pipeline(Down())
    for _ in range(2):
        with pytest.raises(ConnectionError):
            guarded()
    new = CircuitBreaker(5, 9.0, name="api", clock=clock)
    pipeline.reconfigure(RateLimiter("3/minute", name="api", clock=clock), retries(name="api"), new)
    assert new.state == "open"
    with pytest.raises(CircuitOpenError):
        guarded()
    with pytest.raises(RateLimitedError):
        guarded()


def test_what_cannot_be_changed_changes_nothing():
    breaker = CircuitBreaker(1, 60.0, name="api")
    pipeline = Pipeline(retries(), breaker)
    guarded = pipeline(fetch)
    for parts, error in (
        ((), TypeError),
        ((AsyncBulkhead(1), CircuitBreaker(9, 1.0, name="api")), TypeError),
        ((RetryManager(circuit_breaker=breaker), CircuitBreaker()), ValueError),
    ):
        with pytest.raises(error):
            pipeline.reconfigure(*parts)
    assert pipeline.parts[1] is breaker
    assert breaker.snapshot().threshold == 1
    assert guarded(1) == 1


def test_changes_under_traffic_are_whole():
    """Each call goes by one set of parts: the old pair or the new one, never a mix."""
    seen = set()

    def part(tag):
        def decorate(fn):
            return lambda trail: fn([*trail, tag])

        return decorate

    pipeline = Pipeline(part("a1"), part("a2"))
    guarded = pipeline(lambda trail: seen.add(tuple(trail)))
    done = threading.Event()

    def call():
        while not done.is_set():
            guarded([])
            pipeline.execute(lambda trail: seen.add(tuple(trail)), [])

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        pipeline.reconfigure(part("b1"), part("b2"))
        pipeline.reconfigure(part("a1"), part("a2"))
    done.set()
    for thread in threads:
        thread.join()
    assert seen <= {("a1", "a2"), ("b1", "b2")}


# --- what it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "options", "error", "message"),
    [
        ((), {}, TypeError, "at least one part"),
        (
            (RetryManager,),
            {},
            TypeError,
            r"RetryManager is a class: pass one of its objects, RetryManager\(...\)",
        ),
        ((5,), {}, TypeError, "5 decorates no functions"),
        ((fetch, fetch), {}, ValueError, "is there twice"),
        ((fetch,), {"name": 5}, TypeError, "name=5 must be a string"),
    ],
)
def test_what_it_refuses(parts, options, error, message):
    with pytest.raises(error, match=message):
        Pipeline(*parts, **options)


def test_uncallable_parts():
    limiter = RateLimiter("5/minute")
    assert Pipeline(Waiting(limiter), retries()).execute(fetch, 1) == 1


def test_looks_and_copies():
    pipeline = Pipeline(RateLimiter("1/s", name="a"), name="api")
    assert repr(pipeline) == "Pipeline(<RateLimiter 'a': 1/second>, name='api')"
    assert repr(AsyncPipeline(RateLimiter("1/s", name="a"))) == "AsyncPipeline(<RateLimiter 'a': 1/second>)"
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            duplicate(pipeline)
