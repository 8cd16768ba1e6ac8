"""The rows that are not a ratio of calls: memory, pauses, threads, and the cost of the import."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path
from statistics import median
from threading import Barrier, Thread
from time import perf_counter, thread_time
from types import coroutine
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import floors
from resilience import (
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    CircuitBreaker,
    Quota,
    RateLimiter,
    with_retry,
)
from resilience.clock import SystemClock
from resilience.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MILLION = 1_000_000


class Whole(NamedTuple):
    """One measured figure, and what it should reach."""

    title: str
    value: float
    unit: str
    reach: float | None
    more_is_better: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the figure is what it should be; None where nothing is asked of it."""
        if self.reach is None:
            return None
        return self.value >= self.reach if self.more_is_better else self.value <= self.reach


def wholes() -> Iterator[Whole]:
    """Measure one after the other."""
    yield Whole("bytes a key at a million keys, gcra", bytes_a_key("gcra"), "bytes", 140)
    yield Whole("bytes a key at a million keys, 6 per 15 min", bytes_a_key("sliding-window"), "bytes", 260)
    for algorithm in ("gcra", "sliding-window"):
        filling, falling_due = longest_calls(algorithm)
        yield Whole(f"longest call while a million keys are filled, {algorithm}", filling, "ms", 2)
        yield Whole(f"longest call while they fall due, {algorithm}", falling_due, "ms", 2)
    yield Whole(
        "8 threads through one breaker, consecutive: throughput over the floor",
        throughput_ratio(lambda: CircuitBreaker(5, 60.0)),
        "x",
        2,
        more_is_better=True,
    )
    yield Whole(
        "8 threads through one breaker, time window: throughput over the floor",
        throughput_ratio(CircuitBreaker),
        "x",
        2,
        more_is_better=True,
    )
    yield Whole(
        "import resilience over the bare interpreter, CPU", import_cost("import resilience"), "ms", 15
    )
    yield Whole(
        "from resilience import with_retry, the same",
        import_cost("from resilience import with_retry"),
        "ms",
        None,
    )
    yield Whole("from resilience import *, the same", import_cost("from resilience import *"), "ms", None)
    yield Whole(
        "bytes per call in flight over a bare coroutine, retry", bytes_in_flight(with_retry), "bytes", 500
    )
    pipeline = AsyncPipeline(AsyncRateLimiter(Quota(10**9, per=1.0)), AsyncRetryManager(), CircuitBreaker())
    yield Whole(
        "bytes per call in flight over a bare coroutine, pipeline", bytes_in_flight(pipeline), "bytes", 700
    )


class Settable(SystemClock):
    """A clock that is set by hand, and costs what an attribute costs."""

    time = 1_000_000.0

    def now(self) -> float:
        """Return the time that was set."""
        return self.time


def bytes_a_key(algorithm: str) -> float:
    """Return the growth of resident memory for a million keys, in a process of its own.

    The key strings count, since the store keeps them alive; 6 units of each are taken.
    """
    code = f"from benchmarks.wholes import resident_growth; print(resident_growth({algorithm!r}) / {MILLION})"
    return float(_python(code))


def resident_growth(algorithm: str) -> int:
    """Take 6 of 6 units for each of a million keys; return the bytes that the process grew by."""
    limiter = _limiter(algorithm, Settable())
    limiter.try_acquire("warm-up")
    gc.collect()
    before = _resident()
    for number in range(MILLION):
        limiter.try_acquire(f"user-{number}", cost=6)
    gc.collect()
    return _resident() - before


def _limiter(algorithm: str, clock: Settable) -> RateLimiter:
    store = MemoryStore(max_keys=2 * MILLION, clock=clock)
    return RateLimiter(Quota(6, per=900.0, algorithm=algorithm), name="bench", store=store)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def longest_calls(algorithm: str) -> tuple[float, float]:
    """Return the longest call in CPU milliseconds, collector included: filling, and after all fell due."""
    code = f"from benchmarks.wholes import longest; print(*longest({algorithm!r}))"
    filling, falling_due = _python(code).split()
    return float(filling), float(falling_due)


def longest(algorithm: str) -> tuple[float, float]:
    """Fill a million keys, then take a million others while those fall due; return both maxima in ms."""
    clock = Settable()
    limiter = _limiter(algorithm, clock)
    filling = _longest(limiter.try_acquire, "user", clock, 0.0)
    clock.time += 900.0  # all have lapsed, and are freed shard by shard in the two rounds that follow
    return filling, _longest(limiter.try_acquire, "other", clock, 2 * 900.0 / MILLION)


def _longest(acquire: Callable[[str], object], prefix: str, clock: Settable, step: float) -> float:
    slowest = 0.0
    for number in range(MILLION):
        clock.time += step
        key = f"{prefix}-{number}"
        started = thread_time()
        acquire(key)
        slowest = max(slowest, thread_time() - started)
    return slowest * 1000


def throughput_ratio(breaker: Callable[[], Callable], threads: int = 8, each: int = 40_000) -> float:
    """Return the median of calls per second through one breaker, over the floor's, run in turn."""

    def work(value):
        return value

    def seconds(guarded: Callable) -> float:
        start = Barrier(threads + 1)

        def run() -> None:
            start.wait()
            for _ in range(each):
                guarded(1)

        workers = [Thread(target=run) for _ in range(threads)]
        for worker in workers:
            worker.start()
        start.wait()
        started = perf_counter()
        for worker in workers:
            worker.join()
        return perf_counter() - started

    return median(seconds(floors.Breaker()(work)) / seconds(breaker()(work)) for _ in range(9))


def import_cost(statement: str) -> float:
    """Return CPU milliseconds of `statement` over a bare interpreter; the least of many runs."""
    source = str(Path(__file__).parent.parent / "src")
    path = f"import sys; sys.path.insert(0, {source!r}); "
    return (_cpu(path + statement) - _cpu(path)) * 1000


def _cpu(code: str, runs: int = 25) -> float:
    least = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)  # noqa: S603 - our own interpreter
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        least = min(least, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return least


def bytes_in_flight(guard: Callable[[Callable], Callable], count: int = 5000) -> float:
    """Return what a suspended call through `guard` takes beyond the suspended coroutine itself."""

    @coroutine
    def suspended():
        yield

    async def bare(value):
        await suspended()
        return value

    async def difference():
        """Measure in a task, since a limiter asks whether that is to be cancelled."""
        return _allocated(guard(bare), count) - _allocated(bare, count)

    return asyncio.run(difference()) / count


def _allocated(fn: Callable, count: int) -> int:
    gc.collect()
    tracemalloc.start()
    flying = [fn(1) for _ in range(count)]
    for call in flying:
        call.send(None)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for call in flying:
        with contextlib.suppress(StopIteration):
            call.send(None)
    return taken


def _python(code: str) -> str:
    """Run `code` in a fresh interpreter, and return what it prints."""
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    ).stdout
