"""Users and their one-time codes in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from examples.backend.domain.accounts import User
from examples.backend.domain.codes import MAX_ATTEMPTS

if TYPE_CHECKING:
    import sqlite3

    from examples.backend.domain.codes import OneTimeCode
    from examples.backend.ports.database import Database


class SQLiteUsers:
    """Answers `examples.backend.domain.accounts.Users`; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, user: User, code: OneTimeCode, now: float) -> User | None:
        """Add `user`, or put it in place of one who never proved the address; else return who did."""

        def register(db: sqlite3.Connection) -> User | None:
            db.execute("DELETE FROM users WHERE email_key = ? AND verified_at IS NULL", (user.email_key,))
            owner = _find(db, "email_key", user.email_key)
            if owner is None:
                db.execute(
                    """
                    INSERT INTO users (id, email, email_key, name, password_hash, created_at)
                    VALUES (?, ?, ?, ?, ?, ?)
                    """,
                    (user.id, user.email, user.email_key, user.name, user.password_hash, now),
                )
                _put_code(db, user.id, code)
            return owner

        return await self._database.write(register)

    async def replace_code(self, email_key: str, code: OneTimeCode) -> str | None:
        """Put `code` in place of the old one; return the address to send it to, if it awaits one."""

        def replace(db: sqlite3.Connection) -> str | None:
            row = db.execute(
                "SELECT id, email FROM users WHERE email_key = ? AND verified_at IS NULL", (email_key,)
            ).fetchone()
            if row is None:
                return None
            _put_code(db, row["id"], code)
            return str(row["email"])

        return await self._database.write(replace)

    async def verify(
        self, email_key: str, code_hash: bytes, now: float, registration: str | None = None
    ) -> bool:
        """Spend one attempt at the code of this address; if it is right, the user is verified for good.

        With a `registration`, the code of another is wrong. An attempt is counted before it is compared, in
        one transaction: parallel guesses cannot share one, and a right code is accepted once.
        """

        def verify(db: sqlite3.Connection) -> bool:
            row = db.execute(
                """
                UPDATE email_codes
                   SET attempts = attempts + 1
                 WHERE user_id = (SELECT id FROM users WHERE email_key = ?)
                   AND attempts < ? AND expires_at > ?
                RETURNING user_id, hash
                """,
                (email_key, MAX_ATTEMPTS, now),
            ).fetchone()
            # An ordinary comparison is safe: nobody can choose a guess by its HMAC without the key.
            if row is None or row["hash"] != code_hash or registration not in {None, row["user_id"]}:
                return False
            db.execute("DELETE FROM email_codes WHERE user_id = ?", (row["user_id"],))
            db.execute("UPDATE users SET verified_at = ? WHERE id = ?", (now, row["user_id"]))
            return True

        return await self._database.write(verify)

    async def by_email(self, email_key: str) -> User | None:
        """Return the user of this address."""
        return await self._database.read(lambda db: _find(db, "email_key", email_key))

    async def by_id(self, user_id: str) -> User | None:
        """Return the user of this id."""
        return await self._database.read(lambda db: _find(db, "id", user_id))


def _find(db: sqlite3.Connection, column: Literal["email_key", "id"], value: str) -> User | None:
    row = db.execute(f"SELECT * FROM users WHERE {column} = ?", (value,)).fetchone()  # noqa: S608 - one of two
    return None if row is None else _user_of(row)


def _put_code(db: sqlite3.Connection, user_id: str, code: OneTimeCode) -> None:
    db.execute(
        "INSERT OR REPLACE INTO email_codes (user_id, hash, expires_at) VALUES (?, ?, ?)",
        (user_id, code.hash, code.expires_at),
    )


def _user_of(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        email_key=row["email_key"],
        name=row["name"],
        password_hash=row["password_hash"],
        verified=row["verified_at"] is not None,
    )
