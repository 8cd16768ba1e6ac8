"""The stores themselves: an engine that asks Redis, and the guards that all stores on a server have."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from resilience._core.counting import Charge
from resilience._core.quota import Quota, counter_of
from resilience.clock import SYSTEM_CLOCK
from resilience.stores.redis.codec import Codec
from resilience.stores.redis.pipelined import AsyncRedisEngine
from resilience.stores.redis.sync import RedisEngine
from resilience.stores.remote import TIMEOUT, AsyncRemote, Remote

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

    from resilience.breaker import CircuitBreaker
    from resilience.clock import Clock

_CHECK: Final = Charge(counter_of("check", Quota(1_000_000, per=1.0, algorithm="gcra")), "check")
"""What `check` counts: more than anybody could use up."""


class RedisStore(Remote):
    """Counts in Redis or Valkey, for threads.

    Args:
        server: `"redis://cache:6379/0"`, `"rediss://…"` with TLS, `"unix:///run/redis.sock"`, or a
            `redis.Redis` that has been set up. Of a Cluster, any one node.
        prefix: What the names of all keys begin with. With braces, such as `"{limits}"`, all keys of a
            Cluster lie in one slot, and a decision about several keys is one round trip there too.
        timeout: Seconds that a call takes at most, above 0 and up to 60. What the client was set up to wait
            does not count, nor do its retries.
        remember_refusals: Seconds for which a refusal is answered without asking again, at most; 0 asks
            each time.
        breaker: What rejects calls while the server is out of reach; one of its own where left out.
        clock: What timeouts are measured on; decisions are made by the server's time.

    Raises:
        TypeError: `server` is neither a URL nor a `redis.Redis`.
        ValueError: `prefix` is empty or has stray braces, or a number is out of its range.

    Nothing is connected before the first call. Threads may share it, and it survives a fork. Close it, or
    use it as a context manager, to let go of the connections. A pace finer than a microsecond (`gcra` of
    more than 1,000,000 units a second) is a ValueError when it is first asked for.
    """

    _engine: RedisEngine

    def __init__(
        self,
        server: str | Redis,
        *,
        prefix: str = "resilience",
        timeout: float = TIMEOUT,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        engine = RedisEngine(server, Codec(prefix), clock)
        super().__init__(
            engine,
            f"Redis at {engine.name}",
            timeout=timeout,
            remember_refusals=remember_refusals,
            breaker=breaker,
            clock=clock,
        )

    def check(self) -> None:
        """Do all that a limiter will ever need of the server, so that a missing right shows now.

        Raises:
            StoreUnavailable: The server is out of reach, or refuses one of the commands; it says what to do.
        """
        self._ask(self._guard.call(), self._engine.load)
        self.take([_CHECK])
        self.holding([_CHECK.counter], 1)
        self.reset([_CHECK.counter], _CHECK.key)


class AsyncRedisStore(AsyncRemote):
    """Counts in Redis or Valkey, for event loops; the arguments are those of `RedisStore`.

    `server` may be a `redis.asyncio.Redis`. The tasks of one loop share one connection, on which their
    questions go out together. Tasks of any number of loops may share the store, and it survives a fork. Close
    it in each loop, or use it as an asynchronous context manager, to let go of the loop's connection.
    """

    _engine: AsyncRedisEngine

    def __init__(
        self,
        server: str | AsyncRedis,
        *,
        prefix: str = "resilience",
        timeout: float = TIMEOUT,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        engine = AsyncRedisEngine(server, Codec(prefix), clock)
        super().__init__(
            engine,
            f"Redis at {engine.name}",
            timeout=timeout,
            remember_refusals=remember_refusals,
            breaker=breaker,
            clock=clock,
        )

    async def check(self) -> None:
        """Do all that a limiter will ever need of the server, so that a missing right shows now.

        Raises:
            StoreUnavailable: The server is out of reach, or refuses one of the commands; it says what to do.
        """
        await self._ask(self._guard.call(), self._engine.load)
        await self.take([_CHECK])
        await self.holding([_CHECK.counter], 1)
        await self.reset([_CHECK.counter], _CHECK.key)
