"""Tenants in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, or_, select, update

from examples.backend.domain.tenants import Switched
from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import invitations, tenants, users
from examples.backend.ports.users import user_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.domain.accounts import User
    from examples.backend.domain.tenants import Invitation
    from examples.backend.ports.database import Database


class DatabaseTenants:
    """Answers `examples.backend.domain.tenants.Tenants`, and the `Tenants` of `domain.webhooks`."""

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

    async def name_of(self, tenant_id: str) -> str:
        """Return a tenant's name."""
        name: str = await self._read_of(tenant_id, tenants.c.name)
        return name

    async def users_of(self, tenant_id: str, after: str, limit: int) -> list[User]:
        """Return users by their `email_key`, from the first one beyond `after`."""
        asked = (
            select(users)
            .where(users.c.tenant_id == tenant_id, users.c.email_key > after)
            .order_by(users.c.email_key)
            .limit(limit)
        )
        return await self._database.read(
            lambda db: [user_of(row) for row in db.execute(asked)], tenant=tenant_id
        )

    async def user_of(self, tenant_id: str, user_id: str) -> User | None:
        """Return one of a tenant's users."""
        asked = select(users).where(users.c.tenant_id == tenant_id, users.c.id == user_id)
        row = await self._database.read(lambda db: db.execute(asked).one_or_none(), tenant=tenant_id)
        return None if row is None else user_of(row)

    async def switch(self, tenant_id: str, user_id: str, disabled_at: float | None) -> Switched:
        """Disable a user, unless no administrator would be left, or enable one.

        The sessions of one who was disabled are void.
        """

        def switch(db: Connection) -> Switched:
            # Two administrators who disable each other at the same time do it one after the other.
            db.execute(select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update())
            is_this = (users.c.tenant_id == tenant_id) & (users.c.id == user_id)
            if db.execute(select(users.c.id).where(is_this)).one_or_none() is None:
                return Switched.NOT_FOUND
            if disabled_at is not None and not _administrators(db, tenant_id, but=user_id):
                return Switched.LAST_ADMINISTRATOR
            generation = users.c.generation + int(disabled_at is not None)
            db.execute(update(users).where(is_this).values(disabled_at=disabled_at, generation=generation))
            return Switched.DONE

        return await self._database.write(switch, tenant=tenant_id)

    async def invite(self, invitation: Invitation, now: float) -> None:
        """Keep an invitation, in place of older ones for the address; forget the expired ones."""

        def invite(db: Connection) -> None:
            replaced = or_(invitations.c.email_key == invitation.email_key, invitations.c.expires_at <= now)
            db.execute(delete(invitations).where(invitations.c.tenant_id == invitation.tenant_id, replaced))
            db.execute(
                invitations.insert().values(
                    hash=invitation.hash,
                    tenant_id=invitation.tenant_id,
                    email=invitation.email,
                    email_key=invitation.email_key,
                    role=invitation.role,
                    inviter_id=invitation.inviter_id,
                    expires_at=invitation.expires_at,
                )
            )

        await self._database.write(invite, tenant=invitation.tenant_id)

    async def put_webhook(self, tenant_id: str, webhook_hash: str) -> int:
        """Give the webhooks another address; return its version."""
        put = (
            update(tenants)
            .where(tenants.c.id == tenant_id)
            .values(webhook_hash=webhook_hash, webhook_version=tenants.c.webhook_version + 1)
            .returning(tenants.c.webhook_version)
        )
        return await self._database.write(lambda db: db.execute(put).scalar_one(), tenant=tenant_id)

    async def webhook_version(self, tenant_id: str) -> int:
        """Return the version of the webhooks' address."""
        version: int = await self._read_of(tenant_id, tenants.c.webhook_version)
        return version

    async def _read_of(self, tenant_id: str, column: Any) -> Any:
        asked = select(column).where(tenants.c.id == tenant_id)
        return await self._database.read(lambda db: db.execute(asked).scalar_one(), tenant=tenant_id)


def _administrators(db: Connection, tenant_id: str, but: str) -> int:
    """Return how many could run the tenant without one of them."""
    others = select(func.count()).where(
        users.c.tenant_id == tenant_id,
        users.c.id != but,
        users.c.role == "administrator",
        users.c.verified_at.is_not(None),
        users.c.disabled_at.is_(None),
    )
    return db.execute(others).scalar_one()
