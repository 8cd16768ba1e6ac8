"""The rows that compare calls: ours beside the floor and the peers, each doing the same thing."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import backoff
import circuitbreaker
import limits
import pybreaker
import pyrate_limiter
import stamina
import stamina.instrumentation
import tenacity
import throttled

from benchmarks import floors
from benchmarks.harness import awaited, calls, calls_over, failing_calls
from resilience import (
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    CircuitBreaker,
    Hedge,
    Pipeline,
    Quota,
    RateLimiter,
    RetryManager,
    Timeout,
    with_retry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.harness import Batch

stamina.instrumentation.set_on_retry_hooks([])  # its retries are measured, not their log lines

MANY = 100_000
"""Keys in the row with random keys."""


class Row(NamedTuple):
    """What to measure, and the ratio to reach."""

    title: str
    floor: Batch
    candidates: Mapping[str, Batch]
    """`resilience` first."""
    reach: float | None


def work(value):
    """Do what every row's function does: nothing."""
    return value


async def work_async(value):
    """Do the same, awaited."""
    return value


def flaky():
    """Return a function whose every second call fails, from the first on."""
    fails = False

    def work(value):
        nonlocal fails
        fails = not fails
        if fails:
            raise ConnectionError
        return value

    return work


def broken(value):
    """Fail."""
    raise ConnectionError(value)


def rows() -> Iterator[Row]:
    """Return all rows, each made only when it is asked for."""
    yield from retry_rows()
    yield from breaker_rows()
    yield from limiter_rows()
    yield from timeout_rows()
    yield from pipeline_rows()


# --- retry ---------------------------------------------------------------------------------------


def retry_rows() -> Iterator[Row]:
    """Success, a failure before success, and exhaustion; without delays, so that no sleep is measured."""
    yield Row(
        "retry success, sync",
        calls(floors.retry(work), 1),
        {
            "resilience": calls(with_retry(work), 1),
            **{name: calls(guard(work), 1) for name, guard in peer_retries().items()},
        },
        0.70,
    )
    yield Row(
        "retry success, async",
        awaited(floors.retry_async(work_async), 1),
        {
            "resilience": awaited(with_retry(work_async), 1),
            **{name: awaited(guard(work_async), 1) for name, guard in peer_retries().items()},
        },
        0.80,
    )
    yield Row(
        "retry, one failure then success",
        calls(floors.retry(flaky(), base=0), 1),
        {
            "resilience": calls(with_retry(flaky(), initial_delay=0), 1),
            **{name: calls(guard(flaky()), 1) for name, guard in peer_retries().items()},
        },
        2.0,
    )
    yield Row(
        # With its budget on, a dependency that only fails is not retried at all, which would flatter us.
        "retry, exhausted",
        failing_calls(floors.retry(broken, base=0), 1),
        {
            "resilience": failing_calls(with_retry(broken, initial_delay=0, budget=None), 1),
            **{name: failing_calls(guard(broken), 1) for name, guard in peer_retries().items()},
        },
        2.0,
    )


def peer_retries() -> Mapping[str, Callable]:
    """Return each peer's decorator for three attempts without delays."""
    return {
        "tenacity": tenacity.retry(
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_none(),
            retry=tenacity.retry_if_exception_type(ConnectionError),
            reraise=True,
            sleep=tenacity.sleep,
        ),
        "stamina": stamina.retry(
            on=ConnectionError, attempts=3, wait_initial=0, wait_max=0, wait_jitter=0, timeout=None
        ),
        "backoff": backoff.on_exception(
            backoff.constant, ConnectionError, max_tries=3, interval=0, jitter=None, logger=None
        ),
    }


# --- breaker -------------------------------------------------------------------------------------


def breaker_rows() -> Iterator[Row]:
    """A closed breaker by both rules, and an open one."""
    peers = {
        "pybreaker": pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60),
        "circuitbreaker": circuitbreaker.CircuitBreaker(failure_threshold=5, recovery_timeout=60),
    }
    closed = {name: calls(breaker(work), 1) for name, breaker in peers.items()}
    yield Row(
        "breaker closed, consecutive failures",
        calls(floors.Breaker()(work), 1),
        {"resilience": calls(CircuitBreaker(5, 60.0)(work), 1), **closed},
        0.40,
    )
    yield Row(
        "breaker closed, time window",
        calls(floors.Breaker()(work), 1),
        {"resilience": calls(CircuitBreaker()(work), 1), **closed},
        1.0,
    )
    floor = floors.Breaker()
    ours = CircuitBreaker(5, 3600.0)
    yield Row(
        "breaker open, rejection",
        failing_calls(_opened(floor), 1),
        {
            "resilience": failing_calls(_opened(ours), 1),
            **{name: failing_calls(_opened(breaker), 1) for name, breaker in peers.items()},
        },
        1.2,
    )


def _opened(breaker: Callable) -> Callable:
    """Return a function behind `breaker` after five failures in a row."""
    guarded = breaker(broken)
    for _ in range(5):
        with contextlib.suppress(Exception):  # the fifth raises what each peer pleases
            guarded(1)
    return guarded


# --- limiter -------------------------------------------------------------------------------------


def limiter_rows() -> Iterator[Row]:
    """One hot key, allowed and refused, then many keys."""
    never = 10**9  # a limit that a benchmark does not reach
    refusing = 1
    keys = [f"user-{random.randrange(MANY)}" for _ in range(MANY)]
    quotas = {"gcra": (1.5, 1.5), "sliding-window": (2.0, 2.2)}
    for algorithm, (hot, random_keys) in quotas.items():
        for outcome, limit, per in (("allowed", never, 1.0), ("refused", refusing, 3600.0)):
            yield Row(
                f"limiter {algorithm}, hot key, {outcome}",
                calls(_primed(floors.Limiter(limit, per).try_acquire), "key"),
                {
                    "resilience": calls(_primed(_ours(limit, per, algorithm)), "key"),
                    **{
                        name: calls(_primed(acquire), "key")
                        for name, acquire in peer_limiters(algorithm, limit, per).items()
                    },
                },
                hot,
            )
        # Enough for every call that is measured, in stamps that are kept one by one; or for one.
        for outcome, limit in (("allowed", 64), ("refused", refusing)):
            yield Row(
                f"limiter {algorithm}, {MANY:,} random keys, {outcome}",
                calls_over(floors.Limiter(limit, 3600.0).try_acquire, keys),
                {
                    "resilience": calls_over(_ours(limit, 3600.0, algorithm), keys),
                    **{
                        name: calls_over(acquire, keys)
                        for name, acquire in peer_limiters(algorithm, limit, 3600.0).items()
                    },
                },
                random_keys,
            )


def _ours(limit: int, per: float, algorithm: str) -> Callable[[str], object]:
    return RateLimiter(Quota(limit, per=per, algorithm=algorithm)).try_acquire


def _primed(acquire: Callable[[str], object]) -> Callable[[str], object]:
    """Use up a limit of one, so that a refusing limiter refuses from the first measured call on."""
    acquire("key")
    return acquire


def peer_limiters(algorithm: str, limit: int, per: float) -> Mapping[str, Callable[[str], object]]:
    """Return what each peer has nearest to `algorithm`."""
    seconds = max(1, round(per))
    item = limits.RateLimitItemPerSecond(limit, seconds)
    strategy = (
        limits.strategies.FixedWindowRateLimiter
        if algorithm == "gcra"  # limits has no GCRA; its fixed window is its cheapest
        else limits.strategies.SlidingWindowCounterRateLimiter
    )(limits.storage.MemoryStorage())
    throttle = throttled.Throttled(
        using="gcra" if algorithm == "gcra" else "sliding_window",
        quota=throttled.per_duration(timedelta(seconds=seconds), limit),
        store=throttled.MemoryStore({"MAX_SIZE": 2 * MANY}),
    )
    peers = {
        "limits": lambda key: strategy.hit(item, key),
        "throttled-py": throttle.limit,
    }
    if algorithm == "gcra" and limit > MANY:  # its bucket is one key's; many keys need a factory of one's own
        rate = pyrate_limiter.Rate(limit, seconds * pyrate_limiter.Duration.SECOND)
        bucket = pyrate_limiter.Limiter(
            pyrate_limiter.SingleBucketFactory(
                pyrate_limiter.StateBucket([rate], pyrate_limiter.GCRA()), schedule_leak=False
            )
        )
        peers["pyrate-limiter"] = lambda key: bucket.try_acquire(key, blocking=False)
    return peers


# --- timeouts and hedges -------------------------------------------------------------------------


def timeout_rows() -> Iterator[Row]:
    """What nearly always happens: the call is over long before."""
    timeout, hedge = Timeout(60.0), Hedge(60.0)

    async def in_block(value):
        async with timeout.guard():
            return await work_async(value)

    yield Row(
        "timeout, async",
        awaited(floors.timeout_async(work_async), 1),
        {"resilience": awaited(Timeout(60.0)(work_async), 1), "as a block": awaited(in_block, 1)},
        1.0,
    )
    yield Row(
        "hedge, answered at once",
        awaited(floors.hedge_async(work_async), 1),
        {
            "resilience": awaited(hedge(work_async), 1),
            "by percentile": awaited(Hedge(percentile=0.99999)(work_async), 1),
        },
        1.5,
    )


# --- together ------------------------------------------------------------------------------------


def pipeline_rows() -> Iterator[Row]:
    """Limiter, retries and breaker around one function: as a pipeline, and as three decorators."""
    never = 10**9

    def limited(kind):
        return kind(Quota(never, per=1.0, algorithm="gcra"))

    by_hand = calls(floors.pipeline(work, floors.Limiter(never, 1.0), floors.Breaker()), 1)
    pipeline = Pipeline(limited(RateLimiter), RetryManager(), CircuitBreaker(5, 60.0))
    yield Row(
        "pipeline of limiter, retries and breaker, sync",
        by_hand,
        {"resilience": calls(pipeline(work), 1)},
        0.80,
    )
    awaiting = AsyncPipeline(limited(AsyncRateLimiter), AsyncRetryManager(), CircuitBreaker(5, 60.0))
    yield Row(
        "pipeline of limiter, retries and breaker, async",
        awaited(floors.pipeline_async(work_async, floors.Limiter(never, 1.0), floors.Breaker()), 1),
        {"resilience": awaited(awaiting(work_async), 1)},
        0.80,
    )
    yield Row(
        "the same, sync, by execute",
        by_hand,
        {"resilience": calls(pipeline.execute, work, 1)},
        None,
    )
    stacked = limited(RateLimiter).limit()(with_retry(CircuitBreaker(5, 60.0)(work)))
    yield Row(
        "limiter, retry and breaker, stacked",
        by_hand,
        {"resilience": calls(stacked, 1)},
        None,
    )
