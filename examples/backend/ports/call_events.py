"""What webhooks delivered: a table of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from examples.backend.domain.webhooks import CallEvent
    from examples.backend.ports.database import Database


class SQLiteCallEvents:
    """Answers `examples.backend.domain.webhooks.CallEvents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: CallEvent) -> bool:
        """Note `event`; return whether it was news."""

        def add(db: sqlite3.Connection) -> bool:
            done = db.execute(
                """
                INSERT INTO call_events (tenant, call_sid, status, date_updated, received_at)
                VALUES (?, ?, ?, ?, ?)
                ON CONFLICT DO NOTHING
                """,
                (event.tenant, event.call_sid, event.status, event.date_updated, event.received_at),
            )
            return done.rowcount == 1

        return await self._database.write(add)
