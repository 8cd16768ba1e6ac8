"""Places where processes count together, which can be sent to a process: each opens its own store there."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from resilience.stores.on_loop import on_loop

PATIENT = 30.0
"""Seconds that a call may take, where a test asks more of a machine than anybody would."""


class Place(NamedTuple):
    kind: str
    where: str
    """A path or a URL."""
    name: str = ""
    """What tells the counts of one test from those of the others on the same server."""

    def store(self):
        """Return a new store for threads; it asks the server each time."""
        if self.kind == "sqlite":
            from resilience.stores.sqlite import SQLiteStore

            return SQLiteStore(self.where, busy_timeout=PATIENT)
        if self.kind == "redis":
            from resilience.stores.redis import RedisStore

            return RedisStore(self.where, prefix=self.name, timeout=PATIENT, remember_refusals=0)
        from resilience.stores.postgres import PostgresStore

        return PostgresStore(self.where, timeout=PATIENT, remember_refusals=0)

    def async_store(self):
        """Return a new store to be asked on an event loop."""
        if self.kind == "sqlite":
            return self.store()
        if self.kind == "redis":
            from resilience.stores.redis import AsyncRedisStore

            return AsyncRedisStore(self.where, prefix=self.name, timeout=PATIENT, remember_refusals=0)
        from resilience.stores.postgres import AsyncPostgresStore

        return AsyncPostgresStore(self.where, timeout=PATIENT, remember_refusals=0)

    @contextmanager
    def opened(self):
        """Open a store for threads, and close it."""
        store = self.store()
        try:
            yield store
        finally:
            store.close()

    @asynccontextmanager
    async def opened_on_a_loop(self):
        """Open a store for event loops, and close it."""
        store = self.async_store()
        try:
            yield on_loop(store)
        finally:
            closed = store.close()
            if closed is not None:
                await closed


def sqlite_place(folder):
    return Place("sqlite", str(folder / "limits.db"))


def redis_place(server, name):
    return Place("redis", server.url, name)


def postgres_place(server, name):
    """A schema of its own on the server."""
    import psycopg

    from resilience.stores.postgres import create_schema

    url = f"{server.url}?options=-csearch_path%3D{name}"
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    with psycopg.connect(url, autocommit=True) as connection:
        create_schema(connection)
    return Place("postgres", url)
