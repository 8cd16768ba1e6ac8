"""Users and their one-time codes in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from sqlalchemy import case, delete, func, select, update

from examples.backend.domain.accounts import User
from examples.backend.domain.codes import COUNTED_FOR, MAX_ATTEMPTS, Purpose
from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import codes, invitations, tenants, users

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from examples.backend.domain.codes import OneTimeCode
    from examples.backend.ports.database import Database

AWAITS: dict[Purpose, ColumnElement[bool]] = {
    Purpose.VERIFY_EMAIL: users.c.verified_at.is_(None),
    Purpose.RESET_PASSWORD: users.c.verified_at.is_not(None) & users.c.disabled_at.is_(None),
}
"""Whom a code of each purpose may be sent to."""


class Count(NamedTuple):
    """How many guesses were made, and since when they are counted."""

    attempts: int
    counted_from: float


class DatabaseUsers:
    """Answers `examples.backend.domain.accounts.Users`; each method is one transaction.

    Whoever registers, proves an address or logs in belongs to no tenant yet as far as we know, so these look
    through all of them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, user: User, code: OneTimeCode) -> User | None:
        """Add `user`, or put it in place of one who never proved the address; else return who did."""

        def register(db: Connection) -> User | None:
            _one_at_a_time(db, user.email_key)
            count = _count_of_guesses(db, user.email_key, code)
            _drop_unproven(db, users.c.email_key == user.email_key)
            owner = _find(db, users.c.email_key == user.email_key)
            if owner is None:
                name = user.name or user.email
                values = {"id": user.tenant_id, "name": name, "webhook_hash": user.tenant_id}
                db.execute(tenants.insert().values(**values, created_at=code.issued_at))
                _add(db, user, code.issued_at)
                _put_code(db, user, code, count)
            return owner

        return await self._database.write(register, tenant=EVERY)

    async def join(self, user: User, invitation: str, now: float) -> User | None:
        """Add `user`, verified, to the tenant whose `invitation` (a hash) its address has, and spend that.

        Return who has the address then: who had proved it before, and has it still, or the new user; None if
        there is no such invitation, or if whoever sent it has been disabled.
        """

        def join(db: Connection) -> User | None:
            _one_at_a_time(db, user.email_key)
            spent = delete(invitations).where(
                invitations.c.hash == invitation,
                invitations.c.email_key == user.email_key,
                invitations.c.expires_at > now,
                invitations.c.inviter_id.in_(select(users.c.id).where(users.c.disabled_at.is_(None))),
            )
            invited = db.execute(spent.returning(invitations)).one_or_none()
            if invited is None:
                return None
            _drop_unproven(db, users.c.email_key == user.email_key)
            owner = _find(db, users.c.email_key == user.email_key)
            if owner is not None:
                return owner
            member = user.joining(invited.tenant_id, invited.role, invited.email)
            _add(db, member, now)
            return member

        return await self._database.write(join, tenant=EVERY)

    async def ensure(self, user: User, now: float) -> None:
        """Add `user`, or give who has the address its password."""

        def ensure(db: Connection) -> None:
            put = insert(db, users).values(_row_of(user, now))
            new = {"password_hash": put.excluded.password_hash, "password_changed_at": now}
            db.execute(put.on_conflict_do_update(index_elements=["email_key"], set_=new))

        await self._database.write(ensure, tenant=EVERY)

    async def replace_code(self, email_key: str, code: OneTimeCode) -> str | None:
        """Put `code` in place of the old one; return the address to send it to, if it awaits one."""

        def replace(db: Connection) -> str | None:
            _one_at_a_time(db, email_key)
            user = _find(db, users.c.email_key == email_key, AWAITS[code.purpose])
            if user is None:
                return None
            _put_code(db, user, code)
            return user.email

        return await self._database.write(replace, tenant=EVERY)

    async def verify(
        self, email_key: str, code_hash: bytes, now: float, registration: str | None = None
    ) -> bool:
        """Spend one attempt at the code of this address; if it is right, the user is verified for good.

        With a `registration`, the code of another is wrong.
        """

        def verify(db: Connection) -> bool:
            user_id = _spend(db, Purpose.VERIFY_EMAIL, email_key, code_hash, now, registration)
            if user_id is None:
                return False
            db.execute(update(users).where(users.c.id == user_id).values(verified_at=now))
            return True

        return await self._database.write(verify, tenant=EVERY)

    async def reset_password(
        self, email_key: str, code_hash: bytes, now: float, password_hash: str
    ) -> User | None:
        """Spend one attempt at the code of this address; if it is right, set the password, return whose.

        The sessions of before are void.
        """

        def reset(db: Connection) -> User | None:
            user_id = _spend(db, Purpose.RESET_PASSWORD, email_key, code_hash, now)
            if user_id is None:
                return None
            changed = db.execute(
                update(users)
                .where(users.c.id == user_id, users.c.disabled_at.is_(None))
                .values(
                    password_hash=password_hash, password_changed_at=now, generation=users.c.generation + 1
                )
                .returning(users)
            ).one_or_none()
            return None if changed is None else user_of(changed)

        return await self._database.write(reset, tenant=EVERY)

    async def change_password(
        self, user: User, password_hash: str, now: float, *, end_sessions: bool
    ) -> User | None:
        """Set the password, and return the user as it is then; the sessions of before may be void.

        None if the password has changed since `user` was read.
        """

        def change(db: Connection) -> User | None:
            changed = db.execute(
                update(users)
                .where(users.c.id == user.id, users.c.password_changed_at == user.password_changed_at)
                .values(
                    password_hash=password_hash,
                    password_changed_at=now,
                    generation=users.c.generation + int(end_sessions),
                )
                .returning(users)
            ).one_or_none()
            return None if changed is None else user_of(changed)

        return await self._database.write(change, tenant=user.tenant_id)

    async def upgrade_hash(self, user: User, password_hash: str) -> None:
        """Put another hash of the same password in place of the one that `user` was read with."""
        same = update(users).where(users.c.id == user.id, users.c.password_hash == user.password_hash)
        await self._database.write(
            lambda db: db.execute(same.values(password_hash=password_hash)), tenant=user.tenant_id
        )

    async def forget_unproven(self, before: float) -> int:
        """Forget those who registered before then and never proved their address; return how many."""
        is_old = users.c.created_at < before
        return await self._database.write(lambda db: _drop_unproven(db, is_old), tenant=EVERY)

    async def by_email(self, email_key: str) -> User | None:
        """Return the user of this address."""
        return await self._database.read(lambda db: _find(db, users.c.email_key == email_key), tenant=EVERY)

    async def by_id(self, user_id: str) -> User | None:
        """Return the user of this id."""
        return await self._database.read(lambda db: _find(db, users.c.id == user_id), tenant=EVERY)


def user_of(row: Any) -> User:
    """Return the user that a row of the table is."""
    return User(
        id=row.id,
        tenant_id=row.tenant_id,
        email=row.email,
        email_key=row.email_key,
        name=row.name,
        password_hash=row.password_hash,
        password_changed_at=row.password_changed_at,
        generation=row.generation,
        role=cast("Literal['administrator', 'member']", row.role),
        verified=row.verified_at is not None,
        disabled=row.disabled_at is not None,
    )


def _find(db: Connection, *conditions: ColumnElement[bool]) -> User | None:
    row = db.execute(select(users).where(*conditions)).one_or_none()
    return None if row is None else user_of(row)


def _drop_unproven(db: Connection, condition: ColumnElement[bool]) -> int:
    """Forget who has registered without ever proving the address, and the tenants that they opened.

    The users go first: an address that is being proved at this moment is waited for, and stays.
    """
    unproven = delete(users).where(condition, users.c.verified_at.is_(None))
    opened = db.execute(unproven.returning(users.c.tenant_id)).scalars().all()
    db.execute(delete(tenants).where(tenants.c.id.in_(opened)))
    return len(opened)


def _add(db: Connection, user: User, now: float) -> None:
    db.execute(users.insert().values(_row_of(user, now)))


def _row_of(user: User, now: float) -> dict[str, Any]:
    return {
        "id": user.id,
        "tenant_id": user.tenant_id,
        "email": user.email,
        "email_key": user.email_key,
        "name": user.name,
        "password_hash": user.password_hash,
        "password_changed_at": now,
        "role": user.role,
        "verified_at": now if user.verified else None,
        "created_at": now,
    }


def _spend(
    db: Connection,
    purpose: Purpose,
    email_key: str,
    code_hash: bytes,
    now: float,
    registration: str | None = None,
) -> str | None:
    """Spend one attempt at a code; if it is right, void it and return its user's id.

    The attempt is counted before it is compared, in one transaction: parallel guesses cannot share one, and
    a right code is accepted once.
    """
    of_address = select(users.c.id).where(users.c.email_key == email_key).scalar_subquery()
    row = db.execute(
        update(codes)
        .where(
            codes.c.user_id == of_address,
            codes.c.purpose == purpose,
            codes.c.attempts < MAX_ATTEMPTS,
            codes.c.expires_at > now,
        )
        .values(attempts=codes.c.attempts + 1)
        .returning(codes.c.user_id, codes.c.hash)
    ).one_or_none()
    # An ordinary comparison is safe: nobody can choose a guess by its HMAC without the key.
    if row is None or row.hash != code_hash or registration not in {None, row.user_id}:
        return None
    db.execute(delete(codes).where(codes.c.user_id == row.user_id, codes.c.purpose == purpose))
    user_id: str = row.user_id
    return user_id


def _count_of_guesses(db: Connection, email_key: str, code: OneTimeCode) -> Count | None:
    """Return what is still counted for an address, so that registering it anew buys no guesses."""
    counting = (
        select(codes.c.attempts, codes.c.counted_from)
        .join(users, users.c.id == codes.c.user_id)
        .where(
            users.c.email_key == email_key,
            codes.c.purpose == code.purpose,
            codes.c.counted_from > code.issued_at - COUNTED_FOR,
        )
        .with_for_update(of=codes)  # a guess that is being made counts too
    )
    row = db.execute(counting).one_or_none()
    return None if row is None else Count(*row)


def _put_code(db: Connection, user: User, code: OneTimeCode, count: Count | None = None) -> None:
    """Put a code in place of the one before it, and go on counting until the count's hour is over."""
    attempts, counted_from = count or Count(0, code.issued_at)
    put = insert(db, codes).values(
        user_id=user.id,
        tenant_id=user.tenant_id,
        purpose=code.purpose,
        hash=code.hash,
        expires_at=code.expires_at,
        attempts=attempts,
        counted_from=counted_from,
    )
    is_over = codes.c.counted_from <= code.issued_at - COUNTED_FOR
    new = {
        "hash": put.excluded.hash,
        "expires_at": put.excluded.expires_at,
        "attempts": case((is_over, 0), else_=codes.c.attempts),
        "counted_from": case((is_over, code.issued_at), else_=codes.c.counted_from),
    }
    db.execute(put.on_conflict_do_update(index_elements=["user_id", "purpose"], set_=new))


def _one_at_a_time(db: Connection, email_key: str) -> None:
    """Have those who register an address, or ask for a code for it, at the same time do so one by one.

    SQLite has one writer anyhow. PostgreSQL lets go of the lock at the transaction's end.
    """
    if db.dialect.name == "postgresql":
        db.execute(select(func.pg_advisory_xact_lock(func.hashtext(email_key))))
