"""Session stores in PostgreSQL and in Redis, each test's in a corner of its own, where time stands still."""

from __future__ import annotations

import secrets
import time

import psycopg
import redis
from psycopg.conninfo import make_conninfo
from redis import asyncio as redis_asyncio

from resilience.janitor.postgres import AsyncPostgresSessions, PostgresSessions
from resilience.janitor.redis import AsyncRedisSessions, RedisSessions, scripts
from tests.janitor.conformance import Awaited


class Place:
    """Makes stores, and closes them."""

    def __init__(self):
        self._now = float(int(time.time()))
        self._stores = []
        self.set(self._now)

    def wall(self):
        return self._now

    def advance(self, seconds):
        self._now += seconds
        self.set(self._now)

    def close(self):
        for store in self._stores:
            store.close()

    def _kept(self, store):
        self._stores.append(store)
        return store


class InPostgres(Place):
    """A schema of its own, with a clock of its own that comes before the system's."""

    def __init__(self, server):
        self.schema = f"s{secrets.token_hex(6)}"
        self.url = make_conninfo(server.url, options=f"-csearch_path={self.schema},pg_catalog")
        self.admin = psycopg.connect(self.url, autocommit=True)
        self.admin.execute(f"CREATE SCHEMA {self.schema}")
        self.admin.execute("CREATE TABLE fake_time (now timestamptz)")
        self.admin.execute("INSERT INTO fake_time VALUES (to_timestamp(0))")
        self.admin.execute(
            "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            " 'SELECT now FROM fake_time'"
        )
        super().__init__()
        with PostgresSessions(self.url) as store:
            store.create_schema()

    def set(self, now):
        self.admin.execute("UPDATE fake_time SET now = to_timestamp(%s)", [now])

    def open(self, **options):
        return self.open_at(self.url, "sync", **options)

    def open_async(self, **options):
        return self.open_at(self.url, "async", **options)

    def open_at(self, url, kind, **options):
        """Return a store that is at `url`: with other settings, say, or behind a proxy."""
        if kind == "sync":
            return self._kept(PostgresSessions(url, **options))
        made = AsyncPostgresSessions(url, **options)
        return self._kept(Awaited(lambda: made))

    def connect(self):
        """Return a connection like that of another process."""
        return self._kept(psycopg.connect(self.url))

    def rows(self, what="session_id"):
        """Return what the table has."""
        return self.admin.execute(f"SELECT {what} FROM resilience_sessions ORDER BY expires_at").fetchall()

    def close(self):
        super().close()
        self.admin.execute(f"DROP SCHEMA {self.schema} CASCADE")
        self.admin.close()


class InRedis(Place):
    """A prefix of its own, and clients that have scripts read the time from a key."""

    def __init__(self, server):
        self.url = server.url
        self.prefix = f"s{secrets.token_hex(6)}"
        self.admin = redis.Redis.from_url(server.url)
        super().__init__()

    def set(self, now):
        self.admin.set(f"{self.prefix}:now", round(now * 1000), ex=600)

    def open(self, **options):
        client = Timed.from_url(self.url)
        client.now = self._reads_now()
        self._stores.append(client)
        return self._kept(RedisSessions(client, prefix=self.prefix, **options))

    def open_async(self, **options):
        client = AsyncTimed.from_url(self.url)
        client.now = self._reads_now()
        made = AsyncRedisSessions(client, prefix=self.prefix, **options)
        made.close = client.aclose
        return self._kept(Awaited(lambda: made))

    def _reads_now(self):
        return f"local now = tonumber(redis.call('GET', '{self.prefix}:now'))"

    def close(self):
        super().close()
        self.admin.close()


TEXTS = {script.sha: script.text for script in vars(scripts).values() if isinstance(script, scripts.Script)}


class Timed(redis.Redis):
    def evalsha(self, sha, *arguments):
        return self.eval(TEXTS[sha].replace(scripts.NOW, self.now), *arguments)


class AsyncTimed(redis_asyncio.Redis):
    def evalsha(self, sha, *arguments):
        return self.eval(TEXTS[sha].replace(scripts.NOW, self.now), *arguments)
