"""A role, a database and connections to be reaped, on a real PostgreSQL."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
from psycopg.conninfo import make_conninfo

from resilience.testing import wait_until


class Shop:
    """A service with a role and a database of its own, where time is what one says."""

    def __init__(self, server, name):
        self.admin = psycopg.connect(server.url, autocommit=True)
        self.admin.execute(f"CREATE ROLE {name} LOGIN")
        self.admin.execute(f"CREATE DATABASE {name} OWNER {name}")
        self.name = name
        self.url = make_conninfo(server.url, user=name, dbname=name)
        self._stack = ExitStack()
        with psycopg.connect(make_conninfo(server.url, dbname=name), autocommit=True) as inside:
            inside.execute("CREATE SCHEMA fake")
            inside.execute("GRANT USAGE ON SCHEMA fake TO PUBLIC")
            inside.execute(
                "CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
                " $$ SELECT pg_catalog.clock_timestamp() + current_setting('fake.ahead')::interval $$"
            )
        self.admin.execute(f"ALTER ROLE {name} SET search_path = fake, pg_catalog, public")
        self.ahead(0)

    def ahead(self, seconds):
        """Let the database's clock be ahead for whoever connects as the role from now on."""
        self.admin.execute(f"ALTER ROLE {self.name} SET fake.ahead = '{seconds} s'")

    def connect(self, application_name="shop-web", **settings):
        """Return a connection of the service."""
        settings = {"autocommit": True, "application_name": application_name, **settings}
        return self._stack.enter_context(Connection(psycopg.connect(self.url, **settings))).connection

    def idle_in_transaction(self, application_name="shop-web", **settings):
        """Return a connection that has begun a transaction and does nothing more."""
        connection = self.connect(application_name, **settings)
        connection.execute("BEGIN")
        self.wait_for(connection, "idle in transaction")
        return connection

    def wait_for(self, connection, state):
        """Wait until the server says that a connection is in a state."""
        pid = connection.info.backend_pid
        wait_until(lambda: self.row(pid) and self.row(pid)[0] == state)

    def row(self, pid):
        """Return what the server says of a connection; None if it is gone."""
        return self.admin.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()

    def is_alive(self, connection):
        """Return whether the connection still stands; a signal that was sent may take a moment to arrive."""
        return self.row(connection.info.backend_pid) is not None

    def wait_until_gone(self, pid):
        """Wait until the server has ended a connection."""
        wait_until(lambda: self.row(pid) is None)

    def end_all(self):
        """End the connections that were made."""
        self._stack.close()

    def close(self):
        """Remove all of it."""
        self.end_all()
        self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
        self.admin.execute(f"DROP ROLE {self.name}")
        self.admin.close()


class Connection:
    """Closes a connection at the end, without asking the server anything."""

    def __init__(self, connection):
        self.connection = connection

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.connection.close()
