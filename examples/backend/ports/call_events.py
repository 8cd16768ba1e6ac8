"""What webhooks delivered, and what the provider's list has that they did not: tables of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import exists, select, update

from examples.backend.ports import calls as rows
from examples.backend.ports.database import BATCH, EVERY, insert
from examples.backend.ports.tables import call_events, calls, deliveries, jobs, numbers, watermarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from examples.backend.domain.reconciliation import Listed
    from examples.backend.domain.webhooks import CallEvent
    from examples.backend.ports.database import Database

CALLS: Final = "calls"
"""The name of the watermark of the provider's list of calls."""
SOON: Final = 0.9
"""The share of the interval after which the next turn may be taken: the timers of processes are not exact."""


class DatabaseCallEvents:
    """Answers `CallEvents` of the webhooks and `Announcements` of the reconciliation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: CallEvent, delivery_id: str | None = None) -> bool:
        """Note `event` and have the workers look at its call, if it is news and the call is the tenant's."""
        tenant, now = event.tenant, event.received_at
        note = {
            "tenant_id": tenant,
            "call_sid": event.call_sid,
            "status": event.status,
            "date_updated": event.date_updated,
            "received_at": now,
        }

        def add(db: Connection) -> bool:
            if delivery_id is not None and not _is_new(db, tenant, delivery_id, now):
                return False
            noting = insert(db, call_events).values(**note).on_conflict_do_nothing()
            if db.execute(noting).rowcount == 0:
                return False
            is_the_tenants, _ = rows.expect(db, event.call_sid, tenant, now, not_before=now, again=True)
            return is_the_tenants

        return await self._database.write(add, tenant=EVERY)

    async def remove(self, tenant: str, call_sid: str, delivery_id: str, now: float) -> bool:
        """Delete a call's recording, if the delivery is news and the call is the tenant's; return whether."""
        return await self._database.write(
            lambda db: _is_new(db, tenant, delivery_id, now) and rows.remove(db, call_sid, tenant, now),
            tenant=EVERY,
        )

    async def forget(self, events_before: float, deliveries_before: float) -> None:
        """Forget what is older than these."""
        await self._database.prune(call_events, call_events.c.received_at < events_before)
        await self._database.prune(deliveries, deliveries.c.received_at < deliveries_before)

    async def begin(self, now: float, first: float, interval: float) -> float | None:
        """Take a turn at reading the provider's list; return from where on, or None."""
        its = watermarks.c.name == CALLS

        def begin(db: Connection) -> float | None:
            db.execute(insert(db, watermarks).values(name=CALLS, at=first).on_conflict_do_nothing())
            is_time = its & (watermarks.c.turn_at <= now - SOON * interval)
            taking = update(watermarks).where(is_time).values(turn_at=now).returning(watermarks.c.at)
            return db.execute(taking).scalar_one_or_none()

        return await self._database.write(begin, tenant=EVERY)

    async def advance(self, to: float) -> None:
        """Note from where on the next turn reads, unless it is further on already."""
        its = (watermarks.c.name == CALLS) & (watermarks.c.at < to)
        moving = update(watermarks).where(its).values(at=to)
        await self._database.write(lambda db: db.execute(moving), tenant=EVERY)

    async def announce(self, listed: Sequence[Listed], now: float) -> tuple[int, int]:
        """Have calls that are not known looked at; return how many there were, and how many were nobody's."""
        sids, lines = [call.sid for call in listed], {call.line for call in listed}

        def announce(db: Connection) -> tuple[int, int]:
            known = set(db.execute(select(calls.c.call_sid).where(calls.c.call_sid.in_(sids))).scalars())
            whose = select(numbers.c.number, numbers.c.tenant_id).where(numbers.c.number.in_(lines))
            tenants = {row.number: row.tenant_id for row in db.execute(whose)}
            found = nobodys = 0
            for call in listed:
                if call.sid in known:
                    continue
                if call.line not in tenants:
                    nobodys += 1
                    continue
                tenant = tenants[call.line]
                _, is_new = rows.expect(db, call.sid, tenant, now, not_before=now, again=False)
                found += is_new
            return found, nobodys

        return await self._database.write(announce, tenant=EVERY)

    async def mend(self, now: float) -> int:
        """Give calls that are expected, but that nobody looks for, a job; return how many there were."""
        has_job = exists().where(jobs.c.call_sid == calls.c.call_sid)
        unfinished = calls.c.state.in_(("expected", "fetching"))
        forgotten = select(calls.c.call_sid, calls.c.tenant_id).where(unfinished, ~has_job).limit(BATCH)

        def mend(db: Connection) -> int:
            found = db.execute(forgotten).all()
            for call_sid, tenant in found:
                rows.expect(db, call_sid, tenant, now, not_before=now, again=False)
            return len(found)

        if await self._database.read(lambda db: db.execute(forgotten).first(), tenant=EVERY) is None:
            return 0  # as almost always; and that keeps no writer from writing
        return await self._database.write(mend, tenant=EVERY)


def _is_new(db: Connection, tenant: str, delivery_id: str, now: float) -> bool:
    """Note the id of a signed delivery; return whether it was not known."""
    noting = insert(db, deliveries).values(tenant_id=tenant, delivery_id=delivery_id, received_at=now)
    return db.execute(noting.on_conflict_do_nothing()).rowcount == 1
