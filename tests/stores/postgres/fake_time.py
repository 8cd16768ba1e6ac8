"""Stores on a real server whose time is a `FakeClock`'s: our `clock_timestamp()` stands before its own."""

from __future__ import annotations

import asyncio
import threading

import psycopg

from resilience.stores.postgres import AsyncPostgresStore, PostgresStore, create_schema

PATIENT = 30.0
"""Seconds that a call may take, where a test asks more of a machine than anybody would."""

CLOCK = """
CREATE UNLOGGED TABLE moment (id int PRIMARY KEY, microseconds bigint NOT NULL);
INSERT INTO moment VALUES (1, 0);
CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
    SELECT 'epoch'::timestamptz + microseconds * interval '1 microsecond' FROM moment WHERE id = 1
$$;
"""


class FakeTime:
    """A schema of its own on a server, with a time of its own."""

    def __init__(self, server, name):
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        self.url = f"{server.url}?options=-csearch_path%3D{name},pg_catalog"
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.connection.execute(CLOCK)
        create_schema(self.connection)
        self._lock = threading.Lock()
        self._told = None

    def tell(self, clock):
        """Let the server's time be that of `clock`."""
        microseconds = round(clock.wall() * 1e6)
        with self._lock:
            if microseconds != self._told:
                self.connection.execute("UPDATE moment SET microseconds = %s", (microseconds,))
                self._told = microseconds

    def forget(self):
        """Begin anew with nothing counted."""
        self.connection.execute("TRUNCATE resilience_quota")

    def close(self):
        self.connection.close()


class OnFakeTime:
    """A store that tells the server the time before it is asked."""

    shared = True
    blocking = True

    def __init__(self, store, time):
        self.store = store
        self.clock = store.clock
        self._time = time

    def __getattr__(self, name):
        ask = getattr(self.store, name)

        def asked(*arguments):
            self._time.tell(self.clock)
            return ask(*arguments)

        return asked


class FromThreads:
    """An async store as a sync one: each call is awaited on the one loop, in a thread of its own."""

    def __init__(self, store):
        self.store = store
        self.clock = store.clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __getattr__(self, name):
        ask = getattr(self.store, name)
        return lambda *arguments: self.wait_for(ask(*arguments))

    def wait_for(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def end(self):
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def sync_store(time, clock, **options):
    options = {"timeout": PATIENT, "remember_refusals": 0} | options
    return OnFakeTime(PostgresStore(time.url, clock=clock, **options), time)


def async_store(time, clock, **options):
    options = {"timeout": PATIENT, "remember_refusals": 0} | options
    return OnFakeTime(FromThreads(AsyncPostgresStore(time.url, clock=clock, **options)), time)
