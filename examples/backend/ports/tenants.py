"""Tenants in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import tenants

if TYPE_CHECKING:
    from examples.backend.ports.database import Database


class DatabaseTenants:
    """Answers `examples.backend.domain.webhooks.Tenants`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_webhook(self, webhook_hash: str) -> str | None:
        """Return the id of the tenant whose webhooks' secret has this hash."""
        asked = select(tenants.c.id).where(tenants.c.webhook_hash == webhook_hash)
        return await self._database.read(lambda db: db.execute(asked).scalar_one_or_none(), tenant=EVERY)

    async def ensure(self, tenant_id: str, name: str, webhook_hash: str, now: float) -> None:
        """Add a tenant, unless it is there."""
        await self._database.write(
            lambda db: db.execute(
                insert(db, tenants)
                .values(id=tenant_id, name=name, webhook_hash=webhook_hash, created_at=now)
                .on_conflict_do_nothing()
            ),
            tenant=EVERY,
        )
