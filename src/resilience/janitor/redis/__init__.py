"""Sessions in Redis or Valkey, shared by all processes on all machines. Needs redis-py: the extra `redis`.

`RedisSessions` and `AsyncRedisSessions` are the stores.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("redis") is None:
    raise ImportError("resilience.janitor.redis needs redis-py: install the extra, resilience-py[redis]")

from resilience.janitor.redis.sessions import AsyncRedisSessions, RedisSessions

__all__ = ["AsyncRedisSessions", "RedisSessions"]
