"""PostgreSQL guards the rows of tenants as well: a statement that forgets whose rows it wants gets none."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from examples.backend.ports.database import EVERY
from examples.backend.ports.tables import OF_A_TENANT, calls, metadata, users
from tests.examples.backend_process import fresh_sid, invited, logged_in

GUARDED = [table.name for table in OF_A_TENANT]


@pytest.fixture(scope="module")
def connection(backends):
    """A connection as the role that the backend runs as, where two tenants have something."""
    server = backends("asgi-real")
    for _ in range(2):
        with logged_in(server) as administrator, invited(server, administrator):
            assert administrator.get(f"/api/recordings/{fresh_sid()}").status_code == 200
    with psycopg.connect(server.variables["BACKEND_DATABASE_URL"], autocommit=True) as connection:
        yield connection


@pytest.fixture
def tenants(connection):
    """The ids of two tenants that have calls."""
    rows = of(connection, EVERY, "SELECT DISTINCT tenant_id FROM {} ORDER BY 1 LIMIT 2", calls.name)
    return [tenant for (tenant,) in rows]


def of(connection, tenant, statement, table, *values):
    """Run a statement for a tenant, or for nobody; return its rows, or how many it changed."""
    with connection.transaction():
        if tenant is not None:
            connection.execute("SELECT set_config('app.tenant', %s, true)", [tenant])
        cursor = connection.execute(sql.SQL(statement).format(sql.Identifier(table)), values)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def test_every_table_of_tenants_is_guarded(connection):
    guarded = connection.execute(
        "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity AND relkind = 'r'"
    ).fetchall()
    with_tenants = [table.name for table in metadata.sorted_tables if "tenant_id" in table.columns]
    assert {name for (name,) in guarded} == set(with_tenants) == set(GUARDED)


def test_the_backend_s_role_cannot_get_round_it(connection):
    rights = connection.execute(
        "SELECT rolsuper, rolbypassrls, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert rights == (False, False, False)
    owned = connection.execute("SELECT count(*) FROM pg_tables WHERE tableowner = current_user").fetchone()
    assert owned == (0,)
    for statement in (
        "ALTER TABLE calls DISABLE ROW LEVEL SECURITY",
        "DROP POLICY of_its_tenant ON calls",
        "SET ROLE backend_owner",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@pytest.mark.parametrize("table", GUARDED)
def test_a_statement_that_forgets_the_tenant_reaches_no_row(connection, table):
    assert of(connection, None, "SELECT * FROM {}", table) == []
    assert of(connection, None, "UPDATE {} SET tenant_id = tenant_id", table) == 0
    assert of(connection, None, "DELETE FROM {}", table) == 0
    assert of(connection, "", "SELECT * FROM {}", table) == []


@pytest.mark.parametrize("table", GUARDED)
def test_a_tenant_reaches_its_own_rows_only(connection, tenants, table):
    own, other = tenants
    assert {tenant for (tenant,) in of(connection, own, "SELECT tenant_id FROM {}", table)} <= {own}
    assert of(connection, own, "UPDATE {} SET tenant_id = tenant_id WHERE tenant_id = %s", table, other) == 0
    assert of(connection, own, "DELETE FROM {} WHERE tenant_id = %s", table, other) == 0


@pytest.mark.parametrize("table", [users.name, calls.name])
def test_there_is_something_to_guard(connection, tenants, table):
    for tenant in tenants:
        assert of(connection, tenant, "SELECT * FROM {}", table)


def test_nothing_is_written_for_another_tenant(connection, tenants):
    own, other = tenants
    write = (
        "INSERT INTO {} (tenant_id, call_sid, status, date_updated, received_at) VALUES (%s, 'x', 'y', '', 0)"
    )
    move = "UPDATE {} SET tenant_id = %s"
    for tenant in (None, own):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            of(connection, tenant, write, "call_events", other)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        of(connection, own, move, calls.name, other)


def test_a_transaction_s_tenant_ends_with_it(connection, tenants):
    assert of(connection, tenants[0], "SELECT * FROM {}", calls.name)
    assert of(connection, None, "SELECT * FROM {}", calls.name) == []
