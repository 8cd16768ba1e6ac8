"""Which recordings are in the store: the table of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from examples.backend.domain.recordings import Call, Recording, Sound
from examples.backend.ports.database import insert
from examples.backend.ports.tables import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from examples.backend.ports.database import Database


class DatabaseCatalogue:
    """Answers `examples.backend.domain.recordings.Catalogue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, call_sid: str, tenant: str) -> Recording | None:
        """Return the recording of this call, if it is in the store."""
        return await self._database.read(lambda db: _find(db, call_sid, tenant), tenant=tenant)

    async def add(self, recording: Recording, tenant: str) -> Recording:
        """Enter `recording`, unless one of the same call is there already; return the one that is."""

        def add(db: Connection) -> Recording:
            call, sound = recording.call, recording.sound
            enter = insert(db, calls).values(
                call_sid=call.sid,
                tenant_id=tenant,
                state="stored",
                status=call.status,
                object_key=recording.object_key,
                content_type=sound.content_type,
                size=sound.size,
                sha256=sound.sha256,
                from_number=call.from_number,
                to_number=call.to_number,
                direction=call.direction,
                started_at=call.started_at,
                ended_at=call.ended_at,
                duration=call.duration,
                stored_at=recording.stored_at,
                created_at=recording.stored_at,
                changed_at=recording.stored_at,
            )
            db.execute(enter.on_conflict_do_nothing())
            return _find(db, call.sid, tenant) or recording

        return await self._database.write(add, tenant=tenant)


def _find(db: Connection, call_sid: str, tenant: str) -> Recording | None:
    row = db.execute(
        select(calls).where(calls.c.call_sid == call_sid, calls.c.tenant_id == tenant)
    ).one_or_none()
    return None if row is None else _recording_of(row)


def _recording_of(row: Any) -> Recording:
    return Recording(
        call=Call(
            sid=row.call_sid,
            status=row.status,
            from_number=row.from_number,
            to_number=row.to_number,
            direction=row.direction,
            started_at=row.started_at,
            ended_at=row.ended_at,
            duration=row.duration,
            recording_url=None,
        ),
        sound=Sound(content_type=row.content_type, size=row.size, sha256=row.sha256),
        object_key=row.object_key,
        stored_at=row.stored_at,
    )
