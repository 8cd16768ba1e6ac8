"""How a row is measured: all candidates in one process, interleaved, by CPU time, as ratios to the floor.

In each round every candidate runs one batch, in an order that is shuffled anew, so that a change of the
machine's pace meets all of them alike. A candidate's ratio is the median of its per-round ratios to the
floor of the same round. The loop around the calls (about 10 ns) is not subtracted.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import statistics
from itertools import repeat
from time import process_time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Batch = Callable[[int], float]
    """Makes n calls and returns the CPU seconds that they took."""

BATCH_SECONDS = 0.01


class Measured(NamedTuple):
    """One row: the floor in nanoseconds a call, and each candidate as a multiple of it."""

    floor_ns: float
    ratios: Mapping[str, float]


def calls(fn: Callable[..., Any], *args: Any) -> Batch:
    """Return a batch of plain calls of `fn`."""

    def batch(n: int) -> float:
        started = process_time()
        for _ in repeat(None, n):
            fn(*args)
        return process_time() - started

    return batch


def failing_calls(fn: Callable[..., Any], *args: Any) -> Batch:
    """Return a batch of calls of `fn`, each of which raises."""

    def batch(n: int) -> float:
        started = process_time()
        for _ in repeat(None, n):
            try:  # noqa: SIM105 - `suppress` would be measured too
                fn(*args)
            except Exception:  # noqa: BLE001, S110 - each peer raises its own
                pass
        return process_time() - started

    return batch


def calls_over(fn: Callable[[Any], Any], arguments: list[Any]) -> Batch:
    """Return a batch of calls of `fn` with one argument after the other; it goes on where it ended."""
    endless = itertools.cycle(arguments)
    for argument in arguments:
        fn(argument)  # each was seen before

    def batch(n: int) -> float:
        chosen = list(itertools.islice(endless, n))
        started = process_time()
        for argument in chosen:
            fn(argument)
        return process_time() - started

    return batch


def awaited(fn: Callable[..., Any], *args: Any) -> Batch:
    """Return a batch of awaited calls of `fn`, in one event loop run."""

    async def run(n: int) -> float:
        started = process_time()
        for _ in repeat(None, n):
            await fn(*args)
        return process_time() - started

    return lambda n: asyncio.run(run(n))


def measure(floor: Batch, candidates: Mapping[str, Batch], *, rounds: int = 31) -> Measured:
    """Run floor and candidates in turn, and return the row."""
    batches = {"floor": floor, **candidates}
    sizes = {name: _size_of(batch) for name, batch in batches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    order = list(batches)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            gc.collect()
            seconds[name].append(batches[name](sizes[name]) / sizes[name])
    ratios = {
        name: statistics.median(own / base for own, base in zip(seconds[name], seconds["floor"], strict=True))
        for name in candidates
    }
    return Measured(statistics.median(seconds["floor"]) * 1e9, ratios)


def _size_of(batch: Batch) -> int:
    """Return how many calls make a batch of about BATCH_SECONDS; this also warms the candidate up."""
    n = 64
    while (seconds := batch(n)) < BATCH_SECONDS / 4:
        n *= 4
    return max(1, round(n * BATCH_SECONDS / seconds))
