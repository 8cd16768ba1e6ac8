"""What alembic asks for: it is always given a connection, inside a transaction of its own."""

from __future__ import annotations

from alembic import context

from examples.backend.ports.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
