"""The jobs that are still to be done about calls: a table that any number of processes work at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import delete, select, update

from examples.backend.domain.jobs import Job
from examples.backend.ports import calls as rows
from examples.backend.ports.database import EVERY
from examples.backend.ports.tables import calls, jobs
from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from examples.backend.domain.jobs import Never
    from examples.backend.domain.recordings import Call, Recording
    from examples.backend.ports.database import Database
    from resilience.clock import Clock

T = TypeVar("T")

LONGEST_ERROR = 500
"""Characters that are kept of an error, for developers."""


class DatabaseJobs:
    """Answers `examples.backend.domain.jobs.Queue`."""

    def __init__(self, database: Database, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, lease: str, now: float, until: float) -> Job | None:
        """Lease the job that has been due for longest; None if none is."""
        due = (
            select(jobs.c.call_sid)
            .where(jobs.c.not_before <= now, jobs.c.leased_until <= now)
            .order_by(jobs.c.not_before)
            .limit(1)
        )

        def claim(db: Connection) -> Job | None:
            # PostgreSQL passes over rows that others are just claiming; SQLite has one writer at a time.
            next_one = due.with_for_update(skip_locked=True).scalar_subquery()
            taking = update(jobs).where(jobs.c.call_sid == next_one).values(lease=lease, leased_until=until)
            taken = db.execute(taking.returning(jobs)).one_or_none()
            if taken is None:
                return None
            state = select(calls.c.state).where(calls.c.call_sid == taken.call_sid)
            return Job(
                call_sid=taken.call_sid,
                tenant=taken.tenant_id,
                state=db.execute(state).scalar_one(),
                attempts=taken.attempts,
                created_at=taken.created_at,
                lease=lease,
            )

        # Mostly there is nothing to do: that is found out without keeping a writer from writing.
        if await self._database.read(lambda db: db.execute(due).first(), tenant=EVERY) is None:
            return None
        return await self._database.write(claim, tenant=EVERY)

    async def note(self, job: Job, call: Call) -> bool:
        """Keep what the provider tells about the call; if it has a recording, that is being fetched now."""
        state = "expected" if call.recording_url is None else "fetching"
        return await self._change(job, lambda db: self._turn(db, job, state, **rows.details_of(call)))

    async def store(self, job: Job, recording: Recording) -> bool:
        """Enter the recording; the job is done."""
        return await self._change(job, lambda db: rows.store(db, recording, job.tenant))

    async def put_off(self, job: Job, not_before: float, attempts: int, error: str | None) -> bool:
        """Have the job done later, by anybody."""
        values = {"not_before": not_before, "attempts": attempts, "lease": None, "leased_until": 0.0}
        error = None if error is None else error[:LONGEST_ERROR]

        def put_off(db: Connection) -> None:
            one = update(jobs).where(jobs.c.call_sid == job.call_sid)
            db.execute(one.values(**values, last_error=error))
            if job.state != "deleted":
                self._turn(db, job, "expected")

        return await self._change(job, put_off)

    async def give_up(self, job: Job, never: Never) -> bool:
        """Say what has become of the call; the job is done."""

        def give_up(db: Connection) -> None:
            self._turn(db, job, never.state, failure=never.reason)
            _forget(db, job)

        return await self._change(job, give_up)

    async def finish(self, job: Job) -> bool:
        """Forget a job that is done."""
        return await self._change(job, lambda db: _forget(db, job))

    async def hand_back(self, leases: str) -> int:
        """End all leases that begin so; return how many there were."""
        mine = update(jobs).where(jobs.c.lease.startswith(leases, autoescape=True))
        ending = mine.values(lease=None, leased_until=0.0)
        return await self._database.write(lambda db: db.execute(ending).rowcount, tenant=EVERY)

    async def _change(self, job: Job, work: Callable[[Connection], object]) -> bool:
        """Do `work` in one transaction, if the job is still leased as it says; return whether it was."""
        held = (jobs.c.call_sid == job.call_sid) & (jobs.c.lease == job.lease)

        def change(db: Connection) -> bool:
            # The call's row comes before the job's, here as everywhere: so nobody waits in a circle.
            db.execute(select(calls.c.state).where(calls.c.call_sid == job.call_sid).with_for_update())
            if db.execute(select(jobs.c.call_sid).where(held).with_for_update()).first() is None:
                return False
            work(db)
            return True

        return await self._database.write(change, tenant=EVERY)

    def _turn(self, db: Connection, job: Job, state: str, **values: Any) -> None:
        rows.change(db, job.call_sid, job.tenant, state, self._clock.wall(), **values)


def _forget(db: Connection, job: Job) -> None:
    db.execute(delete(jobs).where(jobs.c.call_sid == job.call_sid))
