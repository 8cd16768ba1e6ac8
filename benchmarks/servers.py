"""The rows on real servers: ours beside a hand-written floor and the peers, each on the same server.

A decision here is a round trip, so time is wall time: floor and candidates take turns call by call, in an
order that is shuffled anew each round, and the medians are compared. The servers are those of the tests, on
loopback, and share the machine's cores with the clients.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import limits
import limits.storage
import psycopg
import redis
import redis.asyncio
import throttled
from pyrate_limiter import Limiter as PyrateLimiter
from pyrate_limiter import Rate, RedisBucket, SingleBucketFactory
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience import AsyncRateLimiter, RateLimiter
from resilience.stores.postgres import PostgresStore, create_schema
from resilience.stores.redis import AsyncRedisStore, RedisStore
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

QUOTA = "1000000000/1000 seconds gcra"
"""A pace of a million a second, which nobody here reaches: all is admitted."""
ROUNDS = 1500
CALLERS = 32
PATIENT = 5.0
"""Seconds that a call may take: a pause of this machine must not be taken for an outage."""

MINIMAL_GCRA = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local earning, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local from = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now - (limit - 1) * earning)
if from > now then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', from + earning), 'PX', math.ceil(limit * earning / 1000))
return 1
"""

UPSERT = """
INSERT INTO floor AS held (key, taken) VALUES (%s, 1)
ON CONFLICT (key) DO UPDATE SET taken = held.taken + 1 WHERE held.taken < 1000000000 RETURNING taken
"""


class OnServer(NamedTuple):
    """One row: the floor's own figure, and each candidate as a multiple of it."""

    title: str
    floor: str
    ratios: Mapping[str, float]
    """`resilience` first."""
    reach: float
    more_is_better: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is what it should be."""
        ours = self.ratios["resilience"]
        return ours >= self.reach if self.more_is_better else ours <= self.reach


def on_servers() -> Iterator[OnServer]:
    """Measure one after the other."""
    with running(servers.RedisServer, servers.redis_program()) as server:
        yield redis_sync(server.url)
        yield asyncio.run(redis_async(server.url))
        yield asyncio.run(redis_callers(server.url))
        yield redis_share(server.url, "batches of 100, all admitted", "1000000/1000 seconds", 0.0001)
        yield redis_share(server.url, "mostly refused", "1000/second", 0.1)
        yield redis_memory(server.url, "gcra", "6/15 minutes gcra", 140)
        yield redis_memory(server.url, "6 per 15 min", "6/15 minutes", 250)
    with running(servers.PostgresServer, servers.postgres_programs()) as server:
        yield postgres(server.url)


@contextmanager
def running(kind, program):
    """Run a server of this kind."""
    if program is None:
        raise SystemExit(f"no program for a {kind.__name__}: install it, or `make test`'s packages")
    server = kind(program)
    try:
        yield server
    finally:
        server.end()


def redis_sync(url) -> OnServer:
    """One decision on Redis, by a thread."""
    client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    sha = client.script_load(MINIMAL_GCRA)
    with RedisStore(url, timeout=PATIENT) as store:
        limiter = RateLimiter(QUOTA, name="bench", store=store)
        floor_us, ratios = latencies(
            lambda: client.evalsha(sha, 1, "floor", 1, 1_000_000_000),
            {"resilience": lambda: limiter.try_acquire("ada@example.com"), **redis_peers(url, client)},
        )
    return OnServer("Redis sync, one decision, p50", f"{floor_us:.0f} µs", ratios, 1.05)


def redis_peers(url, client) -> dict[str, Callable[[], object]]:
    """Return the peers' way of the same."""
    moving = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.RedisStorage(url))
    item = limits.parse("1000000000/1000 seconds")
    throttle = throttled.Throttled(
        using="gcra", quota=throttled.per_sec(1_000_000), store=throttled.RedisStore(server=url)
    )
    bucket = RedisBucket.init([Rate(1_000_000, 1000)], client, "pyrate")
    pyrate = PyrateLimiter(SingleBucketFactory(bucket, schedule_leak=False))
    return {
        "limits": lambda: moving.hit(item, "ada@example.com"),
        "throttled-py": lambda: throttle.limit("ada@example.com"),
        "pyrate-limiter": lambda: pyrate.try_acquire("ada@example.com", blocking=False),
    }


async def redis_async(url) -> OnServer:
    """One decision on Redis, by the only task there is."""
    async with redis.asyncio.Redis.from_url(url) as client, AsyncRedisStore(url, timeout=PATIENT) as store:
        sha = await client.script_load(MINIMAL_GCRA)
        limiter = AsyncRateLimiter(QUOTA, name="bench", store=store)
        floor_us, ratios = await latencies_async(
            lambda: client.evalsha(sha, 1, "floor", 1, 1_000_000_000),
            {"resilience": lambda: limiter.try_acquire("ada@example.com")},
        )
    return OnServer("Redis async, one caller, p50", f"{floor_us:.0f} µs", ratios, 1.0)


async def redis_callers(url) -> OnServer:
    """Throughput of many tasks at once, against one EVALSHA a call through redis-py's pool."""
    async with redis.asyncio.Redis.from_url(url) as client, AsyncRedisStore(url, timeout=PATIENT) as store:
        sha = await client.script_load(MINIMAL_GCRA)
        limiter = AsyncRateLimiter(QUOTA, name="bench", store=store)
        ours, floors = [], []
        for _ in range(9):
            floors.append(await throughput(lambda: client.evalsha(sha, 1, "floor", 1, 1_000_000_000), 60))
            ours.append(await throughput(lambda: limiter.try_acquire("ada@example.com"), 200))
    ratio = median(own / floor for own, floor in zip(ours, floors, strict=True))
    title = f"Redis async, {CALLERS} callers, throughput over the floor"
    return OnServer(title, f"{median(floors):,.0f}/s", {"resilience": ratio}, 4.0, more_is_better=True)


def redis_share(url, title, quota, share) -> OnServer:
    """How many decisions the server is asked about at once, for a key that is asked for without a pause."""
    client = redis.Redis.from_url(url)
    with RedisStore(url, timeout=PATIENT) as store:
        limiter = RateLimiter(quota, name="share", store=store, share=share)
        before = scripts_run(client)
        calls = 100_000
        for _ in range(calls):
            limiter.try_acquire("hot")
        trips = scripts_run(client) - before
    title = f"hot key with a local share, {title}: decisions a round trip"
    return OnServer(title, "1", {"resilience": calls / trips}, 50, more_is_better=True)


def scripts_run(client) -> int:
    """Return how often the server has run a script."""
    return client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


def redis_memory(url, title, quota, reach) -> OnServer:
    """How much the server keeps for one key, an e-mail address, with all units taken."""
    client = redis.Redis.from_url(url)
    client.flushall()
    with RedisStore(url, timeout=PATIENT) as store:
        RateLimiter(quota, name="login", store=store).try_acquire("ada.lovelace@example.com", cost=6)
        sizes = [client.memory_usage(key) for key in client.scan_iter() if b"ada.lovelace" in key]
    return OnServer(f"bytes a key in Redis, {title}", "1 byte", {"resilience": max(sizes)}, reach)


def postgres(url) -> OnServer:
    """One decision on PostgreSQL, against one upsert."""
    with psycopg.connect(url, autocommit=True) as connection:
        create_schema(connection)
        connection.execute("CREATE UNLOGGED TABLE floor (key text PRIMARY KEY, taken bigint)")
        with PostgresStore(url, timeout=PATIENT) as store:
            limiter = RateLimiter(QUOTA, name="bench", store=store)
            floor_us, ratios = latencies(
                lambda: connection.execute(UPSERT, ["ada@example.com"], prepare=True).fetchone(),
                {"resilience": lambda: limiter.try_acquire("ada@example.com")},
            )
    return OnServer("PostgreSQL, one decision, p50", f"{floor_us:.0f} µs", ratios, 1.1)


def latencies(
    floor: Callable[[], object], candidates: Mapping[str, Callable[[], object]]
) -> tuple[float, dict[str, float]]:
    """Return the floor's median in microseconds, and each candidate's as a multiple of it."""
    calls = {"floor": floor, **candidates}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(ROUNDS):
        random.shuffle(order)
        for name in order:
            started = perf_counter()
            calls[name]()
            seconds[name].append(perf_counter() - started)
    return compared(seconds)


async def latencies_async(
    floor: Callable[[], Awaitable[object]], candidates: Mapping[str, Callable[[], Awaitable[object]]]
) -> tuple[float, dict[str, float]]:
    """Do the same with what is awaited."""
    calls = {"floor": floor, **candidates}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(ROUNDS):
        random.shuffle(order)
        for name in order:
            started = perf_counter()
            await calls[name]()
            seconds[name].append(perf_counter() - started)
    return compared(seconds)


def compared(seconds: Mapping[str, list[float]]) -> tuple[float, dict[str, float]]:
    """Return the floor's median in microseconds, and the others' as multiples of it."""
    medians = {name: median(own[ROUNDS // 10 :]) for name, own in seconds.items()}  # the first ones warm up
    floor = medians.pop("floor")
    return floor * 1e6, {name: own / floor for name, own in medians.items()}


async def throughput(call: Callable[[], Awaitable[object]], calls_each: int) -> float:
    """Return calls a second of `CALLERS` tasks that call one time after the other."""

    async def caller() -> None:
        for _ in range(calls_each):
            await call()

    started = perf_counter()
    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return CALLERS * calls_each / (perf_counter() - started)
