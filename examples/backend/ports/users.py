"""Users and their one-time codes in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sqlalchemy import delete, select, update

from examples.backend.domain.accounts import User
from examples.backend.domain.codes import MAX_ATTEMPTS
from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import codes, tenants, users

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.domain.codes import OneTimeCode
    from examples.backend.ports.database import Database

VERIFY_EMAIL: Final = "verify-email"


class DatabaseUsers:
    """Answers `examples.backend.domain.accounts.Users`; each method is one transaction.

    Whoever registers, proves an address or logs in belongs to no tenant yet as far as we know, so these look
    through all of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, user: User, code: OneTimeCode, now: float) -> User | None:
        """Add `user`, or put it in place of one who never proved the address; else return who did."""

        def register(db: Connection) -> User | None:
            unproven = select(users.c.tenant_id).where(
                users.c.email_key == user.email_key, users.c.verified_at.is_(None)
            )
            db.execute(delete(tenants).where(tenants.c.id.in_(unproven)))
            owner = _find(db, "email_key", user.email_key)
            if owner is None:
                db.execute(
                    tenants.insert().values(
                        id=user.tenant_id,
                        name=user.name or user.email,
                        webhook_hash=user.tenant_id,
                        created_at=now,
                    )
                )
                db.execute(
                    users.insert().values(
                        id=user.id,
                        tenant_id=user.tenant_id,
                        email=user.email,
                        email_key=user.email_key,
                        name=user.name,
                        password_hash=user.password_hash,
                        role=user.role,
                        created_at=now,
                    )
                )
                _put_code(db, user.id, user.tenant_id, code)
            return owner

        return await self._database.write(register, tenant=EVERY)

    async def replace_code(self, email_key: str, code: OneTimeCode) -> str | None:
        """Put `code` in place of the old one; return the address to send it to, if it awaits one."""

        def replace(db: Connection) -> str | None:
            user = _find(db, "email_key", email_key)
            if user is None or user.verified:
                return None
            _put_code(db, user.id, user.tenant_id, code)
            return user.email

        return await self._database.write(replace, tenant=EVERY)

    async def verify(
        self, email_key: str, code_hash: bytes, now: float, registration: str | None = None
    ) -> bool:
        """Spend one attempt at the code of this address; if it is right, the user is verified for good.

        With a `registration`, the code of another is wrong. An attempt is counted before it is compared, in
        one transaction: parallel guesses cannot share one, and a right code is accepted once.
        """

        def verify(db: Connection) -> bool:
            of_address = select(users.c.id).where(users.c.email_key == email_key).scalar_subquery()
            row = db.execute(
                update(codes)
                .where(
                    codes.c.user_id == of_address,
                    codes.c.purpose == VERIFY_EMAIL,
                    codes.c.attempts < MAX_ATTEMPTS,
                    codes.c.expires_at > now,
                )
                .values(attempts=codes.c.attempts + 1)
                .returning(codes.c.user_id, codes.c.hash)
            ).one_or_none()
            # An ordinary comparison is safe: nobody can choose a guess by its HMAC without the key.
            if row is None or row.hash != code_hash or registration not in {None, row.user_id}:
                return False
            db.execute(delete(codes).where(codes.c.user_id == row.user_id, codes.c.purpose == VERIFY_EMAIL))
            db.execute(update(users).where(users.c.id == row.user_id).values(verified_at=now))
            return True

        return await self._database.write(verify, tenant=EVERY)

    async def by_email(self, email_key: str) -> User | None:
        """Return the user of this address."""
        return await self._database.read(lambda db: _find(db, "email_key", email_key), tenant=EVERY)

    async def by_id(self, user_id: str) -> User | None:
        """Return the user of this id."""
        return await self._database.read(lambda db: _find(db, "id", user_id), tenant=EVERY)


def _find(db: Connection, column: Literal["email_key", "id"], value: str) -> User | None:
    row = db.execute(select(users).where(users.c[column] == value)).one_or_none()
    return None if row is None else _user_of(row)


def _put_code(db: Connection, user_id: str, tenant_id: str, code: OneTimeCode) -> None:
    put = insert(db, codes).values(
        user_id=user_id,
        tenant_id=tenant_id,
        purpose=VERIFY_EMAIL,
        hash=code.hash,
        expires_at=code.expires_at,
        attempts=0,
    )
    new = {name: put.excluded[name] for name in ("hash", "expires_at", "attempts")}
    db.execute(put.on_conflict_do_update(index_elements=["user_id", "purpose"], set_=new))


def _user_of(row: Any) -> User:
    return User(
        id=row.id,
        tenant_id=row.tenant_id,
        email=row.email,
        email_key=row.email_key,
        name=row.name,
        password_hash=row.password_hash,
        role=cast("Literal['administrator', 'member']", row.role),
        verified=row.verified_at is not None,
        disabled=row.disabled_at is not None,
    )
