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
        return await self._database.read(lambda db: _find(db, call_sid))

    async def add(self, recording: Recording) -> Recording:
        """Enter `recording`, unless one of the same call is there already; return the one that is."""

        def add(db: sqlite3.Connection) -> Recording:
            call, sound = recording.call, recording.sound
            db.execute(
                """
                INSERT INTO recordings (call_sid, status, object_key, content_type, size, sha256, from_number,
                                        to_number, direction, started_at, ended_at, duration, stored_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (call_sid) DO NOTHING
                """,
                (
                    call.sid,
                    call.status,
                    recording.object_key,
                    sound.content_type,
                    sound.size,
                    sound.sha256,
                    call.from_number,
                    call.to_number,
                    call.direction,
                    call.started_at,
                    call.ended_at,
                    call.duration,
                    recording.stored_at,
                ),
            )
            return _find(db, call.sid) or recording

        return await self._database.write(add)


def _find(db: sqlite3.Connection, call_sid: str) -> Recording | None:
    row = db.execute("SELECT * FROM recordings WHERE call_sid = ?", (call_sid,)).fetchone()
    return None if row is None else _recording_of(row)


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
