"""What the session stores have Redis do: one script a call, each of them atomic.

A session is a hash that expires by itself. Beside it there are two sorted sets, whose scores say when each
session ends: one of the sessions of each user, and one of all. The rules:

- Time is the server's, read once a script, in whole milliseconds: what Redis expires keys by.
- A session is alive while the server's clock reads less than its `expires`. That its key expires at the same
  time only frees it.
- Every script changes a session and both sets together, so the sets name what is there. The one of a user
  expires with the last of its sessions; the one of all a day later, so that a sweep can count what has ended.
- Only CREATE makes a session. A renewal that finds none says so: what was logged out stays so.
- Scripts are constants; keys and data come as KEYS and ARGV only. All keys of a store have the same hash tag,
  so on a Cluster they are in one slot, and on one node.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final, NamedTuple

NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
"""The one place that reads the time."""

_INDEX: Final = """
local function index(key, id, expires, later)
  redis.call('ZADD', key, expires, id)
  local last = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')
  redis.call('PEXPIREAT', key, last[2] + later)
end
local day = 86400000
"""


class Script(NamedTuple):
    """A script, and the name by which Redis knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, *parts: str) -> Script:
        """Return the script that consists of these parts."""
        text = "".join(parts)
        return cls(text, sha1(text.encode()).hexdigest())  # noqa: S324 - it is Redis that names scripts so


# What ended more than a day ago goes without having been counted: nobody sweeps.
CREATE: Final = Script.of(
    NOW,
    _INDEX,
    """
local session, user, all = KEYS[1], KEYS[2], KEYS[3]
local id, user_id, data, idle, lifetime = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local expires = now + idle
redis.call('HSET', session,
  'user', user_id, 'data', data, 'created', now, 'expires', expires, 'ends', now + lifetime)
redis.call('PEXPIREAT', session, expires)
redis.call('ZREMRANGEBYSCORE', user, '-inf', now)
index(user, id, expires, 0)
redis.call('ZREMRANGEBYSCORE', all, '-inf', now - day)
index(all, id, expires, day)
""",
)
"""KEYS: session, sessions of the user, all sessions. ARGV: id, user, data, idle timeout, lifetime."""

READ: Final = Script.of(
    NOW,
    """
local kept = redis.call('HMGET', KEYS[1], 'user', 'data', 'created', 'expires', 'ends')
if not kept[4] or tonumber(kept[4]) <= now then
  return false
end
kept[6] = now
return kept
""",
)
"""KEYS: session. Returns user, data, created, expires, ends, now; nothing if it is not alive."""

READ_ALL: Final = Script.of(
    NOW,
    """
local found = {}
for n, session in ipairs(KEYS) do
  local kept = redis.call('HMGET', session, 'user', 'data', 'created', 'expires', 'ends')
  if kept[4] and tonumber(kept[4]) > now then
    kept[6] = now
    found[#found + 1] = {n - 1, kept}
  end
end
return found
""",
)
"""KEYS: sessions. Returns the places of those that are alive, counted from 0, each with what READ returns."""

RENEW: Final = Script.of(
    NOW,
    _INDEX,
    """
local session, user, all = KEYS[1], KEYS[2], KEYS[3]
local kept = redis.call('HMGET', session, 'expires', 'ends')
if not kept[1] or tonumber(kept[1]) <= now then
  return false
end
local expires = math.max(kept[1], math.min(now + ARGV[2], kept[2]))
redis.call('HSET', session, 'expires', expires)
redis.call('PEXPIREAT', session, expires)
index(user, ARGV[1], expires, 0)
index(all, ARGV[1], expires, day)
return expires
""",
)
"""KEYS: session, sessions of the user, all sessions. ARGV: id, idle timeout. Returns the new end."""

DELETE: Final = Script.of(
    NOW,
    """
local user, all, ended = KEYS[1], KEYS[2], {}
for n, id in ipairs(ARGV) do
  local session = KEYS[n + 2]
  local expires = redis.call('HGET', session, 'expires')
  if expires and tonumber(expires) > now then
    ended[#ended + 1] = id
  end
  redis.call('DEL', session)
  redis.call('ZREM', user, id)
  redis.call('ZREM', all, id)
end
return ended
""",
)
"""KEYS: sessions of the user, all sessions, then sessions. ARGV: their ids. Returns those that were alive."""

DELETE_EXPIRED: Final = Script.of(
    NOW,
    """
local ended = math.min(ARGV[1], redis.call('ZCOUNT', KEYS[1], '-inf', now))
if ended > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, ended - 1)
end
return ended
""",
)
"""KEYS: all sessions. ARGV: how many at most. Returns how many had ended, and are now forgotten."""

COUNT: Final = Script.of(NOW, "return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')")
"""KEYS: all sessions. Returns how many are alive."""

COUNT_EXPIRED: Final = Script.of(NOW, "return math.min(ARGV[1], redis.call('ZCOUNT', KEYS[1], '-inf', now))")
"""KEYS: all sessions. ARGV: how many at most. Returns how many have ended and are not forgotten yet."""

ENDED: Final = Script.of(
    NOW,
    """
local ended = {}
for n, session in ipairs(KEYS) do
  local expires = redis.call('HGET', session, 'expires')
  if not expires or tonumber(expires) <= now then
    ended[#ended + 1] = n - 1
  end
end
return ended
""",
)
"""KEYS: sessions. Returns the places of those that are not alive, counted from 0."""
