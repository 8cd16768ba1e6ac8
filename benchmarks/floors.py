"""The floors: what a careful engineer would write by hand for the one case at hand, and nothing more."""

from __future__ import annotations

import asyncio
import functools
import random
import threading
import time


class Rejected(Exception):  # noqa: N818 - one word for what all floors do
    """What the floors raise for a rejection."""


def retry(fn, attempts=3, base=0.1, cap=10.0):
    """Retry with full jitter: a loop around try and except."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        for attempt in range(1, attempts + 1):
            try:
                return fn(*args, **kwargs)
            except ConnectionError:
                if attempt == attempts:
                    raise
                delay = random.uniform(0, min(cap, base * 2 ** (attempt - 1)))
                if delay:
                    time.sleep(delay)
        return None

    return wrapper


def retry_async(fn, attempts=3, base=0.1, cap=10.0):
    """Await the same."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        for attempt in range(1, attempts + 1):
            try:
                return await fn(*args, **kwargs)
            except ConnectionError:
                if attempt == attempts:
                    raise
                delay = random.uniform(0, min(cap, base * 2 ** (attempt - 1)))
                if delay:
                    await asyncio.sleep(delay)
        return None

    return wrapper


class Breaker:
    """Count failures in a row under a lock that is taken before and after the call."""

    def __init__(self, threshold=5, recovery_time=60.0):
        self.threshold = threshold
        self.recovery_time = recovery_time
        self.failures = 0
        self.opened_at = 0.0
        self.lock = threading.Lock()

    def __call__(self, fn):
        @functools.wraps(fn)
        def wrapper(*args, **kwargs):
            with self.lock:
                if self.failures >= self.threshold and time.monotonic() < self.opened_at + self.recovery_time:
                    raise Rejected
            try:
                result = fn(*args, **kwargs)
            except Exception:
                with self.lock:
                    self.failures += 1
                    self.opened_at = time.monotonic()
                raise
            with self.lock:
                self.failures = 0
            return result

        return wrapper


class Limiter:
    """GCRA: one number a key, in a dict under a lock."""

    def __init__(self, limit, per, now=time.monotonic):
        self.now = now
        self.emission_interval = per / limit
        self.tolerance = per
        self.arrivals = {}
        self.lock = threading.Lock()

    def try_acquire(self, key):
        now = self.now()
        with self.lock:
            arrival = self.arrivals.get(key, now)
            if arrival < now:  # noqa: PLR1730 - max() costs a call
                arrival = now
            arrival += self.emission_interval
            if arrival - now > self.tolerance:
                return False
            self.arrivals[key] = arrival
            return True


def timeout_async(fn, seconds=60.0):
    """Cancel it when its time is up."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        async with asyncio.timeout(seconds):
            return await fn(*args, **kwargs)

    return wrapper


def hedge_async(fn, delay=60.0):
    """Call it once more where it takes longer; the first to end counts."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        first = asyncio.create_task(fn(*args, **kwargs))
        done, _ = await asyncio.wait({first}, timeout=delay)
        if done:
            return first.result()
        second = asyncio.create_task(fn(*args, **kwargs))
        done, left = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        return done.pop().result()

    return wrapper


def pipeline(fn, limiter, breaker, attempts=3, base=0.1, cap=10.0):
    """Limiter, breaker and retry in one wrapper."""

    @functools.wraps(fn)
    def wrapper(*args, **kwargs):
        if not limiter.try_acquire("all"):
            raise Rejected
        for attempt in range(1, attempts + 1):
            with breaker.lock:
                if breaker.failures >= breaker.threshold:
                    raise Rejected
            try:
                result = fn(*args, **kwargs)
            except ConnectionError:
                with breaker.lock:
                    breaker.failures += 1
                if attempt == attempts:
                    raise
                delay = random.uniform(0, min(cap, base * 2 ** (attempt - 1)))
                if delay:
                    time.sleep(delay)
            else:
                with breaker.lock:
                    breaker.failures = 0
                return result
        return None

    return wrapper


def pipeline_async(fn, limiter, breaker, attempts=3, base=0.1, cap=10.0):
    """Await the same."""

    @functools.wraps(fn)
    async def wrapper(*args, **kwargs):
        if not limiter.try_acquire("all"):
            raise Rejected
        for attempt in range(1, attempts + 1):
            with breaker.lock:
                if breaker.failures >= breaker.threshold:
                    raise Rejected
            try:
                result = await fn(*args, **kwargs)
            except ConnectionError:
                with breaker.lock:
                    breaker.failures += 1
                if attempt == attempts:
                    raise
                delay = random.uniform(0, min(cap, base * 2 ** (attempt - 1)))
                if delay:
                    await asyncio.sleep(delay)
            else:
                with breaker.lock:
                    breaker.failures = 0
                return result
        return None

    return wrapper
