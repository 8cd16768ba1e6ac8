"""What webhooks delivered: a table of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.backend.ports.database import insert
from examples.backend.ports.tables import call_events

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.domain.webhooks import CallEvent
    from examples.backend.ports.database import Database


class DatabaseCallEvents:
    """Answers `examples.backend.domain.webhooks.CallEvents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: CallEvent) -> bool:
        """Note `event`; return whether it was news."""

        def add(db: Connection) -> bool:
            note = insert(db, call_events).values(
                tenant_id=event.tenant,
                call_sid=event.call_sid,
                status=event.status,
                date_updated=event.date_updated,
                received_at=event.received_at,
            )
            return db.execute(note.on_conflict_do_nothing()).rowcount == 1

        return await self._database.write(add, tenant=event.tenant)
