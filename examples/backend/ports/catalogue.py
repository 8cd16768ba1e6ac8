"""Which recordings are in the store: a table of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.backend.domain.recordings import Call, Recording, Sound

if TYPE_CHECKING:
    import sqlite3

    from examples.backend.ports.database import Database


class SQLiteCatalogue:
    """Answers `examples.backend.domain.recordings.Catalogue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, call_sid: str) -> Recording | None:
        """Return the recording of this call, if it is in the store."""

        def find(db: sqlite3.Connection) -> Recording | None:
            row = db.execute("SELECT * FROM recordings WHERE call_sid = ?", (call_sid,)).fetchone()
            return None if row is None else _recording_of(row)

        return await self._database.read(find)

    async def add(self, recording: Recording) -> None:
        """Enter `recording`; nothing happens if it is there already."""

        def add(db: sqlite3.Connection) -> None:
            db.execute(
                """
                INSERT INTO recordings (call_sid, status, object_key, content_type, size, sha256, from_number,
                                        to_number, direction, started_at, ended_at, duration, stored_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (call_sid) DO NOTHING
                """,
                (
                    recording.call.sid,
                    recording.call.status,
                    recording.object_key,
                    recording.sound.content_type,
                    recording.sound.size,
                    recording.sound.sha256,
                    recording.call.from_number,
                    recording.call.to_number,
                    recording.call.direction,
                    recording.call.started_at,
                    recording.call.ended_at,
                    recording.call.duration,
                    recording.stored_at,
                ),
            )

        await self._database.write(add)


def _recording_of(row: sqlite3.Row) -> Recording:
    return Recording(
        call=Call(
            sid=row["call_sid"],
            status=row["status"],
            from_number=row["from_number"],
            to_number=row["to_number"],
            direction=row["direction"],
            started_at=row["started_at"],
            ended_at=row["ended_at"],
            duration=row["duration"],
            recording_url=None,
        ),
        sound=Sound(content_type=row["content_type"], size=row["size"], sha256=row["sha256"]),
        object_key=row["object_key"],
        stored_at=row["stored_at"],
    )
