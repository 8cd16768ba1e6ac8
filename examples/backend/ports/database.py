"""The database: one SQLite file, plain SQL, migrations in order of their numbers.

One connection, used by one thread: transactions are whole and follow one another, and the event loop
never waits for a disk. Whatever must happen together is one function that is given to `write`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from examples.backend.ports.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

MIGRATIONS: Final = Path(__file__).parent.parent / "migrations"
BUSY_TIMEOUT: Final = 2.0
"""Seconds to wait while another process writes."""


class Database:
    """Runs transactions on the SQLite file at `path`, which is made and brought up to date if need be."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT,
            isolation_level=None,  # transactions begin where it says BEGIN
            check_same_thread=False,  # made here, used by the worker only
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a crash may lose, never tear
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._worker = Workers("The database", threads=1, queue=1000)
        self._migrate()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, called with the connection."""
        return await self._worker.run(work, self._connection)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, called with the connection inside one transaction."""
        return await self._worker.run(self._transact, work)

    def close(self) -> None:
        """Finish what has begun, and close the file."""
        self._worker.close()
        self._connection.close()

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._connection.execute("BEGIN IMMEDIATE")  # the write lock at once: two readers that both turn
        try:  # into writers would be a deadlock
            result = work(self._connection)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk, say, has SQLite itself roll back
                self._connection.execute("ROLLBACK")
            raise
        return result

    def _migrate(self) -> None:
        """Run the migrations that this file has not seen, all or none."""

        def migrate(connection: sqlite3.Connection) -> None:
            (seen,) = connection.execute("PRAGMA user_version").fetchone()
            for script in sorted(MIGRATIONS.glob("*.sql")):
                number = int(script.name.partition("_")[0])
                if number > seen:
                    for statement in _statements(script.read_text()):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")

        self._transact(migrate)


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of `script`; `executescript` would commit behind our back."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
