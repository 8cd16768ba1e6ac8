"""Counts in Redis or Valkey, shared by all processes on all machines that use the server.

The extra `redis` brings redis-py: `pip install resilience-py[redis]`. Rules:
    - One decision is one round trip, and one script that the server runs by itself: see `scripts`.
    - Time is the server's, so no two machines need to agree on it.
    - Commands are written and replies are read here, in `wire`, with one bound for the whole call; redis-py
      connects, and knows of passwords, TLS, sockets and Sentinel.
    - Threads each use a connection of their own while they ask; the tasks of an event loop share one.
"""

from __future__ import annotations

try:
    from resilience.stores.redis.stores import AsyncRedisStore, RedisStore
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"resilience.stores.redis needs redis-py ({error}): pip install 'resilience-py[redis]'",
        name=error.name,
    ) from error

__all__ = ["AsyncRedisStore", "RedisStore"]
