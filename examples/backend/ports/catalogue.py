"""Which calls there are, and what has become of their recordings: the table of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, func, or_, select

from examples.backend.ports import calls as rows
from examples.backend.ports.database import EVERY
from examples.backend.ports.tables import calls
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from examples.backend.domain.recordings import Entry, Position, Recording, Search
    from examples.backend.ports.database import Database
    from resilience.clock import Clock


class DatabaseCatalogue:
    """Answers `examples.backend.domain.recordings.Catalogue`."""

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    async def find(self, call_sid: str) -> Entry | None:
        """Return the call, whosever it is."""
        return await self._database.read(lambda db: _find(db, call_sid), tenant=EVERY)

    async def page(self, tenant: str, search: Search, after: Position | None, limit: int) -> Sequence[Entry]:
        """Return some of a tenant's calls, those that were announced last before the others."""
        wanted = select(calls).where(calls.c.tenant_id == tenant, *_matching(search))
        if after is not None:
            wanted = wanted.where(
                or_(
                    calls.c.created_at < after.created_at,
                    and_(calls.c.created_at == after.created_at, calls.c.call_sid < after.call_sid),
                )
            )
        newest_first = wanted.order_by(calls.c.created_at.desc(), calls.c.call_sid.desc()).limit(limit)
        return await self._database.read(
            lambda db: list(map(rows.entry_of, db.execute(newest_first).all())), tenant=tenant
        )

    async def enter(self, recording: Recording, tenant: str) -> Recording | None:
        """Enter a recording that is in the store, unless the call has one; return the one that counts."""
        sid, now = recording.call.sid, recording.stored_at

        def enter(db: Connection) -> Recording | None:
            is_the_tenants, _ = rows.expect(db, sid, tenant, now, not_before=now, again=True)
            entry = _find(db, sid)
            if not is_the_tenants or entry is None or entry.state == "deleted":
                return None
            if entry.recording is not None:
                return entry.recording
            rows.store(db, recording, tenant)
            return recording

        return await self._database.write(enter, tenant=EVERY)

    async def expect(self, call_sid: str, tenant: str, not_before: float) -> None:
        """Have the workers look for a recording that is not there yet, unless they do already."""
        now = self._clock.wall()
        await self._database.write(
            lambda db: rows.expect(db, call_sid, tenant, now, not_before=not_before, again=True),
            tenant=EVERY,
        )

    async def remove(self, call_sid: str, tenant: str) -> bool:
        """Mark a call as deleted and have the workers remove its object; return whether it was there."""
        now = self._clock.wall()
        return await self._database.write(lambda db: rows.remove(db, call_sid, tenant, now), tenant=EVERY)


def _find(db: Connection, call_sid: str) -> Entry | None:
    row = db.execute(select(calls).where(calls.c.call_sid == call_sid)).one_or_none()
    return None if row is None else rows.entry_of(row)


def _matching(search: Search) -> list[ColumnElement[bool]]:
    began_at = func.coalesce(calls.c.started_at, calls.c.created_at)
    conditions = [calls.c.state != "deleted"]
    if search.state is not None:
        conditions.append(calls.c.state == search.state)
    if search.text is not None:
        conditions.append(
            or_(
                calls.c.from_number.contains(search.text, autoescape=True),
                calls.c.to_number.contains(search.text, autoescape=True),
                calls.c.call_sid.startswith(search.text, autoescape=True),
            )
        )
    if search.since is not None:
        conditions.append(began_at >= search.since)
    if search.until is not None:
        conditions.append(began_at <= search.until)
    return conditions
